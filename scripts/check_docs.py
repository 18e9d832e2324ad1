"""`make docs`: every link between the documents leads somewhere, and every command they name exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dure.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_COMMAND = re.compile(r"(?:^|[\s`(/])dure ([a-z]+)", re.MULTILINE)
_WORDS = {"is", "kubectl", "and"}
"""What may follow the name in prose."""


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]


def problems(path: Path) -> list[str]:
    text = path.read_text()
    broken = [link for link in _LINK.findall(text) if not (path.parent / link).exists()]
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))
    unknown = {word for word in _COMMAND.findall(code) if word not in COMMANDS and word not in _WORDS}
    return [f"broken link {link}" for link in broken] + [f"no command `dure {word}`" for word in sorted(unknown)]


def main() -> None:
    found = [(path, text) for path in documents() for text in problems(path)]
    for path, text in found:
        print(f"{path.relative_to(ROOT)}: {text}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
