"""Watch streams as terminal sessions: commands in, transcript out.

    apply NAME [label=value ...]       create or change a ConfigMap
    delete NAME
    list [QUERY]
    watch ID [QUERY]                   open a stream over the wire; `{NAME}` in a query is a remembered revision
    read ID                            what the stream has given since the last read
    mark NAME                          remember the newest revision
    compact                            forget the past
    pass SECONDS                       let time go by
    repeat N apply ...                 a command N times

Revisions are shown as counted from the start of the session.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

from dure.apiserver.server import ApiServer
from dure.client.client import Client
from dure.core.aio import running
from dure.core.errors import NotFound
from dure.core.json import loads
from dure.wire.http import Response
from tests.support.cluster import api_server
from tests.support.wire import Remote, decoded

PATH = "/api/v1/namespaces/default/configmaps"


class Session:
    """One server and the streams opened on it."""

    def __init__(self, server: ApiServer, client: Client, stack: AsyncExitStack) -> None:
        self._server, self._client, self._stack = server, client, stack
        self._remote = Remote(server.handle)
        self._start = server.store.revision
        self._marks: dict[str, int] = {}
        self._gathered: dict[str, list[str]] = {}
        self._count = 0

    async def run(self, command: str) -> list[str]:
        verb, *words = command.split()
        lines: list[str] = await getattr(self, f"do_{verb}")(*words)
        return lines

    async def do_apply(self, name: str, *labels: str) -> list[str]:
        self._count += 1
        meta: dict[str, Any] = {"name": name, "namespace": "default"}
        meta["labels"] = dict(label.split("=") for label in labels)
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": str(self._count)}}
        try:
            made = await self._client.update(obj)
        except NotFound:
            made = await self._client.create(obj)
        return [f"{name} at {self._revision(made)}"]

    async def do_delete(self, name: str) -> list[str]:
        await self._client.delete("configmaps", name, "default")
        return [f"{name} gone at {self._shown(self._server.store.revision)}"]

    async def do_list(self, query: str = "") -> list[str]:
        answer = await self._remote.value("GET", self._url(query))
        if answer["kind"] == "Status":
            return [self._status(answer)]
        names = ", ".join(item["metadata"]["name"] for item in answer["items"]) or "nothing"
        rest = f", {answer['metadata']['remainingItemCount']} more" if "continue" in answer["metadata"] else ""
        return [f"{names}{rest} at {self._revision(answer)}"]

    async def do_watch(self, id_: str, query: str = "") -> list[str]:
        response = await self._remote.ask("GET", self._url(f"watch=true&{query}"))
        if response.stream is None:
            return [self._status(decoded(response))]
        self._gathered[id_] = []
        await self._stack.enter_async_context(running(self._gather(id_, response)))
        return await self.do_read(id_)

    async def _gather(self, id_: str, response: Response) -> None:
        assert response.stream is not None
        async for chunk in response.stream.chunks():
            self._gathered[id_] += [self._event(loads(line)) for line in chunk.splitlines()]
        self._gathered[id_].append("the end")

    async def do_read(self, id_: str) -> list[str]:
        await asyncio.sleep(0.1)
        lines, self._gathered[id_] = self._gathered[id_], []
        return lines

    async def do_mark(self, name: str) -> list[str]:
        self._marks[name] = self._server.store.revision
        return []

    async def do_compact(self) -> list[str]:
        await self._server.store.compact(self._server.store.revision)
        return []

    async def do_pass(self, seconds: str) -> list[str]:
        await asyncio.sleep(float(seconds))
        return []

    async def do_repeat(self, times: str, *words: str) -> list[str]:
        for _ in range(int(times)):
            lines = await self.run(" ".join(words))
        return lines

    def _url(self, query: str) -> str:
        return f"{PATH}?{query.format(**self._marks)}"

    def _shown(self, revision: int) -> str:
        return f"+{revision - self._start}"

    def _revision(self, obj: Any) -> str:
        return self._shown(int(obj["metadata"]["resourceVersion"]))

    def _status(self, status: Any) -> str:
        text = re.sub(r"\d{2,}", "…", status["message"])
        return f"{status['code']} {status['reason']}: {text}"

    def _event(self, event: Any) -> str:
        obj = event["object"]
        if event["type"] == "ERROR":
            return f"ERROR {self._status(obj)}"
        meta = obj["metadata"]
        if event["type"] == "BOOKMARK":
            end = " (initial events end)" if "annotations" in meta else ""
            return f"BOOKMARK at {self._revision(obj)}{end}"
        labels = "".join(f" {key}={value}" for key, value in sorted((meta.get("labels") or {}).items()))
        return f"{event['type']} {meta['name']}{labels} at {self._revision(obj)}"


async def play(script: str) -> str:
    """The script with what each command answers, in place of what it answered before."""
    out: list[str] = []
    async with AsyncExitStack() as stack:
        server, client = await stack.enter_async_context(api_server())
        session = Session(server, client, stack)
        for line in script.splitlines():
            if line.startswith("> "):
                out += [line, *(f"  {text}" for text in await session.run(line[2:]))]
            elif not line.startswith("  "):
                out.append(line)
    return "\n".join(out) + "\n"
