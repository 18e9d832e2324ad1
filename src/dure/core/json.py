"""JSON as the platform reads and writes it: orjson, UTF-8 bytes, no NaN."""

from __future__ import annotations

from typing import Any

import orjson

Obj = dict[str, Any]
"""An API object: plain JSON, treated as frozen by whoever did not make it."""

JSONDecodeError = orjson.JSONDecodeError


def loads(data: bytes | str) -> Any:
    return orjson.loads(data)


def dumps(value: Any) -> bytes:
    return orjson.dumps(value)


def dumps_sorted(value: Any) -> bytes:
    """A canonical form: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def dumps_pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def thaw(value: Any) -> Any:
    """A deep copy that may be changed; eight times cheaper than `copy.deepcopy`."""
    return orjson.loads(orjson.dumps(value))
