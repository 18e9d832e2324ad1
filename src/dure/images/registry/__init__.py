"""The client side of OCI distribution: endpoints, authentication, manifests, blobs."""
