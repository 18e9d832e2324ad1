"""Answers in the form the client asked for: plain, Table or PartialObjectMetadata; JSON, YAML or protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from dure.api import protobuf
from dure.api.kind import Kind
from dure.api.tables import make_table
from dure.apiserver.negotiation import JSON, PROTOBUF, YAML, Media
from dure.core.errors import NotAcceptable, UnsupportedMediaType
from dure.core.json import Obj, dumps
from dure.wire.http import Response

_JSON_HEADERS = {"Content-Type": JSON, "Cache-Control": "no-cache, private"}


def json_response(value: Any, status: int = 200, body: bytes | Sequence[bytes | memoryview] | None = None) -> Response:
    """A JSON answer; `body` is the encoded value where it is known."""
    return Response(status, dict(_JSON_HEADERS), dumps(value) if body is None else body, value=value)


def encode_value(value: Obj, media: Media) -> Response:
    """An object in the chosen format."""
    if media.format == JSON:
        return json_response(value)
    if media.format == YAML:
        text = yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True).encode()
        return Response(200, {**_JSON_HEADERS, "Content-Type": YAML}, text, value=value)
    return protobuf_response(value)


def protobuf_response(value: Obj) -> Response:
    """As protobuf when the codec knows the kind, else as JSON, which every client reads."""
    try:
        body = protobuf.encode(value)
    except UnsupportedMediaType:
        return json_response(value)
    return Response(200, {**_JSON_HEADERS, "Content-Type": PROTOBUF}, body, value=value)


def partial_metadata(obj: Obj, media: Media) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": media.meta_version, "metadata": obj["metadata"]}


def partial_metadata_list(items: Sequence[Obj], meta: Obj, media: Media) -> Obj:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": media.meta_version,
        "metadata": meta,
        "items": [partial_metadata(item, media) for item in items],
    }


def table_of(kind: Kind, items: Sequence[Obj], meta: Obj, media: Media, include: str, now: float) -> Obj:
    """A Table of `items`; `include` is Metadata (default), Object or None."""
    table = make_table(kind, items, now=now, include_object=include or "Metadata")
    return {**table, "apiVersion": media.meta_version, "metadata": meta}


def render_object(kind: Kind, obj: Obj, media: Media, include: str, now: float) -> Obj:
    """One object as the transform wants it; Status objects pass unchanged."""
    if not media.transform or obj.get("kind") == "Status":
        return obj
    if media.transform == "PartialObjectMetadata":
        return partial_metadata(obj, media)
    if media.transform == "Table":
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table_of(kind, [obj], meta, media, include, now)
    raise NotAcceptable("the list form was asked for a single object")
