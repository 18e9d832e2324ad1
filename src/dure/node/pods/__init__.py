"""Pods of one node: `plan` decides, `worker` acts, `status` reports; the rest prepares what a container needs.

`NodeAgent` (one level up) makes a `PodWorker` for each pod bound to its node. What the rooms need of one another is
in `ports`; what a container's start takes is worked out in `preparation`.
"""
