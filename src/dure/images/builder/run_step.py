"""RUN: a command in a sandbox over the stage's layers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dure.images.apt import PackageSources
from dure.images.builder.accounts import find_account
from dure.images.builder.parser import Instruction
from dure.images.builder.state import StageState
from dure.images.builder.words import expand
from dure.images.content import digest_of
from dure.images.errors import BuildFailed, DockerfileError
from dure.images.sandbox import Command, run_command
from dure.images.workshop import Workspace

_TAIL_LINES = 25
_FLAGS = frozenset(["mount", "network", "security"])


@dataclass(frozen=True, slots=True)
class RunMounts:
    """`caches` maps a path inside to the name of a folder that is kept between builds."""

    caches: dict[str, str] = field(default_factory=dict)
    memory: list[str] = field(default_factory=list)


def read_mounts(instruction: Instruction, state: StageState) -> RunMounts:
    """`--mount=type=cache|tmpfs`. Raises DockerfileError for what is not supported."""
    mounts = RunMounts()
    for name, value in instruction.flags:
        if name not in _FLAGS or (name == "security" and value != "sandbox"):
            raise DockerfileError(f"RUN --{name}={value} is not supported", instruction.line)
        if name != "mount":
            continue
        options = dict(part.partition("=")[::2] for part in value.split(","))
        raw = options.get("target") or options.get("dst") or options.get("destination") or ""
        target = expand(raw, state.variables, state.escape, instruction.line)
        kind = options.get("type", "bind")
        if kind not in ("cache", "tmpfs") or not target:
            raise DockerfileError(
                f"RUN --mount=type={kind} is not supported: use type=cache or type=tmpfs with a target, or COPY",
                instruction.line,
            )
        if kind == "cache":
            mounts.caches[state.resolve(target)] = options.get("id") or target
        else:
            mounts.memory.append(state.resolve(target))
    return mounts


def run_arguments(instruction: Instruction, state: StageState) -> list[str]:
    """The command line."""
    if instruction.words is not None:
        return list(instruction.words)
    if instruction.heredocs and re.fullmatch(r"<<-?\S+", instruction.text):
        return [*state.shell, instruction.heredocs[0].content]
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs)
    return [*state.shell, instruction.text + bodies]


async def run_step(
    workspace: Workspace,
    instruction: Instruction,
    state: StageState,
    packages: PackageSources,
    cache_root: Path,
    hear: Callable[[str], None],
) -> None:
    """Raises BuildFailed with the last lines of output."""
    account = find_account(workspace.root, state.user)
    mounts = read_mounts(instruction, state)
    caches = {}
    for target, name in mounts.caches.items():
        folder = cache_root / digest_of(name.encode()).removeprefix("sha256:")[:32]
        folder.mkdir(parents=True, exist_ok=True)
        caches[target] = str(folder)
    tail: list[str] = []

    def listen(line: str) -> None:
        tail.append(line)
        del tail[:-_TAIL_LINES]
        hear(line)

    command = Command(
        run_arguments(instruction, state),
        {"HOME": account.home, **packages.environment(), **state.variables},
        working_dir=state.working_dir,
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        lent=packages.lent_to(workspace.root),
        caches=caches,
        memory=mounts.memory,
        network=instruction.flag("network", "default") != "none",
    )
    code = await run_command(workspace, command, listen)
    if code != 0:
        output = "\n".join(tail)
        raise BuildFailed(f"exit code {code}" + (f"\n{output}" if output else ""), output=output)
