"""Creations and deletions that were acknowledged but have not yet been seen in the cache.

A reconciler that trusted its cache alone would create a pod twice in that gap.
"""

from __future__ import annotations

from dure.api.meta import ObjectKey, is_deleting, key_of, uid_of
from dure.control.informer import Informer
from dure.controllers.shared import its_controller
from dure.core.clock import Clock
from dure.core.json import Obj

_FORGET_SECONDS = 300.0


class Expectations:
    """Per owner of a kind, the uids that must still appear or vanish. After five minutes the cache is believed again.

    Make it before the controller watches the informer, so that it hears of each object first.
    """

    def __init__(self, informer: Informer, owner_kind: str, clock: Clock) -> None:
        self._objects = informer
        self._clock = clock
        self._owner = its_controller(owner_kind)
        self._awaited: dict[ObjectKey, dict[str, float]] = {}
        """When each uid was first waited for; a uid is waited for to appear or to vanish, never both."""
        self._vanishing: set[str] = set()
        informer.on_change(self._changed)

    def expect_to_appear(self, key: ObjectKey, obj: Obj) -> None:
        if self._objects.get(key_of(obj)) is None:
            self._await(key, uid_of(obj))

    def expect_to_vanish(self, key: ObjectKey, obj: Obj) -> None:
        shown = self._objects.get(key_of(obj))
        if shown is not None and uid_of(shown) == uid_of(obj) and not is_deleting(shown):
            self._vanishing.add(uid_of(obj))
            self._await(key, uid_of(obj))

    def give_up(self, key: ObjectKey, obj: Obj) -> None:
        """It will not happen, or the cache will not tell."""
        self._arrived(key, uid_of(obj))

    def seconds_to_wait(self, key: ObjectKey) -> float:
        """0 when the cache tells the whole truth about the key's objects; else when to stop waiting for it."""
        waiting = self._awaited.get(key)
        if not waiting:
            return 0.0
        left = max(waiting.values()) + _FORGET_SECONDS - self._clock.time()
        if left <= 0:
            self.forget(key)
        return max(0.0, left)

    def forget(self, key: ObjectKey) -> None:
        self._vanishing.difference_update(self._awaited.pop(key, ()))

    def _await(self, key: ObjectKey, uid: str) -> None:
        self._awaited.setdefault(key, {})[uid] = self._clock.time()

    def _arrived(self, key: ObjectKey, uid: str) -> None:
        waiting = self._awaited.get(key)
        if waiting is None or uid not in waiting:
            return
        del waiting[uid]
        self._vanishing.discard(uid)
        if not waiting:
            del self._awaited[key]

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        has_gone = new is None or is_deleting(new)
        if has_gone or uid_of(obj) not in self._vanishing:
            for known in filter(None, (old, new)):  # it may have been let go of
                for key in self._owner(known):
                    self._arrived(key, uid_of(obj))
