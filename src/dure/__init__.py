"""Dure: the whole outer architecture of microservices in one install."""

__version__ = "0.1.0"
