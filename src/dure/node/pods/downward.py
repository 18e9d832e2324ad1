"""What a pod may learn about itself: fieldRef and resourceFieldRef, for environment and volumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING

from dure.api.quantities import parse_quantity
from dure.core.json import Obj
from dure.node.model import NodeConfig
from dure.node.pods.model import container_named

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


@dataclass(frozen=True, slots=True)
class Downward:
    """`allocatable` is the node's (cpu, memory, ephemeral-storage), the fallback for limits that are not set."""

    pod: Obj
    ip: str
    host_ip: str
    node: str
    allocatable: Mapping[str, str]

    @staticmethod
    def on_node(config: NodeConfig, pod: Obj, ip: str) -> Downward:
        return Downward(pod, ip, config.ip, config.name, config.allocatable)

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"].get("namespace", ""))

    def field(self, path: str) -> str:
        """A fieldRef's value; maps one `key="value"` a line."""
        meta, spec = self.pod["metadata"], self.pod["spec"]
        if match := _SUBSCRIPT.match(path):
            return str((meta.get(match.group(1)) or {}).get(match.group(2), ""))
        match path:
            case "metadata.name":
                return str(meta["name"])
            case "metadata.namespace":
                return self.namespace
            case "metadata.uid":
                return str(meta.get("uid", ""))
            case "metadata.labels" | "metadata.annotations":
                return format_map(meta.get(path.removeprefix("metadata.")) or {})
            case "spec.nodeName":
                return self.node
            case "spec.serviceAccountName":
                return str(spec.get("serviceAccountName") or "default")
            case "status.podIP" | "status.podIPs":
                return self.ip
            case "status.hostIP" | "status.hostIPs":
                return self.host_ip
        return ""

    def resource(self, ref: Obj, container: Obj | None = None) -> str:
        """A resourceFieldRef's value in its divisor, rounded up."""
        if name := ref.get("containerName"):
            container = container_named(self.pod, name)
        resources = (container or {}).get("resources") or {}
        field, _, resource = str(ref.get("resource", "")).partition(".")
        amount = (resources.get(field) or {}).get(resource)
        if amount is None:
            limit = (resources.get("limits") or {}).get(resource)
            amount = limit if limit is not None else (self.allocatable.get(resource) if field == "limits" else None)
        divisor = parse_quantity(str(ref.get("divisor") or "1")) or parse_quantity("1")
        value = parse_quantity(str(amount if amount is not None else "0"))
        return str(int((value / divisor).to_integral_value(ROUND_CEILING)))


def format_map(values: Mapping[str, str]) -> str:
    """As kubelet writes labels and annotations: sorted, values quoted as Go quotes."""
    return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(values.items()))


def _escaped(value: str) -> str:
    table = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(table.get(char, char) for char in value)
