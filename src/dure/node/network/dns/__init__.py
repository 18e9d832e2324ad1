"""Cluster DNS on every node: Services and pods by the Kubernetes DNS specification 1.1.0, the rest forwarded."""
