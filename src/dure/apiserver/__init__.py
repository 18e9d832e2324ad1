"""The API server: Kubernetes' HTTP API over a store.

`server.ApiServer` answers requests; `parts` composes it; `ports` names what it needs from identity and nodes. A
request goes: requestinfo, authentication, access, then a part (discovery, openapi, health) or `rest` with its plugins.
"""
