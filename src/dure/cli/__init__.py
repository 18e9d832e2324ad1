"""Commands: parse, call `apps` or a `Client`, print. Imports stay lazy so that each command starts at once."""
