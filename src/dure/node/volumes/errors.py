"""Why a volume cannot be had."""

from __future__ import annotations

from dure.node.pods.ports import VolumeFailure


class BadPath(VolumeFailure):
    """A path in a volume's source would leave the volume."""


class Missing(VolumeFailure):
    """An object the volume shows does not exist (yet)."""
