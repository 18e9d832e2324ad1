"""Request bodies: JSON, YAML and protobuf into plain objects, with keys that come twice found and named.

Bodies are hostile input: whatever cannot be read is a BadRequest or UnsupportedMediaType in Kubernetes' words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from dure.api import protobuf
from dure.apiserver.negotiation import FORMATS, JSON, PROTOBUF, YAML
from dure.core.errors import BadRequest, UnsupportedMediaType
from dure.core.json import JSONDecodeError, dumps, loads
from dure.wire.http import Request

_MAX_YAML_VALUES = 500_000
_DUPLICATES = "\0duplicates"


@dataclass(slots=True)
class Body:
    """A decoded body. `duplicates` are the paths of keys that came more than once; `shared` forbids changes."""

    value: Any
    duplicates: list[str] = field(default_factory=list)
    shared: bool = False


def media_type(request: Request, default: str = JSON) -> str:
    """The body's media type, without parameters."""
    return request.headers.get("content-type", default).split(";")[0].strip().lower() or default


def decode_body(request: Request, kind: str) -> Body:
    """The object in the body. Raises BadRequest, UnsupportedMediaType."""
    if request.value is not None:
        return Body(request.value, shared=True)
    type_ = media_type(request)
    if type_ == JSON:
        body = decode_json(request.body, kind)
    elif type_ in (YAML, "application/x-yaml", "text/yaml"):
        body = decode_yaml(request.body, kind)
    elif type_ == PROTOBUF:
        body = Body(protobuf.decode(request.body))
    else:
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(FORMATS)}"
        )
    if not isinstance(body.value, dict):
        raise BadRequest(_unrecognized(kind, "the body is not an object"))
    return body


def decode_json(data: bytes, kind: str) -> Body:
    """A second reading that looks for repeated keys is made only when their absence is not plain from the length."""
    try:
        value = loads(data)
    except JSONDecodeError as error:
        raise BadRequest(_unrecognized(kind, f"couldn't get version/kind; json parse error: {error}")) from error
    if len(dumps(value)) == len(data):
        return Body(value)
    try:
        marked = json.loads(data, object_pairs_hook=_mark_duplicates)
    except (ValueError, RecursionError) as error:
        raise BadRequest(_unrecognized(kind, f"couldn't get version/kind; json parse error: {error}")) from error
    return Body(value, list(_collect_duplicates(marked, "")))


def _unrecognized(kind: str, why: str) -> str:
    return f"the object provided is unrecognized (must be of type {kind}): {why}"


def _mark_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        made[_DUPLICATES] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    return made


def _collect_duplicates(value: Any, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict):
        found += [_join(path, key) for key in value.pop(_DUPLICATES, ())]
        for key, child in value.items():
            found += _collect_duplicates(child, _join(path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += _collect_duplicates(child, f"{path}[{index}]")
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: JSON's types only, times stay text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        pairs = [(self._key(key), self.construct_object(value, deep=True)) for key, value in node.value]
        return _mark_duplicates(pairs)

    def _key(self, node: yaml.Node) -> str:
        key = self.construct_object(node, deep=True)
        if isinstance(key, bool):
            return str(key).lower()
        if not isinstance(key, str | int | float):
            raise yaml.YAMLError(f"a key must be text, not {type(key).__name__}")
        return str(key)


def _construct_map(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class _Unfolding:
    """Copies what aliases share, counting: a few lines of YAML can mean billions of values."""

    def __init__(self) -> None:
        self._left = _MAX_YAML_VALUES

    def copy(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise yaml.YAMLError("document contains excessive aliasing")
        if isinstance(value, dict):
            return {key: self.copy(child) for key, child in value.items()}
        if isinstance(value, list):
            return [self.copy(child) for child in value]
        if value is None or isinstance(value, str | int | float):
            return value
        raise yaml.YAMLError(f"a value of type {type(value).__name__} has no form in JSON")


def decode_yaml(data: bytes, kind: str) -> Body:
    """One YAML document; JSON is YAML, and read as JSON when it is."""
    if data.lstrip()[:1] == b"{":
        try:
            return decode_json(data, kind)
        except BadRequest:
            pass  # flow-style YAML also begins with a brace
    try:
        value = _Unfolding().copy(yaml.load(data, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadRequest(_unrecognized(kind, f"error converting YAML to JSON: yaml: {error}")) from error
    duplicates = _collect_duplicates(value, "")
    return Body(value, duplicates)
