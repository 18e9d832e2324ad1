"""Which objects a list, watch or deletecollection is about: namespace, labels and fields together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dure.api.kind import Kind
from dure.api.selectors import FieldSelector, LabelSelector
from dure.apiserver.rest.options import ListOptions
from dure.core.errors import BadRequest
from dure.core.json import Obj

_COMMON = frozenset({"metadata.name", "metadata.namespace"})


def field_reader(kind: Kind, obj: Obj) -> Callable[[str], str]:
    """Gives the value of a selectable field; the kind's own are read only when one is asked for."""
    own: dict[str, str] | None = None

    def read(name: str) -> str:
        nonlocal own
        if name == "metadata.name":
            return str(obj["metadata"]["name"])
        if name == "metadata.namespace":
            return str(obj["metadata"].get("namespace", ""))
        if own is None:
            own = kind.strategy.selectable_fields(obj)
        return own.get(name, "")

    return read


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter over decoded objects; `everything` spares the decoding."""

    kind: Kind
    labels: LabelSelector
    fields: FieldSelector

    @property
    def everything(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, obj: Obj) -> bool:
        if self.labels and not self.labels.matches(obj["metadata"].get("labels")):
            return False
        return not self.fields or self.fields.matches(field_reader(self.kind, obj))


def select(kind: Kind, options: ListOptions) -> Selection:
    """Raises BadRequest for a field the kind does not offer."""
    allowed = _COMMON | kind.strategy.field_labels
    for name, _, _ in options.fields.terms:
        if name not in allowed:
            raise BadRequest(
                f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match label selector "", '
                f'field selector "{_shown(options.fields)}": field label not supported: {name}'
            )
    return Selection(kind, options.labels, options.fields)


def _shown(fields: FieldSelector) -> str:
    return ",".join(f"{name}{'=' if equal else '!='}{value}" for name, value, equal in fields.terms)
