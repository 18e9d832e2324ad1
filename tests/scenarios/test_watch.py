"""Golden transcripts of watch streams; `pytest --rewrite` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.watch import play
from tests.support.loop import run_virtual

SCRIPTS = sorted((Path(__file__).parent / "watch").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_watch_transcript(path: Path, pytestconfig: pytest.Config) -> None:
    golden = path.read_text()
    found = run_virtual(play(golden))
    if pytestconfig.getoption("--rewrite"):
        path.write_text(found)
    assert found == path.read_text()
