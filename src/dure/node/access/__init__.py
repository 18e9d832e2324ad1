"""What clients do inside a node's pods: read logs, run and join processes, forward ports.

`AccessServer` answers the kubelet's paths behind the API server, which has authorised the caller and pipes the bytes.
"""
