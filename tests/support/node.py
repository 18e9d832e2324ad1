"""A node for tests: an agent on an in-process API server, with small real stand-ins for runtime, network and images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dure.client.client import Client
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.json import Obj
from dure.node.agent import NodeAgent
from dure.node.model import NodeConfig
from dure.node.ports import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    HostPort,
    Image,
    ImageFailure,
    PodAddress,
    Resources,
    RuntimeFailure,
    SandboxSpec,
)
from dure.node.volumes.kernel import PlainMounter
from tests.support.cluster import api_server

Behaviour = Callable[[ContainerSpec], "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """How a container behaves: runs for `seconds` (for ever by default), ends with `code`, minds SIGTERM after `stop`."""

    seconds: float | None = None
    code: int = 0
    stop: float | None = 0.0
    refuse_create: str = ""
    refuse_start: str = ""
    message: str = ""
    oom: bool = False


@dataclass
class ScriptedRuntime:
    """Containers that live by their script, in the loop's time. It outlives agents, as the real one does."""

    clock: LoopClock
    behave: Behaviour = lambda spec: Script()
    specs: dict[str, ContainerSpec] = field(default_factory=dict)
    states: dict[str, ContainerState] = field(default_factory=dict)
    made: dict[str, SandboxSpec] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    exec_result: Callable[[str, Sequence[str]], ExecResult] = lambda id_, args: ExecResult(0, b"", b"")
    resized: dict[str, Resources] = field(default_factory=dict)
    _timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _ended: dict[str, asyncio.Event] = field(default_factory=dict)
    _listeners: list[asyncio.Queue[ContainerState]] = field(default_factory=list)

    def _now(self) -> int:
        return int(self.clock.time() * 1e9)

    def _set(self, state: ContainerState) -> None:
        self.states[state.id] = state
        for queue in self._listeners:
            queue.put_nowait(state)

    async def run_sandbox(self, spec: SandboxSpec) -> None:
        self.made[spec.pod_uid] = spec

    async def stop_sandbox(self, pod_uid: str) -> None:
        for state in list(self.states.values()):
            if state.pod_uid == pod_uid and state.state == "running":
                self.end(state.id, 137)
        self.made.pop(pod_uid, None)

    async def sandboxes(self) -> Sequence[SandboxSpec]:
        return list(self.made.values())

    async def create(self, spec: ContainerSpec) -> None:
        script = self.behave(spec)
        if script.refuse_create:
            raise RuntimeFailure(script.refuse_create, "CreateContainerError")
        self.log.append(f"create {spec.name}/{spec.attempt}")
        self.specs[spec.id] = spec
        self._ended[spec.id] = asyncio.Event()
        self._set(
            ContainerState(
                spec.id,
                spec.pod_uid,
                spec.name,
                spec.attempt,
                spec.image,
                spec.image_id,
                "created",
                created_at=self._now(),
                log_path=spec.log_path,
            )
        )

    async def start(self, container_id: str) -> None:
        spec = self.specs[container_id]
        script = self.behave(spec)
        if script.refuse_start:
            raise RuntimeFailure(script.refuse_start, "StartError")
        self.log.append(f"start {spec.name}/{spec.attempt}")
        self._set(replace(self.states[container_id], state="running", pid=1, started_at=self._now()))
        if script.seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[container_id] = loop.call_later(script.seconds, self.end, container_id, script.code)

    def end(self, container_id: str, code: int) -> None:
        state = self.states[container_id]
        if state.state == "exited":
            return
        if (timer := self._timers.pop(container_id, None)) is not None:
            timer.cancel()
        script = self.behave(self.specs[container_id])
        if script.message:
            target = next(m for m in self.specs[container_id].mounts if m.source.endswith(".message"))
            Path(target.source).write_text(script.message)
        self._set(replace(state, state="exited", exit_code=code, finished_at=self._now(), oom_killed=script.oom))
        self._ended[container_id].set()

    async def signal(self, container_id: str, signal: str) -> None:
        self.log.append(f"signal {signal} {self.specs[container_id].name}")

    async def stop(self, container_id: str, *, grace_seconds: float, signal: str = "SIGTERM") -> None:
        spec, state = self.specs[container_id], self.states[container_id]
        self.log.append(f"stop {spec.name}/{spec.attempt} {signal} {grace_seconds:g}")
        if state.state != "running":
            return
        needs = self.behave(spec).stop
        if needs is not None and needs <= grace_seconds:
            await asyncio.sleep(needs)
            self.end(container_id, 143 if self.behave(spec).code == 0 else self.behave(spec).code)
        else:
            await asyncio.sleep(grace_seconds)
            self.end(container_id, 137)

    async def remove(self, container_id: str) -> None:
        if container_id in self.states:
            spec = self.specs.pop(container_id)
            self.log.append(f"remove {spec.name}/{spec.attempt}")
            del self.states[container_id]

    async def containers(self) -> Sequence[ContainerState]:
        return list(self.states.values())

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[ContainerState]]:
        queue: asyncio.Queue[ContainerState] = asyncio.Queue()
        self._listeners.append(queue)

        async def follow() -> AsyncIterator[ContainerState]:
            while True:
                yield await queue.get()

        try:
            yield follow()
        finally:
            self._listeners.remove(queue)

    async def exec_sync(self, container_id: str, args: Sequence[str], *, limit_bytes: int = 1 << 20) -> ExecResult:
        self.log.append(f"exec {self.specs[container_id].name} {' '.join(args)}")
        return self.exec_result(self.specs[container_id].name, args)

    def exec(self, container_id: str, args: Sequence[str], *, tty: bool, stdin: bool) -> Any:
        raise RuntimeFailure("no sessions here")

    def attach(self, container_id: str, *, stdin: bool) -> Any:
        raise RuntimeFailure("no sessions here")

    async def usage(self, container_id: str) -> None:
        return None

    async def update(self, container_id: str, resources: Resources) -> None:
        self.resized[container_id] = resources

    def named(self, name: str) -> ContainerState:
        """The newest run of that name."""
        return max((state for state in self.states.values() if state.name == name), key=lambda state: state.attempt)

    def spec_of(self, name: str) -> ContainerSpec:
        return self.specs[self.named(name).id]


@dataclass
class PlainNetwork:
    """Hands out addresses; connects to what tests serve in `served`."""

    addresses: dict[str, PodAddress] = field(default_factory=dict)
    ports: dict[str, Sequence[HostPort]] = field(default_factory=dict)
    served: dict[tuple[str, int], Callable[[], bytes]] = field(default_factory=dict)
    count: int = 1

    async def attach(self, pod_uid: str, *, host_ports: Sequence[HostPort] = ()) -> PodAddress:
        if pod_uid not in self.addresses:
            self.count += 1
            self.addresses[pod_uid] = PodAddress(f"10.244.1.{self.count}", f"/run/netns/{pod_uid}")
            self.ports[pod_uid] = host_ports
        return self.addresses[pod_uid]

    async def detach(self, pod_uid: str) -> None:
        self.addresses.pop(pod_uid, None)

    async def attached(self) -> Mapping[str, PodAddress]:
        return dict(self.addresses)

    @property
    def host_netns(self) -> str:
        return "/run/netns/host"

    async def connect(self, ip: str, port: int) -> Any:
        serve = self.served.get((ip, port)) or self.served.get(("*", port))
        if serve is None:
            raise ConnectionRefusedError(111, "Connection refused")
        reader = asyncio.StreamReader()
        reader.feed_data(serve())
        reader.feed_eof()
        return reader, _Sink()


class _Sink:
    """The writing half of a connection whose other side does not listen."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


@dataclass
class PlainImages:
    """Every image is there but those in `absent`, which can be pulled unless they are in `broken`."""

    root: Path
    absent: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    stand_ins: set[str] = field(default_factory=set)
    image: Image = field(default_factory=lambda: Image("sha256:1", "", entrypoint=("/bin/app",)))
    mounted: set[str] = field(default_factory=set)
    pull_seconds: float = 0.0

    def _image(self, reference: str) -> Image:
        return replace(self.image, reference=reference, stand_in=reference in self.stand_ins)

    async def find(self, reference: str) -> Image | None:
        return None if reference in self.absent or reference in self.broken else self._image(reference)

    async def pull(self, reference: str, credentials: Sequence[Mapping[str, str]] = ()) -> Image:
        await asyncio.sleep(self.pull_seconds)
        if reference in self.broken:
            raise ImageFailure(self.broken[reference])
        self.absent.discard(reference)
        return self._image(reference)

    async def mount(self, image: Image, container_id: str) -> str:
        self.mounted.add(container_id)
        folder = self.root / container_id
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
        (folder / "etc/group").write_text("root:x:0:\nextra:x:2000:app\n")
        return str(folder)

    async def unmount(self, container_id: str) -> None:
        self.mounted.discard(container_id)


@dataclass
class TestNode:
    """What a test holds of a running node."""

    __test__ = False

    client: Client
    agent: NodeAgent
    runtime: ScriptedRuntime
    network: PlainNetwork
    images: PlainImages
    clock: LoopClock

    async def create(self, name: str = "web", namespace: str = "default", **spec: Any) -> Obj:
        """A pod bound to this node."""
        return await self.client.create(pod_of(name, namespace, **spec))

    async def get(self, name: str = "web", namespace: str = "default") -> Obj:
        return await self.client.get("pods", name, namespace)

    async def wait_for(self, check: Callable[[Obj], Any], name: str = "web", within: float = 1000.0) -> Obj:
        """Until the pod is as `check` says."""
        page = await self.client.list("pods", "default", fields=f"metadata.name={name}")
        if page.items and check(page.items[0]):
            return page.items[0]
        pod: Obj = page.items[0] if page.items else {}
        try:
            async with (
                asyncio.timeout(within),
                self.client.watch("pods", "default", since=page.revision, fields=f"metadata.name={name}") as events,
            ):
                async for event in events:
                    pod = event.object
                    if event.type in ("ADDED", "MODIFIED") and check(pod):
                        return pod
        except TimeoutError:
            raise AssertionError(f"never so: {pod.get('status')}") from None
        raise AssertionError("watch ended")

    async def wait_gone(self, name: str = "web", within: float = 1000.0) -> Obj:
        """Its last form."""
        page = await self.client.list("pods", "default", fields=f"metadata.name={name}")
        if not page.items:
            return {}
        async with (
            asyncio.timeout(within),
            self.client.watch("pods", "default", since=page.revision, fields=f"metadata.name={name}") as events,
        ):
            async for event in events:
                if event.type == "DELETED":
                    return event.object
        raise AssertionError("watch ended")

    async def wait_phase(self, phase: str, name: str = "web") -> Obj:
        return await self.wait_for(lambda pod: (pod.get("status") or {}).get("phase") == phase, name)

    async def wait_ready(self, name: str = "web") -> Obj:
        return await self.wait_for(is_ready, name)

    async def events(self) -> list[str]:
        """`Type Reason: message`, in the order they were written."""
        await asyncio.sleep(0.01)
        found = (await self.client.list("events", "default")).items
        found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [f"{event['type']} {event['reason']}: {event['message']}" for event in found]


def is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def pod_of(name: str = "web", namespace: str = "default", **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **spec.pop("metadata", {})},
        "spec": {
            "nodeName": "dure-1",
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "app:1"}],
            **spec,
        },
    }


@dataclass
class Machine:
    """What outlives an agent: API server, runtime, network, images, disk."""

    client: Client
    runtime: ScriptedRuntime
    network: PlainNetwork
    images: PlainImages
    home: Path
    clock: LoopClock
    options: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[TestNode]:
        config = NodeConfig("dure-1", self.home, "10.243.0.11", pod_cidr="10.244.1.0/24", cpus=2, memory_bytes=4 << 30)
        agent = NodeAgent(
            self.client,
            replace(config, **self.options),
            self.runtime,
            self.network,
            self.images,
            mounter=PlainMounter(),
            clock=self.clock,
        )
        async with running(agent.run()):
            await agent.heartbeat.wait_registered()
            yield TestNode(self.client, agent, self.runtime, self.network, self.images, self.clock)


@asynccontextmanager
async def machine(home: Path, behave: Behaviour = lambda spec: Script(), **options: Any) -> AsyncIterator[Machine]:
    clock = LoopClock()
    async with api_server() as (_, client):
        account = {"name": "default", "namespace": "default"}
        await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        runtime = ScriptedRuntime(clock, behave)
        yield Machine(client, runtime, PlainNetwork(), PlainImages(home / "images"), home, clock, options)


@asynccontextmanager
async def node(home: Path, behave: Behaviour = lambda spec: Script(), **options: Any) -> AsyncIterator[TestNode]:
    async with machine(home, behave, **options) as box, box.agent() as found:
        yield found


Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
