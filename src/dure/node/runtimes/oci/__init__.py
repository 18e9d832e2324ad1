"""Containers by crun or runc under one monitor process of our own a machine.

Two halves that share only `kernel`, `frames` and `layout`: the agent's half (`runtime` and what it uses) on
asyncio, and the monitor's half (`shim*`) on the standard library alone, so that it stays small. Nothing is
imported here, because the monitor passes through this package too.
"""
