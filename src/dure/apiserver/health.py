"""/healthz, /livez, /readyz, /version and /metrics."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable

from dure import KUBERNETES_VERSION, __version__
from dure.apiserver.representation import json_response
from dure.apiserver.requestinfo import RequestInfo
from dure.store.model import Store
from dure.wire.http import Request, Response

MAJOR, MINOR = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
GIT_VERSION = f"{KUBERNETES_VERSION}-dure.{__version__}"

_TEXT = {
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache, private",
}
_NAMES = ("healthz", "livez", "readyz")

Check = Callable[[], str]
"""Empty when well, else what is wrong."""


def version_document() -> dict[str, str]:
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{'arm64' if platform.machine() == 'aarch64' else 'amd64'}",
    }


class Health:
    """The server's own state. `checks` may be added to by whoever composes the process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ready = False
        self.checks: dict[str, Check] = {
            "ping": lambda: "",
            "poststarthook/bootstrap": lambda: "" if self.ready else "not finished",
        }
        self._requests: Counter[tuple[str, str, int]] = Counter()

    def count(self, info: RequestInfo, status: int) -> None:
        self._requests[info.verb, info.resource, status] += 1

    def answer(self, request: Request, info: RequestInfo) -> Response | None:
        first, _, rest = info.path.strip("/").partition("/")
        if first in _NAMES:
            return self._health(request, first, rest)
        if info.path.rstrip("/") == "/version":
            return json_response(version_document())
        if info.path == "/metrics":
            headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-cache, private"}
            return Response(200, headers, self._metrics().encode())
        return None

    def _health(self, request: Request, name: str, only: str) -> Response | None:
        if only and only not in self.checks:
            return None
        excluded = set(request.query.get("exclude", ()))
        results = {
            key: check() for key, check in self.checks.items() if (not only or key == only) and key not in excluded
        }
        failed = any(results.values())
        if not failed and "verbose" not in request.query:
            return Response(200, dict(_TEXT), b"ok")
        lines = [f"[-]{key} failed: {why}" if why else f"[+]{key} ok" for key, why in results.items()]
        lines.append(f"{name} check {'failed' if failed else 'passed'}")
        return Response(500 if failed else 200, dict(_TEXT), ("\n".join(lines) + "\n").encode())

    def _metrics(self) -> str:
        lines = ["# TYPE apiserver_request_total counter"]
        for (verb, resource, code), count in sorted(self._requests.items()):
            lines.append(f'apiserver_request_total{{verb="{verb}",resource="{resource}",code="{code}"}} {count}')
        lines += [
            "# TYPE dure_store_revision gauge",
            f"dure_store_revision {self._store.revision}",
            "# TYPE dure_store_compacted_revision gauge",
            f"dure_store_compacted_revision {self._store.compacted}",
        ]
        return "\n".join(lines) + "\n"
