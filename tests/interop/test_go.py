"""client-go: typed, dynamic and metadata clients, informers and what controllers stand on, by JSON and by protobuf."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import CACHE, HERE, Run, build, expect_ok, names, need

WAYS = {
    "json": ("json", {"KUBE_FEATURE_WatchListClient": "false"}),
    "protobuf": ("protobuf", {"KUBE_FEATURE_WatchListClient": "false"}),
    "streamed-lists": ("protobuf", {"KUBE_FEATURE_WatchListClient": "true"}),
}


@pytest.fixture(scope="session")
def program() -> Path:
    """Built by Go's own cache, so that only the first build takes its time."""
    go = need("go")
    CACHE.mkdir(parents=True, exist_ok=True)
    built = CACHE / "go-checks"
    build(HERE / "go", go, "build", "-mod=readonly", "-buildvcs=false", "-o", str(built), ".")
    return built


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", names("go", r'^\t\{"([a-z0-9-]+)", \w+\},$'))
def test_go(program: Path, run: Run, way: str, name: str) -> None:
    encoding, switches = WAYS[way]
    expect_ok(run(f"go {way}", [str(program), encoding], switches), name)
