"""Which layer a step made: remembered by the key of everything that went into it."""

from __future__ import annotations

from pathlib import Path

from dure.core.json import JSONDecodeError, dumps, loads
from dure.images.layers import Layers
from dure.images.locks import replace_file


class BuildCache:
    """Below `<images>/cache/steps`. A remembered layer that is gone is no hit."""

    def __init__(self, root: Path, layers: Layers) -> None:
        self._folder = root / "cache" / "steps"
        self._layers = layers

    def get(self, key: str) -> str | None:
        """The layer's diffID, "" if the step changed nothing, None if it was never done."""
        try:
            diff_id = str(loads(self._path(key).read_bytes())["diff_id"])
        except (FileNotFoundError, JSONDecodeError, KeyError):
            return None
        return diff_id if not diff_id or self._layers.get(diff_id) is not None else None

    def put(self, key: str, diff_id: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._path(key), dumps({"diff_id": diff_id}))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key.removeprefix('sha256:')}.json"

    def layers(self) -> dict[Path, str]:
        """Each entry's file and layer, for collecting what nobody needs."""
        found = {}
        for path in self._folder.glob("*.json"):
            try:
                found[path] = str(loads(path.read_bytes())["diff_id"])
            except (FileNotFoundError, JSONDecodeError, KeyError):
                found[path] = ""
        return found
