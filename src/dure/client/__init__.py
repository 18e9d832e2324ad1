"""Speaking to an API server: `Client` on top of a transport, in this process or over HTTP."""
