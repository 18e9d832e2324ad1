"""JSON Patch over API objects.

RFC 6902 with RFC 6901 pointers; wording of refusals and the limits as in Kubernetes. Unlike the RFC, an index below
zero counts from the end, as Kubernetes' own implementation allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dure.core.errors import ApiError, BadRequest, Invalid, RequestEntityTooLarge
from dure.core.json import Obj, dumps, thaw

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""How much all `copy` operations of one patch may add together."""

_MISSING = object()
_REJECTED = "the server rejected our request due to an error in our request"


def _rejected(why: str) -> ApiError:
    """422 as upstream words it, with the cause beside it."""
    details = {"causes": [{"reason": "UnexpectedServerResponse", "message": why}]}
    return Invalid(f"{_REJECTED}: {why}", details=details)


class _Failure(Exception):
    """One operation cannot be carried out."""


def apply_json_patch(obj: Obj, ops: Any) -> Obj:
    """A patched copy. Raises BadRequest, Invalid for a patch that does not fit, RequestEntityTooLarge."""
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        raise BadRequest("a JSON patch must be an array of operations")
    if len(ops) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(ops)}"
        )
    document = _Document(thaw(obj))
    for op in ops:
        kind = op.get("op")
        run = _OPERATIONS.get(kind) if isinstance(kind, str) else None
        if run is None:
            raise _rejected(f"Unexpected kind: {kind if isinstance(kind, str) else 'unknown'}")
        try:
            run(document, op)
        except _Failure as error:
            raise _rejected(str(error)) from None
    if not isinstance(document.root, dict):
        raise _rejected("the patched document is not an object")
    return document.root


class _Document:
    """The value under change and how much was copied inside it."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.copied = 0

    def parent(self, op: str, path: str) -> tuple[Any, str]:
        """The container that holds the pointer's last part, and that part."""
        parts = _parse_pointer(op, path)
        here = self.root
        for part in parts[:-1]:
            here = _get(here, part)
            if not isinstance(here, dict | list):
                raise _Failure(f'{op} operation does not apply: doc is missing path: "{path}": missing value')
        return here, parts[-1]

    def value(self, op: str, path: str) -> Any:
        """What the pointer names, or _MISSING."""
        if path == "":
            return self.root
        container, key = self.parent(op, path)
        return _get(container, key)


def _parse_pointer(op: str, path: str) -> Sequence[str]:
    if not path.startswith("/"):
        raise _Failure(f'{op} operation does not apply: doc is missing path: "{path}": missing value')
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _index(container: list[Any], key: str, size: int) -> int:
    """A position below `size`. Raises _Failure."""
    try:
        index = int(key)
    except ValueError:
        raise _Failure(f"value was not a proper array index: '{key}'") from None
    if not -size <= index < size or key.strip("-0123456789"):
        raise _Failure(f"Unable to access invalid index: {index}: invalid index referenced")
    return index + size if index < 0 else index


def _get(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return container.get(key, _MISSING)
    if isinstance(container, list):
        try:
            return container[_index(container, key, len(container))]
        except _Failure:
            return _MISSING
    return _MISSING


def _pointer_of(op: Obj, member: str = "path") -> str:
    pointer = op.get(member)
    if not isinstance(pointer, str):
        raise _Failure(f"operation missing {member} field: missing value")
    return pointer


def _value_of(op: Obj) -> Any:
    if "value" not in op:
        raise _Failure("operation, missing value field: missing value")
    return op["value"]


def _put(document: _Document, op: str, path: str, value: Any) -> None:
    if path == "":
        document.root = value
        return
    container, key = document.parent(op, path)
    if isinstance(container, dict):
        container[key] = value
    elif key == "-":
        container.append(value)
    else:
        try:
            container.insert(_index(container, key, len(container) + 1), value)
        except _Failure as error:
            raise _Failure(f"error in {op} for path: '{path}': {error}") from None


def _take(document: _Document, op: str, path: str) -> Any:
    container, key = document.parent(op, path)
    if isinstance(container, dict):
        if key not in container:
            raise _Failure(f"error in {op} for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        return container.pop(key)
    try:
        return container.pop(_index(container, key, len(container)))
    except _Failure as error:
        raise _Failure(f"error in {op} for path: '{path}': {error}") from None


def _add(document: _Document, op: Obj) -> None:
    _put(document, "add", _pointer_of(op), thaw(_value_of(op)))


def _remove(document: _Document, op: Obj) -> None:
    _take(document, "remove", _pointer_of(op))


def _replace(document: _Document, op: Obj) -> None:
    path, value = _pointer_of(op), thaw(_value_of(op))
    if path == "":
        document.root = value
        return
    container, key = document.parent("replace", path)
    if _get(container, key) is _MISSING:
        raise _Failure(f"replace operation does not apply: doc is missing key: {path}: missing value")
    container[key if isinstance(container, dict) else _index(container, key, len(container))] = value


def _move(document: _Document, op: Obj) -> None:
    source, path = _pointer_of(op, "from"), _pointer_of(op)
    if path.startswith(source + "/"):
        raise _Failure(f"move operation does not apply: {source} cannot move into itself")
    if source != path:
        _put(document, "move", path, _take(document, "move", source))
    elif document.value("move", source) is _MISSING:
        raise _Failure(f"move operation does not apply: doc is missing from path: {source}: missing value")


def _copy(document: _Document, op: Obj) -> None:
    source, path = _pointer_of(op, "from"), _pointer_of(op)
    value = document.value("copy", source)
    if value is _MISSING:
        raise _Failure(f"copy operation does not apply: doc is missing from path: {source}: missing value")
    document.copied += len(dumps(value))
    if document.copied > MAX_COPIED_BYTES:
        raise _Failure(
            "Unable to complete the copy, the accumulated size increase of copy is "
            f"{document.copied}, exceeding the limit {MAX_COPIED_BYTES}"
        )
    _put(document, "copy", path, thaw(value))


def _test(document: _Document, op: Obj) -> None:
    path, expected = _pointer_of(op), op.get("value")
    found = document.value("test", path)
    if found is _MISSING and expected is None:
        return
    if found is _MISSING or not _equal(found, expected):
        raise _Failure(f"testing value {path} failed: test failed")


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: `true` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


_OPERATIONS: dict[str, Callable[[_Document, Obj], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
