"""Networks of the local nodes: links to the host, pods' namespaces and addresses, Services, cluster DNS.

Everything is routed: a node is a namespace with one link to the host, a pod a namespace with one link to its node.
What is set up lives in the kernel and in small files below the run and state folders, so it outlives the agent.
"""
