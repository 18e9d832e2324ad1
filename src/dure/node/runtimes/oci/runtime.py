"""`Runtime` on crun or runc: prepares folders, namespaces and cgroups, and has the monitor do the rest.

`create` writes a folder and renames it into place, `start` is one call of the OCI runtime, made by the monitor.
Everything is found again on disk, so this object holds nothing that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any

from dure.core.aio import Scope, finish, running
from dure.node.ports import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    Resources,
    RuntimeFailure,
    SandboxSpec,
    Session,
    Usage,
)
from dure.node.runtimes.oci.bundle import Bundles
from dure.node.runtimes.oci.cgroups import find_hierarchies, open_cgroups
from dure.node.runtimes.oci.choice import Host, choose, read_host
from dure.node.runtimes.oci.client import ShimClient
from dure.node.runtimes.oci.filters import CompiledFilters
from dure.node.runtimes.oci.layout import RunDir, read_json
from dure.node.runtimes.oci.messages import exec_failure, start_failure
from dure.node.runtimes.oci.sandbox import (
    drop_namespaces,
    finish_sandbox,
    join_pid_namespace,
    joined,
    list_sandboxes,
    make_namespaces,
    read_sandbox,
)
from dure.node.runtimes.oci.session import AttachSession, PipeSession, TerminalSession
from dure.node.runtimes.oci.shim_spawn import Program
from dure.node.runtimes.oci.spec import Config, Joined, container_cgroup, exec_process
from dure.node.runtimes.oci.teardown import destroy
from dure.node.runtimes.signals import signal_number

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SETTLE_SECONDS = 10.0


class OciRuntime:
    """Open it with `async with`; leaving the block leaves the containers running.

    `run_dir` belongs to this runtime alone, its path at most 80 bytes long; `instance` is the first part of every
    cgroup path. Raises ConfigError on entering if the host has no runtime that works; `choose` is who says which.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], instance: str, choose: Callable[[Host], Program] = choose
    ) -> None:
        self._choose = choose
        self._run = RunDir(os.path.abspath(run_dir))
        self._instance = instance
        self._states: dict[str, ContainerState] = {}
        self._changed = asyncio.Event()
        self._listeners: set[asyncio.Queue[ContainerState]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> OciRuntime:
        self._host = read_host()
        self.program = self._choose(self._host)
        self._cgroups = open_cgroups(find_hierarchies())
        self._filters = CompiledFilters(self._run, self.program.name)
        self._bundles = Bundles(self._run, self._host, self._cgroups, self._filters)
        self._run.make()
        self._client = ShimClient(self._run, self.program, self._on_state)
        await self._client.connect()
        async with AsyncExitStack() as stack:
            stack.callback(self._client.close)
            await stack.enter_async_context(running(self._client.keep_connected()))
            self._clean_scraps()
            for state in (await self._client.ask("list")).message["containers"]:
                self._on_state(state)
                if state["state"] == "running":
                    await self._client.keep(state["id"])
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def close(self, *, kill: bool = False) -> None:
        """Stop following the monitor; with `kill` end every container of this instance and leave nothing behind."""
        await self._stack.aclose()
        if kill:
            await destroy_all(self._run.root, self._instance)

    # ── sandboxes ────────────────────────────────────────────────────────────────────────────────

    async def run_sandbox(self, spec: SandboxSpec) -> None:
        if read_sandbox(self._run, spec.pod_uid) is not None:
            return
        self._cgroups.ensure(spec.cgroup, spec.resources)
        await make_namespaces(self._run, spec)
        if spec.share_pid and not spec.host_pid:
            await self._share_pid_namespace(spec)
        finish_sandbox(self._run, spec)

    async def _share_pid_namespace(self, spec: SandboxSpec) -> None:
        cgroup = f"{spec.cgroup}/pause"
        self._cgroups.ensure(cgroup)
        procs = self._cgroups.signs(cgroup).procs
        answer = await self._client.ask("pause", pod_uid=spec.pod_uid, procs=procs)
        join_pid_namespace(self._run, spec, answer.message["pid"])

    async def stop_sandbox(self, pod_uid: str) -> None:
        spec = read_sandbox(self._run, pod_uid)
        mine = [state for state in await self.containers() if state.pod_uid == pod_uid and state.state != "exited"]
        for state in mine:
            await self._client.ask("kill", id=state.id)
        if spec is not None:
            self._cgroups.kill(spec.cgroup)
        for state in mine:
            await self._wait_ended(state.id)
        if spec is not None:
            await self._remove_cgroup(spec.cgroup)
        drop_namespaces(self._run, pod_uid)

    async def _remove_cgroup(self, path: str) -> None:
        """The kernel lets a cgroup go a moment after its last process; there is no event for that on v1."""
        async with asyncio.timeout(_SETTLE_SECONDS):
            while not self._cgroups.remove(path):
                self._cgroups.kill(path)
                await asyncio.sleep(0.005)

    async def sandboxes(self) -> Sequence[SandboxSpec]:
        return list_sandboxes(self._run)

    # ── containers ───────────────────────────────────────────────────────────────────────────────

    async def create(self, spec: ContainerSpec) -> None:
        if not _ID.fullmatch(spec.id):
            raise RuntimeFailure(f"container id {spec.id!r}: letters, digits, - and _", "CreateContainerError")
        if not os.path.exists(f"{self._run.container(spec.id)}/spec.json"):
            sandbox = read_sandbox(self._run, spec.pod_uid)
            if sandbox is None:
                raise RuntimeFailure(f"pod {spec.pod_uid} has no sandbox", "CreateContainerError")
            try:
                self._bundles.write(spec, sandbox, self._joined(spec, sandbox))
            except OSError as error:
                raise RuntimeFailure(f"container {spec.name}: {error}", "CreateContainerError") from error
        await self._client.ask("load", id=spec.id)

    def _joined(self, spec: ContainerSpec, sandbox: SandboxSpec) -> Joined:
        shared = joined(self._run, sandbox)
        if not spec.target_container:
            return shared
        target = self._states.get(spec.target_container)
        if target is None or target.state != "running":
            raise RuntimeFailure(f"target container {spec.target_container} does not run", "CreateContainerError")
        return Joined(shared.ipc, shared.uts, f"/proc/{target.pid}/ns/pid", shared.shm)

    async def start(self, container_id: str) -> None:
        try:
            await self._client.ask("start", id=container_id)
        except RuntimeFailure as error:
            raise start_failure(str(error)) from error
        self._filters.learn(container_id)
        with contextlib.suppress(RuntimeFailure):  # it has ended already: nothing to keep
            await self._client.keep(container_id)
        state = self._states.get(container_id)
        if state is not None and state.state == "exited":
            self._client.release(container_id)

    async def signal(self, container_id: str, signal: str) -> None:
        await self._client.ask("signal", id=container_id, signal=signal_number(signal))

    async def stop(self, container_id: str, *, grace_seconds: float, signal: str = "SIGTERM") -> None:
        state = self._states.get(container_id)
        if state is None or state.state == "exited":
            return
        if grace_seconds > 0 and state.state == "running":
            await self.signal(container_id, signal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._wait_ended(container_id)
                    return
        await self._client.ask("kill", id=container_id)
        await self._wait_ended(container_id)

    async def _wait_ended(self, container_id: str) -> None:
        while not self._has_ended(container_id):
            await self._changed.wait()

    def _has_ended(self, container_id: str) -> bool:
        state = self._states.get(container_id)
        return state is None or state.state != "running"

    async def remove(self, container_id: str) -> None:
        await self._client.ask("remove", id=container_id)
        self._states.pop(container_id, None)
        self._client.release(container_id)

    async def containers(self) -> Sequence[ContainerState]:
        found = (await self._client.ask("list")).message["containers"]
        return [ContainerState(**state) for state in found]

    @asynccontextmanager
    async def _subscribe(self) -> AsyncIterator[AsyncIterator[ContainerState]]:
        # bounded by what happens: three changes a container, each a small value
        queue: asyncio.Queue[ContainerState] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    def events(self) -> Scope[AsyncIterator[ContainerState]]:
        return self._subscribe()

    def _on_state(self, state: dict[str, Any]) -> None:
        new = ContainerState(**state)
        if self._states.get(new.id) == new:
            return
        self._states[new.id] = new
        if new.state == "exited":
            self._client.release(new.id)
        for queue in self._listeners:
            queue.put_nowait(new)
        self._changed.set()
        self._changed = asyncio.Event()

    # ── processes ────────────────────────────────────────────────────────────────────────────────

    async def exec_sync(self, container_id: str, args: Sequence[str], *, limit_bytes: int = 1 << 20) -> ExecResult:
        kept = {"stdout": bytearray(), "stderr": bytearray()}
        async with self.exec(container_id, args, tty=False, stdin=False) as session:
            async for stream, data in session.output():
                buffer = kept[stream]
                buffer += data[: max(0, limit_bytes - len(buffer))]
            code = await session.wait()
        return ExecResult(code, bytes(kept["stdout"]), bytes(kept["stderr"]))

    @asynccontextmanager
    async def _exec(self, container_id: str, args: Sequence[str], tty: bool, stdin: bool) -> AsyncIterator[Session]:
        config = read_json(f"{self._run.container(container_id)}/config.json")
        if config is None:
            raise RuntimeFailure(f"container {container_id} does not exist", "ExecError")
        process = exec_process(config, args, tty=tty)
        begin = self._begin_with_terminal if tty else self._begin_with_pipes
        execution, session = await begin(container_id, process, stdin)
        exited = self._client.exit_of(execution)
        try:
            yield session
        finally:
            session.close()
            if not exited.done():
                with contextlib.suppress(RuntimeFailure):  # with the monitor gone there is no one left to ask
                    await finish(self._client.ask("exec_kill", again=False, execution=execution), within=5)
            self._client.forget_exit(execution)

    def exec(self, container_id: str, args: Sequence[str], *, tty: bool, stdin: bool) -> Scope[Session]:
        return self._exec(container_id, args, tty, stdin)

    async def _begin_with_pipes(self, container_id: str, process: Config, stdin: bool) -> tuple[int, PipeSession]:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

            def pipe() -> tuple[int, int]:
                source, target = os.pipe()
                return source, target

            inner_in, outer_in = pipe() if stdin else (os.open("/dev/null", os.O_RDONLY), -1)
            (outer_out, inner_out), (outer_err, inner_err) = pipe(), pipe()
            for fd in (inner_in, inner_out, inner_err):
                theirs.callback(os.close, fd)
            for fd in (outer_in, outer_out, outer_err):
                if fd >= 0:
                    ours.callback(os.close, fd)
            execution, _ = await self._ask_exec(container_id, process, (inner_in, inner_out, inner_err))
            ours.pop_all()
            return execution, PipeSession(outer_in, outer_out, outer_err, self._client.exit_of(execution))

    async def _begin_with_terminal(self, container_id: str, process: Config, _: bool) -> tuple[int, TerminalSession]:
        execution, fds = await self._ask_exec(container_id, process, ())
        return execution, TerminalSession(fds[0], self._client.exit_of(execution))

    async def _ask_exec(self, container_id: str, process: Config, fds: Sequence[int]) -> tuple[int, list[int]]:
        try:
            answer = await self._client.ask("exec", fds, again=False, id=container_id, process=process)
        except RuntimeFailure as error:
            raise exec_failure(str(error)) from error
        return answer.message["execution"], answer.fds

    @asynccontextmanager
    async def _attach(self, container_id: str, stdin: bool) -> AsyncIterator[Session]:
        spec = read_json(f"{self._run.container(container_id)}/spec.json")
        if spec is None:
            raise RuntimeFailure(f"container {container_id} does not exist", "AttachError")
        answer = await self._client.ask("attach", id=container_id)
        packets, *entrances = answer.fds
        if entrances and not stdin and not spec["spec"]["tty"]:
            os.close(entrances.pop())
        last_word = asyncio.Event()
        session = AttachSession(
            packets,
            entrances[0] if entrances else -1,
            terminal=spec["spec"]["tty"],
            on_stdin_closed=last_word.set,
        )
        once = stdin and spec["spec"]["stdin_once"]
        try:
            async with running(self._finish_stdin(container_id, last_word)) if once else contextlib.nullcontext():
                yield session
        finally:
            session.close()
            if once and not last_word.is_set():
                with contextlib.suppress(RuntimeFailure):  # removed meanwhile
                    await finish(self._client.ask("finish_stdin", id=container_id), within=5)

    async def _finish_stdin(self, container_id: str, closed: asyncio.Event) -> None:
        await closed.wait()
        self._client.release(container_id, "stdin")
        await self._client.ask("finish_stdin", id=container_id)

    def attach(self, container_id: str, *, stdin: bool) -> Scope[Session]:
        return self._attach(container_id, stdin)

    # ── resources ────────────────────────────────────────────────────────────────────────────────

    async def usage(self, container_id: str) -> Usage | None:
        path = self._cgroup_of(container_id)
        return self._cgroups.usage(path) if path else None

    async def update(self, container_id: str, resources: Resources) -> None:
        path = self._cgroup_of(container_id)
        if path:
            self._cgroups.update(path, resources)

    def _cgroup_of(self, container_id: str) -> str:
        state = self._states.get(container_id)
        sandbox = read_sandbox(self._run, state.pod_uid) if state is not None else None
        return container_cgroup(sandbox, container_id) if sandbox is not None else ""

    def _clean_scraps(self) -> None:
        """What a killed agent or monitor left half-made."""
        for name in os.listdir(self._run.containers):
            if name.endswith((".new", ".gone")):
                shutil.rmtree(f"{self._run.containers}/{name}", ignore_errors=True)
        for name in os.listdir(self._run.sandboxes):
            if read_sandbox(self._run, name) is None:
                drop_namespaces(self._run, name)


async def _drain(queue: asyncio.Queue[ContainerState]) -> AsyncIterator[ContainerState]:
    while True:
        yield await queue.get()


async def destroy_all(run_dir: str | os.PathLike[str], instance: str) -> None:
    """End every container of an instance, its monitor too, and leave no process, mount, namespace or cgroup.

    Needs neither agent nor monitor to be alive; safe to repeat.
    """
    await destroy(RunDir(os.path.abspath(run_dir)), open_cgroups(find_hierarchies()), instance)
