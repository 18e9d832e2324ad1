"""Files on the node that belong to containers: managed /etc files, termination messages, logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dure.core.json import Obj
from dure.node.model import NodeConfig, path_segment
from dure.node.pods import etc_files
from dure.node.pods.log_tail import last_lines
from dure.node.ports import Mount

MESSAGE_LIMIT = 4096
LOG_FALLBACK_BYTES, LOG_FALLBACK_LINES = 2048, 80
DEFAULT_MESSAGE_PATH = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class ContainerFiles:
    """Of one pod. Every method may be repeated."""

    config: NodeConfig
    uid: str
    log_dir: Path

    @staticmethod
    def of(config: NodeConfig, pod: Obj) -> ContainerFiles:
        meta = pod["metadata"]
        return ContainerFiles(config, meta["uid"], config.log_dir(meta.get("namespace", ""), meta["name"], meta["uid"]))

    @property
    def root(self) -> Path:
        return self.config.pod_dir(self.uid)

    def log_path(self, container: str, attempt: int) -> Path:
        return self.log_dir / path_segment(container) / f"{attempt}.log"

    def message_path(self, container: str, attempt: int) -> Path:
        return self.root / "containers" / path_segment(container) / f"{attempt}.message"

    def prepare(self, container: str, attempt: int) -> None:
        """The log folder and an empty termination message; older logs but one are dropped."""
        log = self.log_path(container, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        for old in log.parent.glob("*.log*"):
            number = old.name.split(".", 1)[0]
            if number.isdigit() and int(number) < attempt - 1:
                old.unlink(missing_ok=True)
        message = self.message_path(container, attempt)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)

    def mounts(self, pod: Obj, container: Obj, attempt: int, ip: str) -> Iterator[Mount]:
        """Termination log and managed /etc files, but for targets the container mounts itself."""
        name = container["name"]
        taken = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts") or []}
        target = container.get("terminationMessagePath") or DEFAULT_MESSAGE_PATH
        yield Mount(str(self.message_path(name, attempt)), target)
        for path, content in self._etc(pod, ip):
            if path not in taken:
                source = self.root / "etc" / path.rsplit("/", 1)[1]
                _write_if_changed(source, content)
                yield Mount(str(source), path)

    def _etc(self, pod: Obj, ip: str) -> Iterator[tuple[str, str]]:
        config = self.config
        resolver = etc_files.parse_resolv_conf(_read(config.resolv_conf), config.dns_ip, config.cluster_domain)
        yield "/etc/resolv.conf", etc_files.resolv_conf(pod, resolver)
        if pod["spec"].get("hostNetwork"):
            yield "/etc/hosts", etc_files.host_network_hosts_file(pod, _read(Path("/etc/hosts")))
        else:
            yield "/etc/hosts", etc_files.hosts_file(pod, ip, config.cluster_domain)
        hostname = config.name if pod["spec"].get("hostNetwork") else etc_files.uts_hostname(pod, config.cluster_domain)
        yield "/etc/hostname", hostname + "\n"

    def termination_message(self, container: Obj, attempt: int, *, failed: bool) -> str:
        """What the container wrote, or for a failed one the end of its log where it asked for that."""
        with_limit = _read_bytes(self.message_path(container["name"], attempt), MESSAGE_LIMIT)
        if not with_limit and failed and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            path = self.log_path(container["name"], attempt)
            with_limit = last_lines(path, LOG_FALLBACK_LINES, LOG_FALLBACK_BYTES)
        return with_limit.decode(errors="replace")

    def remove_message(self, container: str, attempt: int) -> None:
        self.message_path(container, attempt).unlink(missing_ok=True)

    def remove_logs(self) -> None:
        shutil.rmtree(self.log_dir, ignore_errors=True)

    def remove(self) -> None:
        """What is left of the pod's folder once its volumes are gone."""
        shutil.rmtree(self.root / "containers", ignore_errors=True)
        shutil.rmtree(self.root / "etc", ignore_errors=True)
        with suppress(OSError):  # not empty: a volume could not be let go, the next start of the agent tries again
            self.root.rmdir()


def _write_if_changed(path: Path, content: str) -> None:
    """In place: a running container sees the file by its inode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != content:
        path.write_text(content)
        path.chmod(0o644)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        return b""
