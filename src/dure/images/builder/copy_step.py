"""COPY and ADD: what is taken, its key for the cache, and putting it into the tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dure.images.builder.accounts import find_owner
from dure.images.builder.download import Download
from dure.images.builder.parser import Heredoc, Instruction
from dure.images.builder.placing import Destination
from dure.images.builder.sources import SourceTree, digest_sources
from dure.images.builder.state import StageState
from dure.images.builder.words import expand, expand_words
from dure.images.errors import DockerfileError

_FLAGS = {
    "COPY": frozenset(["chmod", "chown", "from", "link"]),
    "ADD": frozenset(["checksum", "chmod", "chown", "link"]),
}
_URL = re.compile(r"https?://", re.IGNORECASE)
_REPOSITORY = re.compile(r"git@|.*\.git(?:#|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """An expanded COPY or ADD. `target` is absolute; `mode` None keeps each file's own."""

    instruction: Instruction
    sources: tuple[str, ...]
    target: str
    owner: str
    mode: int | None
    heredocs: tuple[Heredoc, ...]
    urls: tuple[str, ...]
    checksum: str = ""

    @property
    def unpack(self) -> bool:
        return self.instruction.name == "ADD"


def plan_copy(instruction: Instruction, state: StageState) -> CopyPlan:
    """Raises DockerfileError."""
    line = instruction.line
    for name, _ in instruction.flags:
        if name not in _FLAGS[instruction.name]:
            raise DockerfileError(f"{instruction.name} --{name} is not supported", line)
    if instruction.words is not None:
        words = [expand(word, state.variables, state.escape, line) for word in instruction.words]
    else:
        words = expand_words(instruction.text, state.variables, state.escape, line)
    if len(words) < 2:
        raise DockerfileError(f"{instruction.name} requires at least two arguments", line)
    *sources, target = words
    names = {f"<<{dash}{heredoc.name}": heredoc for heredoc in instruction.heredocs for dash in ("", "-")}
    heredocs = tuple(_filled(names[word], state, line) for word in sources if word in names)
    urls = tuple(word for word in sources if instruction.name == "ADD" and _URL.match(word))
    plain = tuple(word for word in sources if word not in names and word not in urls)
    if any(_REPOSITORY.match(word) for word in (*urls, *plain) if instruction.name == "ADD"):
        raise DockerfileError("ADD of a git repository is not supported: clone it in a RUN step", line)
    if len(sources) > 1 and not target.endswith(("/", "/.")) and target != ".":
        raise DockerfileError(
            f"when using {instruction.name} with more than one source file, the destination must be a directory "
            "and end with a /",
            line,
        )
    closing = "/" if target.endswith(("/", "/.")) or target == "." else ""
    target = state.resolve(target).rstrip("/.") + closing if closing else state.resolve(target)
    owner = expand(instruction.flag("chown"), state.variables, state.escape, line)
    return CopyPlan(
        instruction,
        plain,
        target or "/",
        owner,
        _mode(instruction, state),
        heredocs,
        urls,
        instruction.flag("checksum"),
    )


def _mode(instruction: Instruction, state: StageState) -> int | None:
    text = expand(instruction.flag("chmod"), state.variables, state.escape, instruction.line)
    if not text:
        return None
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise DockerfileError(f"--chmod={text}: an octal mode such as 755 is wanted", instruction.line)
    return int(text, 8)


def _filled(heredoc: Heredoc, state: StageState, line: int) -> Heredoc:
    if not heredoc.expand:
        return heredoc
    quoted = heredoc.content.replace('"', '\\"').replace("'", "\\'") if state.escape == "\\" else heredoc.content
    return Heredoc(heredoc.name, expand(quoted, state.variables, state.escape, line), heredoc.expand)


def copy_key(plan: CopyPlan, tree: SourceTree, downloads: Mapping[str, Download]) -> list[object]:
    """What the step's result depends on, besides what was before. Raises BuildFailed."""
    paths = [path for source in plan.sources for path in tree.select(source)]
    return [
        plan.instruction.name,
        plan.target,
        plan.owner,
        plan.mode,
        list(plan.sources),
        digest_sources(tree, paths),
        [heredoc.name + "\0" + heredoc.content for heredoc in plan.heredocs],
        [[url, downloads[url].digest] for url in plan.urls],
    ]


def copy_into(root: Path, plan: CopyPlan, tree: SourceTree, downloads: Mapping[str, Download]) -> None:
    """Raises BuildFailed."""
    owner = find_owner(root, plan.owner)
    with ExitStack() as stack:
        destination = stack.enter_context(Destination(root, plan.target, owner, plan.mode))
        for source in plan.sources:
            for path in tree.select(source):
                destination.copy(tree, path, unpack=plan.unpack)
        for heredoc in plan.heredocs:
            destination.write(heredoc.name, heredoc.content.encode())
        for url in plan.urls:
            destination.write(downloads[url].name, downloads[url].data)
