"""What the pod rooms of a node need from runtimes, network and images; `apps/` passes these in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dure.core.aio import Scope
from dure.core.errors import DureError


class RuntimeFailure(DureError):
    """The runtime refused; `reason` is a container reason such as CreateContainerError, RunContainerError."""

    def __init__(self, message: str, reason: str = "RunContainerError") -> None:
        super().__init__(message)
        self.reason = reason


class ImageFailure(DureError):
    """No image; `reason` is ErrImagePull, ErrImageNeverPull or InvalidImageName."""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this machine. `id` is the digest of its config."""

    id: str
    reference: str
    digest: str = ""
    size: int = 0
    stand_in: bool = False
    """A local image that answers to a public name because the user allowed it."""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()


class ImageService(Protocol):
    """The content store as a node sees it. Pull policy is the pod room's business, not this one's."""

    async def find(self, reference: str) -> Image | None:
        """The image if it is present."""
        ...

    async def pull(self, reference: str, credentials: Sequence[Mapping[str, str]] = ()) -> Image:
        """Fetch it, concurrent calls for one image sharing the work. Raises ImageFailure."""
        ...

    async def mount(self, image: Image, container_id: str) -> str:
        """A writable root file system for the container: the path of its mounted overlay. Safe to repeat."""
        ...

    async def unmount(self, container_id: str) -> None:
        """Unmount and forget what the container wrote. Safe to repeat."""
        ...


@dataclass(frozen=True, slots=True)
class PodAddress:
    """Where a pod stands on the network. `netns` is the path of its bind-mounted network namespace."""

    ip: str
    netns: str


@dataclass(frozen=True, slots=True)
class HostPort:
    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


class PodNetwork(Protocol):
    """One node's pod network. State survives the agent; every call may be repeated."""

    async def attach(self, pod_uid: str, *, host_ports: Sequence[HostPort] = ()) -> PodAddress: ...

    async def detach(self, pod_uid: str) -> None: ...

    async def attached(self) -> Mapping[str, PodAddress]:
        """By pod uid, what is attached now (also from before a restart)."""
        ...

    @property
    def host_netns(self) -> str:
        """The namespace path of the node itself, for hostNetwork pods and probes."""
        ...

    async def connect(self, ip: str, port: int) -> Any:
        """(StreamReader, StreamWriter) to an address, as the node reaches it; for probes and port-forward."""
        ...


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount into a container."""

    source: str
    target: str
    read_only: bool = False
    propagation: Literal["private", "rslave", "rshared"] = "private"


@dataclass(frozen=True, slots=True)
class Resources:
    """cgroup limits; 0 means none."""

    cpu_shares: int = 2
    cpu_quota: int = 0
    cpu_period: int = 100_000
    memory_bytes: int = 0
    pids: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Security:
    """What of the container's confinement differs from the runtime's default profile."""

    privileged: bool = False
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    read_only_root: bool = False
    no_new_privileges: bool = True
    seccomp: str = "RuntimeDefault"
    """RuntimeDefault, Unconfined, or the path of a profile."""
    unmasked_proc: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The namespaces the containers of one pod share."""

    pod_uid: str
    namespace: str
    name: str
    node: str
    hostname: str
    netns: str
    cgroup: str
    """Absolute below each hierarchy's root, `/dure/<node>/<qos>/<uid>`; containers live below it."""
    resources: Resources = field(default_factory=Resources)
    share_pid: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_network: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to be made in a sandbox. `id` is the caller's, unique for ever."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    image: str
    image_id: str
    rootfs: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    log_path: str
    """A CRI log (`<time> stdout|stderr F|P <line>`); its folder exists."""
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    devices: tuple[str, ...] = ()
    target_container: str = ""
    """For an ephemeral container: the id whose PID namespace it joins."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the runtime knows of a container, also one from before the agent started. Times: nanoseconds since 1970."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    image: str
    image_id: str
    state: Literal["created", "running", "exited", "unknown"]
    pid: int = 0
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    signal: int = 0
    oom_killed: bool = False
    log_path: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in nanoseconds since start, memory working set in bytes."""

    cpu_nanoseconds: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    stdout: bytes
    stderr: bytes


class Session(Protocol):
    """A live stdio connection to a process in a container (exec or attach)."""

    async def write_stdin(self, data: bytes) -> None: ...

    def close_stdin(self) -> None: ...

    def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Everything the process writes until it ends or detaches; with a TTY all is stdout."""
        ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """The exit code (exec), or 0 once the container has ended (attach)."""
        ...


class Runtime(Protocol):
    """Containers on this machine. Every call may be repeated; state outlives the agent."""

    async def run_sandbox(self, spec: SandboxSpec) -> None: ...

    async def stop_sandbox(self, pod_uid: str) -> None:
        """Kill whatever runs in it and drop its namespaces and cgroup."""
        ...

    async def sandboxes(self) -> Sequence[SandboxSpec]: ...

    async def create(self, spec: ContainerSpec) -> None:
        """Raises RuntimeFailure."""
        ...

    async def start(self, container_id: str) -> None:
        """Raises RuntimeFailure with reason RunContainerError or StartError (command not found: exit code 127/128)."""
        ...

    async def signal(self, container_id: str, signal: str) -> None: ...

    async def stop(self, container_id: str, *, grace_seconds: float, signal: str = "SIGTERM") -> None:
        """Signal, wait, then kill; returns when it has ended."""
        ...

    async def remove(self, container_id: str) -> None:
        """Forget an ended container (its log stays)."""
        ...

    async def containers(self) -> Sequence[ContainerState]: ...

    def events(self) -> Scope[AsyncIterator[ContainerState]]:
        """Each change of state as it happens; begin with `containers()` after entering."""
        ...

    async def exec_sync(self, container_id: str, args: Sequence[str], *, limit_bytes: int = 1 << 20) -> ExecResult:
        """Run to the end; killed if cancelled. Raises RuntimeFailure."""
        ...

    def exec(self, container_id: str, args: Sequence[str], *, tty: bool, stdin: bool) -> Scope[Session]: ...

    def attach(self, container_id: str, *, stdin: bool) -> Scope[Session]: ...

    async def usage(self, container_id: str) -> Usage | None: ...

    async def update(self, container_id: str, resources: Resources) -> None: ...
