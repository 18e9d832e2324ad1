"""Services: virtual addresses by nft in each node's namespace, load balancers on the host's loopback."""
