"""A node for tests: an agent on an in-process API server, with small real stand-ins for runtime, network and images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
)
from dure.node.runtimes.simulated import Script, SimulatedRuntime
from dure.node.volumes.kernel import PlainMounter
from tests.support.cluster import api_server

Behaviour = Callable[[ContainerSpec], Script]


class ObservedRuntime(SimulatedRuntime):
    """A simulated runtime that remembers what it was told. It outlives agents, as the real one does."""

    def __init__(self, clock: LoopClock, behave: Behaviour) -> None:
        super().__init__(clock, behave)
        self.log: list[str] = []
        self.specs: dict[str, ContainerSpec] = {}

    async def create(self, spec: ContainerSpec) -> None:
        self.specs[spec.id] = spec
        await super().create(spec)

    async def start(self, container_id: str) -> None:
        await super().start(container_id)
        self._note("start", container_id)

    async def stop(self, container_id: str, *, grace_seconds: float, signal: str = "SIGTERM") -> None:
        self._note("stop", container_id, f" {signal} {grace_seconds:g}")
        await super().stop(container_id, grace_seconds=grace_seconds, signal=signal)

    async def exec_sync(self, container_id: str, args: Sequence[str], *, limit_bytes: int = 1 << 20) -> ExecResult:
        self._note("exec", container_id, f" {' '.join(args)}")
        return await super().exec_sync(container_id, args, limit_bytes=limit_bytes)

    def _note(self, verb: str, container_id: str, more: str = "") -> None:
        spec = self.specs[container_id]
        self.log.append(f"{verb} {spec.name}/{spec.attempt}{more}")

    def starts(self) -> list[str]:
        return [line.removeprefix("start ") for line in self.log if line.startswith("start")]

    async def named(self, name: str) -> ContainerState:
        """The newest run of that name."""
        runs = [state for state in await self.containers() if state.name == name]
        return max(runs, key=lambda state: state.attempt)

    def spec_of(self, name: str) -> ContainerSpec:
        """What the newest run of that name was made from."""
        return max((spec for spec in self.specs.values() if spec.name == name), key=lambda spec: spec.attempt)

    def tell(self, state: ContainerState) -> None:
        """Say something that need not be so."""
        self._tell(state)

    def reboot(self) -> None:
        """Everything that was in memory is gone."""
        self._containers.clear()
        self._sandboxes.clear()


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
    runtime: ObservedRuntime
    network: PlainNetwork
    images: PlainImages
    clock: LoopClock

    async def create(self, name: str = "web", namespace: str = "default", **spec: Any) -> Obj:
        """A pod bound to this node."""
        return await self.client.create(pod_of(name, namespace, **spec))

    async def get(self, name: str = "web", namespace: str = "default") -> Obj:
        return await self.client.get("pods", name, namespace)

    async def wait_for(self, check: Callable[[Obj], Any], name: str = "web") -> Obj:
        """Until the pod is as `check` says."""
        return await wait_for_pod(self.client, check, name)

    async def wait_gone(self, name: str = "web") -> Obj:
        """Its last form."""
        last: Obj = {}

        def is_gone(pod: Obj) -> bool:
            last.update(pod)
            return not pod

        await wait_for_pod(self.client, is_gone, name)
        return last

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


async def wait_for_pod(client: Client, check: Callable[[Obj], Any], name: str, within: float = 1000.0) -> Obj:
    """Until the pod is as `check` says; `check` gets {} when there is none, and its last form just before."""
    page = await client.list("pods", "default", fields=f"metadata.name={name}")
    pod: Obj = page.items[0] if page.items else {}
    if check(pod):
        return pod
    try:
        async with (
            asyncio.timeout(within),
            client.watch("pods", "default", since=page.revision, fields=f"metadata.name={name}") as events,
        ):
            async for event in events:
                if event.type == "BOOKMARK":
                    continue
                pod = event.object
                if check(pod) or (event.type == "DELETED" and check({})):
                    return pod
    except TimeoutError:
        raise AssertionError(f"never so: {pod.get('status')}") from None
    raise AssertionError("the watch ended")


def is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def restarts(pod: Obj) -> int:
    """Of the first container."""
    entries = (pod.get("status") or {}).get("containerStatuses") or [{"restartCount": 0}]
    return int(entries[0]["restartCount"])


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
    runtime: ObservedRuntime
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
        runtime = ObservedRuntime(clock, behave)
        yield Machine(client, runtime, PlainNetwork(), PlainImages(home / "images"), home, clock, options)


@asynccontextmanager
async def node(home: Path, behave: Behaviour = lambda spec: Script(), **options: Any) -> AsyncIterator[TestNode]:
    async with machine(home, behave, **options) as box, box.agent() as found:
        yield found
