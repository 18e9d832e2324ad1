"""Durable objects under ordered keys with one global revision; see `model.Store`. Imports nothing by itself."""
