"""The verbs of the API over the store: read, watch, create, update, patch, delete, and the subresources."""
