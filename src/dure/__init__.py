"""Dure: the whole outer architecture of microservices in one install."""

__version__ = "0.1.0"

KUBERNETES_VERSION = "v1.34.0"
"""The API level that is served."""
