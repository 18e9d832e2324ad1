"""Volumes of pods: made, kept current, fixed against links that lead out, and taken away again.

`service.LocalVolumes` is the room's door; `pretend.PretendVolumes` stands in where nothing is really run.
"""
