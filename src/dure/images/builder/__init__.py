"""Dockerfile builds: text → stages → steps over overlays → layers, with a cache of steps."""
