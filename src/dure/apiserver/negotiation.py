"""Which form an answer takes: the client's Accept header against what can be made.

Forms: JSON, YAML, protobuf; plain, as a Table, or as PartialObjectMetadata (`;as=...;g=meta.k8s.io;v=v1`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dure.core.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
FORMATS = (JSON, YAML, PROTOBUF)

_WILD = ("*/*", "application/*", "")
_TRANSFORMS = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})


@dataclass(frozen=True, slots=True)
class Media:
    """The form chosen. `transform` is empty, Table, PartialObjectMetadata or PartialObjectMetadataList."""

    format: str = JSON
    transform: str = ""
    version: str = "v1"

    @property
    def meta_version(self) -> str:
        return f"meta.k8s.io/{self.version}"


PLAIN_JSON = Media()


@dataclass(frozen=True, slots=True)
class Clause:
    """One alternative of an Accept header."""

    media_type: str
    parameters: tuple[tuple[str, str], ...]
    quality: float

    def parameter(self, name: str) -> str:
        return next((value for key, value in self.parameters if key == name), "")


@lru_cache(maxsize=512)
def parse_accept(header: str) -> tuple[Clause, ...]:
    """The alternatives, most wanted first; order breaks ties."""
    clauses = []
    for part in header.split(","):
        media_type, *rest = (piece.strip() for piece in part.split(";"))
        pairs = tuple((key.strip(), value.strip().strip('"')) for key, _, value in (p.partition("=") for p in rest))
        quality = next((value for key, value in pairs if key == "q"), "1")
        try:
            clauses.append(Clause(media_type.lower(), pairs, float(quality)))
        except ValueError:
            clauses.append(Clause(media_type.lower(), pairs, 0.0))
    return tuple(sorted((c for c in clauses if c.quality > 0), key=lambda clause: -clause.quality))


@lru_cache(maxsize=512)
def choose_media(header: str, *, transforms: bool = True, binary: bool = True) -> Media:
    """The best form both sides know; `binary` says whether the kind has a protobuf form. Raises NotAcceptable."""
    for clause in parse_accept(header):
        format_ = JSON if clause.media_type in _WILD else clause.media_type
        if format_ not in FORMATS or (format_ == PROTOBUF and not (binary and clause.parameter("as") != "Table")):
            continue
        transform = clause.parameter("as")
        if not transform:
            return Media(format_)
        version = clause.parameter("v")
        known = transforms and clause.parameter("g") == "meta.k8s.io" and version in ("v1", "v1beta1")
        if known and transform in _TRANSFORMS:
            return Media(format_, transform, version)
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(FORMATS)}")
