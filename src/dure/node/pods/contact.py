"""Talks to a container as kubelet does for probes and hooks: HTTP GET, TCP connect, gRPC health, command."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dure.core.json import Obj
from dure.node.pods import grpc_health
from dure.node.ports import PodNetwork, Runtime, RuntimeFailure

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 10 * 1024
USER_AGENT = "kube-probe/1.33"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`message` is what an Unhealthy event says after `... probe failed: `."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Contact:
    """Reaches one pod from its node."""

    network: PodNetwork
    runtime: Runtime
    ip: str

    async def perform(self, action: Obj, container: Obj, container_id: str, timeout: float) -> Outcome:
        """The `httpGet`, `tcpSocket`, `grpc` or `exec` of a probe or hook. Never raises but on cancellation."""
        try:
            async with asyncio.timeout(timeout):
                return await self._perform(action, container, container_id)
        except TimeoutError:
            return Outcome(False, _timed_out(action, self._url(action, container), timeout))
        except RuntimeFailure as error:
            return Outcome(False, str(error))
        except (OSError, asyncio.IncompleteReadError, ValueError, ssl.SSLError) as error:
            return Outcome(False, self._unreached(action, container, error))

    async def _perform(self, action: Obj, container: Obj, container_id: str) -> Outcome:
        if (get := action.get("httpGet")) is not None:
            return await self._http(get, container)
        if (tcp := action.get("tcpSocket")) is not None:
            _, writer = await self.network.connect(tcp.get("host") or self.ip, port_of(tcp["port"], container))
            await _close(writer)
            return Outcome(True)
        if (grpc := action.get("grpc")) is not None:
            return await self._grpc(grpc)
        if (sleep := action.get("sleep")) is not None:
            await asyncio.sleep(float(sleep.get("seconds") or 0))
            return Outcome(True)
        result = await self.runtime.exec_sync(container_id, (action.get("exec") or {}).get("command") or [])
        text = (result.stdout + result.stderr)[:BODY_LIMIT].decode(errors="replace")
        return Outcome(result.exit_code == 0, text)

    async def _http(self, get: Obj, container: Obj) -> Outcome:
        host, port = get.get("host") or self.ip, port_of(get["port"], container)
        reader, writer = await self.network.connect(host, port)
        try:
            if str(get.get("scheme") or "HTTP").upper() == "HTTPS":
                await writer.start_tls(_unverified(), server_hostname=host)
            writer.write(http_request(get, host, port))
            await writer.drain()
            status = _status_of(await reader.readuntil(b"\r\n"))
        finally:
            await _close(writer)
        return Outcome(200 <= status < 400, f"HTTP probe failed with statuscode: {status}")

    async def _grpc(self, grpc: Obj) -> Outcome:
        reader, writer = await self.network.connect(self.ip, int(grpc["port"]))
        try:
            return Outcome(
                *await grpc_health.check(reader, writer, f"{self.ip}:{grpc['port']}", grpc.get("service") or "")
            )
        finally:
            await _close(writer)

    def _address(self, entry: Obj, container: Obj) -> str:
        try:
            port: object = port_of(entry.get("port"), container)
        except ValueError:
            port = entry.get("port")
        return f"{entry.get('host') or self.ip}:{port}"

    def _url(self, action: Obj, container: Obj) -> str:
        get = action.get("httpGet") or {}
        scheme = str(get.get("scheme") or "HTTP").lower()
        return f"{scheme}://{self._address(get, container)}{get.get('path') or '/'}"

    def _unreached(self, action: Obj, container: Obj, error: Exception) -> str:
        dialled = isinstance(error, OSError) and bool(error.errno)
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
        entry = action.get("httpGet") or action.get("tcpSocket") or {}
        if dialled and entry:
            reason = f"dial tcp {self._address(entry, container)}: connect: {reason}"
        return f'Get "{self._url(action, container)}": {reason}' if "httpGet" in action else reason


def port_of(port: Any, container: Obj) -> int:
    """A number, or the name of one of the container's ports. Raises ValueError."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise ValueError(f"no container port is named {port!r}")


def http_request(get: Obj, host: str, port: int) -> bytes:
    path = get.get("path") or "/"
    headers: dict[str, str] = {"Host": f"{host}:{port}", "User-Agent": USER_AGENT, "Accept": "*/*"}
    for entry in get.get("httpHeaders") or []:
        known = next((name for name in headers if name.lower() == entry["name"].lower()), entry["name"])
        headers[known] = entry.get("value") or ""
    headers["Connection"] = "close"
    return _request_head(path if path.startswith("/") else f"/{path}", headers)


def _request_head(path: str, headers: Mapping[str, str]) -> bytes:
    lines: Sequence[str] = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
    if any("\r" in line or "\n" in line for line in lines) or " " in path:
        raise ValueError("a path or header holds a line break or blank")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _status_of(line: bytes) -> int:
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        raise ValueError(f"malformed HTTP response {line[:80]!r}")
    return int(parts[1])


def _timed_out(action: Obj, url: str, timeout: float) -> str:
    if "httpGet" in action:
        return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    if "exec" in action:
        command = " ".join((action["exec"] or {}).get("command") or [])
        return f'command timed out: "{command}" timed out after {timeout:g}s'
    return "dial tcp: i/o timeout"


def _unverified() -> ssl.SSLContext:
    """Probes ask whether the pod answers, not who it is: as in kubelet, certificates are not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _close(writer: Any) -> None:
    writer.close()
    with suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
