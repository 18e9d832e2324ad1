""".dockerignore leaves out what moby's matcher leaves out."""

import pytest

from dure.images.builder.ignore import Ignore


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.pyc"], "a.pyc", True),
        (["*.pyc"], "x/a.pyc", False),
        (["**/*.pyc"], "x/y/a.pyc", True),
        (["**/*.pyc"], "a.pyc", True),
        (["node_modules"], "node_modules/a/b", True),
        (["/build/"], "build/x", True),
        (["a?c"], "abc", True),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["*", "!keep"], "keep/x", False),
        (["*", "!keep"], "other", True),
        (["docs", "!docs/README.md"], "docs/README.md", False),
        (["docs", "!docs/README.md"], "docs/x.md", True),
        (["!a", "a"], "a", True),
        (["# comment", "", "  b  "], "b", True),
        (["."], "a", False),
        (["a**b"], "a/x/b", True),
        (["a\\*"], "a*", True),
        (["a\\*"], "ab", False),
    ],
)
def test_patterns(lines: list[str], path: str, ignored: bool) -> None:
    assert Ignore(lines).ignores(path) is ignored
