"""Admission plugins: each a concern that changes or refuses writes."""
