"""Which reference means which manifest: one JSON file, shared by every process that uses the store."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dure.core.json import dumps_sorted, loads
from dure.images.locks import locked_briefly, replace_file

Origin = Literal["pull", "build", "import", "base"]


@dataclass(frozen=True, slots=True)
class Name:
    """`reference` is normalised. `origin` tells how the image came; all but "pull" are local and need no registry."""

    reference: str
    digest: str
    origin: Origin
    created: int
    """Seconds since the epoch."""


class NameIndex:
    """Names of the store under `root`. Reads see one whole version; writes take the file lock."""

    def __init__(self, root: Path) -> None:
        self._file = root / "names.json"
        self._lock = root / "names.lock"
        self._seen: tuple[int, int, int] | None = None
        self._names: dict[str, Name] = {}

    def get(self, reference: str) -> Name | None:
        return self._read().get(reference)

    def all(self) -> list[Name]:
        return sorted(self._read().values(), key=lambda name: name.reference)

    def set(self, reference: str, digest: str, origin: Origin) -> Name:
        name = Name(reference, digest, origin, int(time.time()))
        with locked_briefly(self._lock):
            names = dict(self._read())
            names[reference] = name
            self._write(names)
        return name

    def remove(self, reference: str) -> bool:
        """Whether it was there."""
        with locked_briefly(self._lock):
            names = dict(self._read())
            if names.pop(reference, None) is None:
                return False
            self._write(names)
        return True

    def _read(self) -> dict[str, Name]:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return {}
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._seen:
            entries = loads(self._file.read_bytes())
            self._names = {reference: Name(reference=reference, **entry) for reference, entry in entries.items()}
            self._seen = stamp
        return self._names

    def _write(self, names: dict[str, Name]) -> None:
        entries = {}
        for reference, name in names.items():
            entry = asdict(name)
            del entry["reference"]
            entries[reference] = entry
        replace_file(self._file, dumps_sorted(entries))
