"""The graph of owners and dependents, as events tell it: pure bookkeeping, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dure.api.meta import ObjectKey, gvk_of, is_deleting, key_of, owners_of, parse_api_version, uid_of
from dure.core.json import Obj

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool

    @property
    def group(self) -> str:
        return parse_api_version(self.api_version)[0]


@dataclass(frozen=True, slots=True)
class Member:
    """What the graph keeps of an object."""

    resource: str
    kind: tuple[str, str]
    """Group and kind."""
    key: ObjectKey
    uid: str
    owners: tuple[Owner, ...]
    deleting: bool
    finalizers: frozenset[str]

    @property
    def awaits_dependents(self) -> bool:
        return self.deleting and FOREGROUND in self.finalizers

    def is_named_by(self, owner: Owner, dependent: ObjectKey) -> bool:
        """Whether a reference that has this member's uid means it: owners are of the same namespace or of none."""
        is_near = self.key.namespace in ("", dependent.namespace)
        return is_near and self.kind == (owner.group, owner.kind) and self.key.name == owner.name

    @property
    def orphans_dependents(self) -> bool:
        return self.deleting and ORPHAN in self.finalizers


def member_of(resource: str, obj: Obj) -> Member:
    owners = tuple(
        Owner(ref["apiVersion"], ref["kind"], ref["name"], ref["uid"], bool(ref.get("blockOwnerDeletion")))
        for ref in owners_of(obj)
    )
    finalizers = frozenset(obj["metadata"].get("finalizers") or ())
    group, _, kind = gvk_of(obj)
    return Member(resource, (group, kind), key_of(obj), uid_of(obj), owners, is_deleting(obj), finalizers)


class Graph:
    """Members by uid and, for each owner's uid, who depends on it (whether or not the owner is known)."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._dependents: dict[str, set[str]] = {}

    def get(self, uid: str) -> Member | None:
        return self._members.get(uid)

    def put(self, member: Member) -> None:
        self._unlink(member.uid)
        self._members[member.uid] = member
        for owner in member.owners:
            self._dependents.setdefault(owner.uid, set()).add(member.uid)

    def remove(self, uid: str) -> None:
        self._unlink(uid)
        self._members.pop(uid, None)

    def _unlink(self, uid: str) -> None:
        before = self._members.get(uid)
        for owner in before.owners if before else ():
            dependents = self._dependents.get(owner.uid)
            if dependents is not None:
                dependents.discard(uid)
                if not dependents:
                    del self._dependents[owner.uid]

    def dependents(self, uid: str) -> list[Member]:
        return [self._members[item] for item in self._dependents.get(uid, ())]

    def of_resource(self, resource: str) -> list[Member]:
        return [member for member in self._members.values() if member.resource == resource]


def blocking(dependents: Iterable[Member], owner_uid: str) -> list[Member]:
    """The dependents that hold up a foreground deletion."""
    return [member for member in dependents if any(owner.uid == owner_uid and owner.blocks for owner in member.owners)]
