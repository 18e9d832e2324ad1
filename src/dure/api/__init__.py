"""Kubernetes' object model: kinds, selectors, quantities, patches, schemas. Pure, no I/O."""
