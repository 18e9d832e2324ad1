"""The three ways to change an object by a patch; server-side apply is `dure.api.apply`. All pure."""

from __future__ import annotations

from dure.api.json_patch import apply_json_patch
from dure.api.merge_patch import apply_merge_patch
from dure.api.strategic_patch import apply_strategic_patch

__all__ = ["apply_json_patch", "apply_merge_patch", "apply_strategic_patch"]
