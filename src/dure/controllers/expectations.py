"""Creations and deletions that were acknowledged but have not yet been seen in the cache.

A reconciler that trusted its cache alone would create a pod twice in that gap.
"""

from __future__ import annotations

from dure.api.meta import ObjectKey

_FORGET_SECONDS = 300.0


class Expectations:
    """Per key, the uids that must still appear or vanish. After five minutes the cache is believed again."""

    def __init__(self) -> None:
        self._appear: dict[ObjectKey, dict[str, float]] = {}
        self._vanish: dict[ObjectKey, dict[str, float]] = {}

    def expect_to_appear(self, key: ObjectKey, uid: str, now: float) -> None:
        self._appear.setdefault(key, {})[uid] = now

    def expect_to_vanish(self, key: ObjectKey, uid: str, now: float) -> None:
        self._vanish.setdefault(key, {})[uid] = now

    def seen(self, key: ObjectKey, uid: str) -> None:
        """The cache has shown the object."""
        self._appear.get(key, {}).pop(uid, None)

    def gone(self, key: ObjectKey, uid: str) -> None:
        """The cache has shown it deleted or deleting."""
        self._appear.get(key, {}).pop(uid, None)
        self._vanish.get(key, {}).pop(uid, None)

    def settled(self, key: ObjectKey, now: float) -> bool:
        """Whether the cache tells the whole truth about the key's objects."""
        for waiting in (self._appear.get(key), self._vanish.get(key)):
            if waiting and any(now - since < _FORGET_SECONDS for since in waiting.values()):
                return False
        return True

    def forget(self, key: ObjectKey) -> None:
        self._appear.pop(key, None)
        self._vanish.pop(key, None)
