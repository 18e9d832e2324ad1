"""Build an image from a Dockerfile: choose the stages that are needed, carry out their instructions, keep the result.

A step whose key is remembered is not done again. The key covers the parent's key, the instruction and, for COPY, the
content; equal input finds equal layers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from dure.images.apt import PackageSources
from dure.images.builder.cache import BuildCache
from dure.images.builder.copy_step import copy_into, copy_key, plan_copy
from dure.images.builder.download import download_all
from dure.images.builder.ignore import Ignore, read_ignore
from dure.images.builder.parser import Dockerfile, Instruction, Stage, parse_dockerfile, parse_instruction
from dure.images.builder.placing import normal_parts
from dure.images.builder.run_step import read_mounts, run_arguments, run_step
from dure.images.builder.sources import SourceTree
from dure.images.builder.state import PREDEFINED, StageState, apply_metadata, is_metadata, next_key, platform_arguments
from dure.images.builder.words import expand
from dure.images.errors import BuildFailed, DockerfileError, ImageError
from dure.images.extract import make_folders
from dure.images.model import Progress, StoredImage
from dure.images.store import ContentStore
from dure.images.workshop import Workspace, open_workspace

ResolveImage = Callable[[str], Awaitable[StoredImage]]
"""From a FROM or --from name to an image that is here. Raises ImageError."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """`target` is the stage to build, "" for the last; `arguments` are the --build-arg values."""

    context: Path
    dockerfile: Path
    target: str
    arguments: Mapping[str, str]
    use_cache: bool = True


class Builder:
    """One build. `build` gives the finished stage; making an image of it is the caller's."""

    def __init__(
        self,
        content: ContentStore,
        packages: PackageSources,
        request: BuildRequest,
        resolve: ResolveImage,
        progress: Progress,
    ) -> None:
        self._content = content
        self._packages = packages
        self._request = request
        self._resolve = resolve
        self._progress = progress
        self._cache = BuildCache(content.root, content.layers)
        self._stages: dict[int, StageState] = {}
        self._ignore = Ignore()
        self._step = 0
        self._steps = 0

    async def build(self) -> StageState:
        """Raises DockerfileError, BuildFailed and what resolving an image raises."""
        parsed = self._read()
        self._ignore = read_ignore(self._request.context, self._request.dockerfile)
        globals_ = self._global_arguments(parsed)
        wanted = needed_stages(parsed, self._request.target)
        self._steps = sum(1 + len(stage.instructions) for stage in wanted)
        await self._packages.configure_if_possible()
        for stage in wanted:
            self._stages[stage.index] = await self._build_stage(parsed, stage, globals_)
        return self._stages[wanted[-1].index]

    def _read(self) -> Dockerfile:
        if not self._request.context.is_dir():
            raise BuildFailed(f"{self._request.context}: no such folder to build from")
        try:
            text = self._request.dockerfile.read_text()
        except FileNotFoundError:
            raise BuildFailed(f"{self._request.dockerfile}: no such Dockerfile") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BuildFailed(f"{self._request.dockerfile} cannot be read: {error}") from error
        return parse_dockerfile(text)

    def _global_arguments(self, parsed: Dockerfile) -> dict[str, str]:
        state = StageState("", env=dict(platform_arguments()), escape=parsed.escape)
        for instruction in parsed.arguments:
            apply_metadata(state, instruction, self._request.arguments)
        return {**platform_arguments(), **state.arguments}

    async def _build_stage(self, parsed: Dockerfile, stage: Stage, globals_: Mapping[str, str]) -> StageState:
        self._announce(str(stage.source))
        state = await self._start(parsed, stage, globals_)
        outside = {**globals_, **self._request.arguments}
        state.arguments.update({name: outside[name] for name in PREDEFINED if name in outside})
        triggers = [parse_instruction(text, stage.source.line) for text in state.config.pop("OnBuild", None) or ()]
        for instruction in triggers:
            await self._do(parsed, stage, state, instruction, outside)
        for instruction in stage.instructions:
            self._announce(str(instruction))
            await self._do(parsed, stage, state, instruction, outside)
        await self._make_folders_now(state)
        return state

    async def _start(self, parsed: Dockerfile, stage: Stage, globals_: Mapping[str, str]) -> StageState:
        line = stage.source.line
        base = expand(stage.base, globals_, parsed.escape, line)
        wanted = expand(stage.source.flag("platform"), globals_, parsed.escape, line)
        own = platform_arguments()["TARGETPLATFORM"]
        if wanted and wanted.removesuffix("/v8") != own:
            raise BuildFailed(f"line {line}: FROM --platform={wanted}: only {own} can be built here", line=line)
        if not base:
            raise DockerfileError(f"base name ({stage.base}) should not be blank", line)
        if base == "scratch":
            return StageState(next_key("", "scratch"), escape=parsed.escape)
        earlier = find_stage(parsed, base, before=stage.index)
        if earlier is not None:
            return self._stages[earlier.index].fork()
        return StageState.of_image(await self._image(base, line), parsed.escape)

    async def _image(self, name: str, line: int) -> StoredImage:
        try:
            return await self._resolve(name)
        except ImageError as error:
            head = f"{self._request.dockerfile.name} line {line}: {name}"
            raise BuildFailed(f"{head}: {error}", line=line) from error

    async def _do(
        self, parsed: Dockerfile, stage: Stage, state: StageState, instruction: Instruction, outside: Mapping[str, str]
    ) -> None:
        try:
            if is_metadata(instruction):
                remark = apply_metadata(state, instruction, outside)
                if remark:
                    self._progress(f"  note: {remark}")
            elif instruction.name == "RUN":
                await self._run(state, instruction)
            else:
                await self._copy(parsed, stage, state, instruction)
        except BuildFailed as error:
            if error.line:
                raise
            head = f"{self._request.dockerfile.name} line {instruction.line}: {_short(instruction)}: {error}"
            raise BuildFailed(head, line=instruction.line, output=error.output) from error
        except OSError as error:
            head = f"{self._request.dockerfile.name} line {instruction.line}: {_short(instruction)}"
            raise BuildFailed(f"{head}: {error.strerror}: {error.filename}", line=instruction.line) from error

    async def _run(self, state: StageState, instruction: Instruction) -> None:
        arguments = run_arguments(instruction, state)
        read_mounts(instruction, state)
        outside = {name: value for name, value in state.arguments.items() if name not in PREDEFINED}
        state.advance("RUN", arguments, outside, sorted(map(list, instruction.flags)))

        async def run(workspace: Workspace) -> None:
            mounts = self._content.root / "cache" / "mounts"
            await run_step(workspace, instruction, state, self._packages, mounts, self._hear)

        await self._layer(state, instruction, run)

    async def _copy(self, parsed: Dockerfile, stage: Stage, state: StageState, instruction: Instruction) -> None:
        plan = plan_copy(instruction, state)
        downloads = await download_all(plan.urls, plan.checksum)
        async with AsyncExitStack() as stack:
            tree = await self._tree(parsed, stage, state, instruction, stack)
            state.advance(*await asyncio.to_thread(copy_key, plan, tree, downloads))

            async def place(workspace: Workspace) -> None:
                await asyncio.to_thread(copy_into, workspace.root, plan, tree, downloads)

            await self._layer(state, instruction, place)

    async def _tree(
        self, parsed: Dockerfile, stage: Stage, state: StageState, instruction: Instruction, stack: AsyncExitStack
    ) -> SourceTree:
        """Where the sources are: the context, an earlier stage or another image."""
        name = expand(instruction.flag("from"), state.variables, state.escape, instruction.line)
        if not name:
            return stack.enter_context(SourceTree(self._request.context, self._ignore))
        earlier = find_stage(parsed, name, before=stage.index)
        if earlier is not None:
            layers = self._stages[earlier.index].layers
        elif name.isdigit():
            raise DockerfileError(f"invalid from flag value {name}: no such stage", instruction.line)
        else:
            layers = (await self._image(name, instruction.line)).diff_ids
        workspace = await stack.enter_async_context(open_workspace(self._content, layers))
        return stack.enter_context(SourceTree(workspace.root))

    async def _layer(
        self, state: StageState, instruction: Instruction, work: Callable[[Workspace], Awaitable[None]]
    ) -> None:
        """Take the step's layer from the cache or make it."""
        key = next_key(state.key, state.folders)
        diff_id = self._cache.get(key) if self._request.use_cache else None
        if diff_id is None:
            diff_id = await self._make_layer(state, work)
            self._cache.put(key, diff_id)
        else:
            self._progress("  cached")
        if diff_id:
            state.layers.append(diff_id)
            state.folders.clear()
        state.note(instruction, empty=not diff_id)

    async def _make_layer(self, state: StageState, work: Callable[[Workspace], Awaitable[None]]) -> str:
        began = time.monotonic()
        async with open_workspace(self._content, state.layers) as workspace:
            _make_working_folders(workspace.root, state.folders)
            await work(workspace)
            layer = await workspace.seal()
        self._progress(f"  done in {time.monotonic() - began:.1f} s")
        return layer.diff_id if layer is not None else ""

    async def _make_folders_now(self, state: StageState) -> None:
        """A WORKDIR after which nothing was written still has to be there."""
        if not state.folders:
            return
        key = next_key(state.key, state.folders, "folders")
        diff_id = self._cache.get(key)
        if diff_id is None:
            async with open_workspace(self._content, state.layers) as workspace:
                _make_working_folders(workspace.root, state.folders)
                layer = await workspace.seal()
            diff_id = layer.diff_id if layer is not None else ""
            self._cache.put(key, diff_id)
        if diff_id:
            state.layers.append(diff_id)
            state.history.append({"created_by": f"WORKDIR {state.working_dir}"})
        state.folders.clear()

    def _announce(self, text: str) -> None:
        self._step += 1
        line = " ".join(text.split())
        self._progress(f"[{self._step}/{self._steps}] {line if len(line) <= 100 else line[:99] + '…'}")

    def _hear(self, line: str) -> None:
        self._progress(f"  | {line}")


def _short(instruction: Instruction) -> str:
    text = " ".join(str(instruction).split())
    return text if len(text) <= 80 else text[:79] + "…"


def _make_working_folders(root: Path, folders: list[str]) -> None:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            make_folders(root_fd, normal_parts(folder))
    finally:
        os.close(root_fd)


def find_stage(parsed: Dockerfile, name: str, *, before: int) -> Stage | None:
    """An earlier stage by its name or number."""
    for stage in reversed(parsed.stages[:before]):
        if (stage.name and stage.name == name.lower()) or str(stage.index) == name:
            return stage
    return None


def needed_stages(parsed: Dockerfile, target: str) -> list[Stage]:
    """The target stage and those it stands on or copies from, in order. Raises BuildFailed."""
    last = find_stage(parsed, target, before=len(parsed.stages)) if target else parsed.stages[-1]
    if last is None:
        raise BuildFailed(f"target stage {target!r} could not be found")
    needed = {last.index}
    for stage in reversed(parsed.stages[: last.index + 1]):
        if stage.index not in needed:
            continue
        names = [stage.base, *(flag for step in stage.instructions if (flag := step.flag("from")))]
        found = [find_stage(parsed, name, before=stage.index) for name in names]
        # a name with a variable in it may mean any earlier stage
        if any("$" in name for name in names):
            found += parsed.stages[: stage.index]
        needed.update(earlier.index for earlier in found if earlier is not None)
    return [stage for stage in parsed.stages if stage.index in needed]
