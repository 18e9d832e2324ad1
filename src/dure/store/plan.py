"""Compare-and-swap: from what a key holds and what is asked to the event that will happen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dure.store.model import Event, Key, KeyNotFound, Record, RevisionMismatch


@dataclass(frozen=True, slots=True)
class Write:
    """What a caller asked for; a `value` of None deletes."""

    key: Key
    value: bytes | None
    expect: int | None

    def plan(self, current: Record | None, revision: int) -> Event:
        """The event at `revision`, given the current record. Raises RevisionMismatch, KeyNotFound."""
        if self.value is None and current is None:
            raise KeyNotFound(self.key)
        held = current.revision if current is not None else 0
        if self.expect is not None and self.expect != held:
            raise RevisionMismatch(self.key, self.expect, held)
        created = current.created if current is not None else revision
        if self.value is not None:
            return Event("PUT", Record(self.key, self.value, revision, created), current)
        assert current is not None
        return Event("DELETED", Record(self.key, current.value, revision, created), current)
