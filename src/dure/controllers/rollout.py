"""How a Deployment moves from one ReplicaSet to the next: pure decisions over specs and counts.

Follows upstream: surge and unavailability bounds, proportional scaling, revision history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dure.api.meta import annotations_of, is_deleting, name_of
from dure.core.json import Obj, dumps_sorted

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class Scale:
    """Set one ReplicaSet to a size."""

    set_name: str
    before: int
    after: int


def replicas(obj: Obj) -> int:
    return int(obj["spec"].get("replicas", 1))


def available(obj: Obj) -> int:
    """Of a set. Its status may be older than its size: more than the size will not stay."""
    return min(replicas(obj), status_count(obj, "availableReplicas"))


def status_count(obj: Obj, field: str) -> int:
    return int((obj.get("status") or {}).get(field) or 0)


def standing(item: Obj) -> int:
    """The pods a set has or may make: after it was told to shrink, those it has not yet deleted count too."""
    return max(replicas(item), status_count(item, "replicas"))


def template_without_hash(template: Obj) -> bytes:
    """A canonical form in which two revisions of a template compare."""
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    meta.pop("creationTimestamp", None)
    return dumps_sorted({"metadata": {key: value for key, value in meta.items() if value}, "spec": template["spec"]})


def is_recreating(deployment: Obj) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"


def find_new(deployment: Obj, sets: Sequence[Obj]) -> Obj | None:
    """The oldest set that has the deployment's present template."""
    wanted = template_without_hash(deployment["spec"]["template"])
    same = [item for item in sets if template_without_hash(item["spec"]["template"]) == wanted]
    return min(same, key=_age, default=None)


def _age(item: Obj) -> tuple[str, str]:
    return (item["metadata"].get("creationTimestamp") or "", name_of(item))


def revision_of(obj: Obj) -> int:
    try:
        return int(annotations_of(obj).get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(old: Sequence[Obj]) -> int:
    return max((revision_of(item) for item in old), default=0) + 1


def resolve(value: Any, total: int, *, up: bool) -> int:
    """A count or a percentage of `total`, rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total
        return -(-share // 100) if up else share // 100
    return int(value)


def bounds(deployment: Obj) -> tuple[int, int]:
    """(max surge, max unavailable); both zero would never move, so one pod may then be away."""
    if is_recreating(deployment):
        return 0, 0
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    total = replicas(deployment)
    surge = resolve(rolling.get("maxSurge", "25%"), total, up=True)
    away = resolve(rolling.get("maxUnavailable", "25%"), total, up=False)
    if surge == 0 and away == 0:
        away = 1
    return surge, min(away, total)


def plan_rolling(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[Scale]:
    """The next steps of a rolling update, at most as far as the bounds allow now."""
    everything = [new, *old]
    if growth := _grow_new(deployment, new, everything):
        return [growth]
    return _shrink_old(deployment, new, old)


def _grow_new(deployment: Obj, new: Obj, everything: Sequence[Obj]) -> Scale | None:
    wanted, have = replicas(deployment), replicas(new)
    if have > wanted:
        return Scale(name_of(new), have, wanted)
    if have == wanted:
        return None
    surge, _ = bounds(deployment)
    room = wanted + surge - sum(standing(item) for item in everything)
    if room <= 0:
        return None
    return Scale(name_of(new), have, have + min(room, wanted - have))


def _shrink_old(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[Scale]:
    if not any(replicas(item) for item in old):
        return []
    _, away = bounds(deployment)
    least = replicas(deployment) - away
    new_away = replicas(new) - available(new)
    most = sum(replicas(item) for item in [new, *old]) - least - new_away
    if most <= 0:
        return []
    sizes = {name_of(item): replicas(item) for item in old}
    oldest_first = sorted(old, key=_age)
    for item in oldest_first:  # what is not available is missed by nobody
        broken = replicas(item) - available(item)
        take = min(broken, most)
        if take > 0:
            sizes[name_of(item)] -= take
            most -= take
    up = sum(available(item) for item in [new, *old])
    spare = up - least
    for item in oldest_first:
        take = min(sizes[name_of(item)], spare)
        if take > 0:
            sizes[name_of(item)] -= take
            spare -= take
    return [
        Scale(name_of(item), replicas(item), sizes[name_of(item)])
        for item in old
        if sizes[name_of(item)] != replicas(item)
    ]


def plan_saturated(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[Scale] | None:
    """A new set that is as large as wanted, and all of it available, needs no old ones; None when it is not yet."""
    wanted = replicas(deployment)
    is_saturated = replicas(new) == wanted == available(new) and annotations_of(new).get(DESIRED) == str(wanted)
    return [Scale(name_of(item), replicas(item), 0) for item in old if replicas(item)] if is_saturated else None


def plan_proportional(deployment: Obj, sets: Sequence[Obj]) -> list[Scale]:
    """Spread a change of size over several live sets in proportion to what they are."""
    live = [item for item in sets if replicas(item) > 0]
    surge, _ = bounds(deployment)
    allowed = replicas(deployment) + surge if replicas(deployment) else 0
    change = allowed - sum(replicas(item) for item in live)
    newest_last = sorted(live, key=_age, reverse=change > 0)
    largest_first = sorted(newest_last, key=lambda item: -replicas(item))
    sizes, left = {}, change
    for item in largest_first:
        share = _share(deployment, item, allowed)
        share = min(share, left) if change > 0 else max(share, left)
        sizes[name_of(item)] = replicas(item) + share
        left -= share
    for item in largest_first:  # what rounding left over
        rest = max(-sizes[name_of(item)], left)
        sizes[name_of(item)] += rest
        left -= rest
    return [Scale(name_of(item), replicas(item), sizes[name_of(item)]) for item in largest_first]


def _share(deployment: Obj, item: Obj, allowed: int) -> int:
    """By how much one set grows or shrinks to keep its part of the whole."""
    if not replicas(deployment):
        return -replicas(item)
    before = int(annotations_of(item).get(MAXIMUM) or status_count(deployment, "replicas") or allowed)
    return math.floor(replicas(item) * allowed / before + 0.5) - replicas(item)


def is_scaling(deployment: Obj, sets: Sequence[Obj]) -> bool:
    """Whether only the deployment's size changed since its live sets were last touched."""
    wanted = str(replicas(deployment))
    live = [item for item in sets if replicas(item) > 0]
    return any(annotations_of(item).get(DESIRED, wanted) != wanted for item in live)


def surplus_history(deployment: Obj, old: Sequence[Obj]) -> list[Obj]:
    """Old sets beyond the history limit, oldest revision first; one that still has pods stays."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    kept = [item for item in old if not is_deleting(item)]
    surplus = max(0, len(kept) - (10 if limit is None else int(limit)))
    return [item for item in sorted(kept, key=revision_of)[:surplus] if _is_empty(item)]


def _is_empty(item: Obj) -> bool:
    is_seen = status_count(item, "observedGeneration") >= int(item["metadata"].get("generation") or 0)
    return is_seen and not replicas(item) and not status_count(item, "replicas")
