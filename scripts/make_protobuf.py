"""Make `src/dure/api/data/protobuf.json.zst`: field numbers and types of every Kubernetes message.

Needs Go and its module proxy: `python scripts/make_protobuf.py`. The release is the one in `protobuf_table/go.mod`.

The file is zstd-compressed JSON with three members:

    messages  {"core/v1.Volume": [[1, "name", "string", "+"], [2, "", "core/v1.VolumeSource", "^"], ...]}
    kinds     {"apps/v1/Deployment": "apps/v1.Deployment"}
    common    {"DeleteOptions": "meta/v1.DeleteOptions"}: kinds that stand in every group and version

A field is number, JSON name, type, mark. A type is `string`, `int`, `bool`, `double`, `bytes`, a message's name, or a
form of its own (`time`, `micro`, `duration`, `quantity`, `intstr`, `items`, `raw1`, `schema-or-...`), after `[]` when
repeated or `{}` for a map from strings. Mark `^`: the message's members stand in the parent's JSON; `+`: a zero on the
wire is a value (a pointer, or a member JSON always shows); empty: a zero on the wire means unset.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import zstandard

HERE = Path(__file__).parent
TARGET = HERE.parent / "src/dure/api/data/protobuf.json.zst"


def read_table() -> dict[str, object]:
    """Run the Go program in a copy of its folder, so that no checksums are left behind."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "table"
        shutil.copytree(HERE / "protobuf_table", work)
        environment = {**os.environ, "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "mod", "tidy"], cwd=work, env=environment, check=True)
        run = subprocess.run(["go", "run", "."], cwd=work, env=environment, check=True, stdout=subprocess.PIPE)
    table: dict[str, object] = json.loads(run.stdout)
    return table


def main() -> None:
    text = json.dumps(read_table(), separators=(",", ":"), sort_keys=True)
    TARGET.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
