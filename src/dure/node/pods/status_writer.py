"""Writes the status of one pod: coalesced, the latest wins, tried again until it is written or the pod is gone."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from dure.client.client import Client
from dure.core.errors import ApiError, NotFound, TransportError
from dure.core.json import Obj

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.05, 0.2, 1.0, 5.0, 10.0)
ADDRESS_LISTS = ("podIPs", "hostIPs")
"""Lists that a strategic patch merges by `ip`."""


class StatusWriter:
    """`offer` what the status should be; `run()` writes it; `wait_written` until nothing is outstanding."""

    def __init__(self, client: Client, pod: Obj) -> None:
        self._client = client
        self._meta = pod["metadata"]
        self._revision = _revision_of(pod)
        self._written: dict[str, Any] = pod.get("status") or {}
        self._wanted = self._written
        self._dirty = asyncio.Event()
        self._clean = asyncio.Event()
        self._clean.set()

    @property
    def current(self) -> dict[str, Any]:
        """The newest status: what is wanted, else what the API has."""
        return self._wanted

    def offer(self, status: dict[str, Any]) -> None:
        if status == self._wanted:
            return
        self._wanted = status
        self._clean.clear()
        self._dirty.set()

    def seen(self, pod: Obj) -> None:
        """The API has a newer object; others may have changed its status."""
        revision = _revision_of(pod)
        if self._clean.is_set() and revision > self._revision:
            self._revision = revision
            self._written = self._wanted = pod.get("status") or {}

    def abandon(self) -> None:
        """The object is gone: nothing is outstanding any more."""
        self._written = self._wanted
        self._clean.set()

    async def wait_written(self) -> None:
        await self._clean.wait()

    async def run(self) -> None:
        failures = 0
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            wanted = self._wanted
            try:
                written = await self._write(wanted)
            except (ApiError, TransportError) as error:
                log.info("pod status not written", extra={"pod": self._meta["name"], "error": error})
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                self._dirty.set()
                continue
            failures = 0
            self._written = written
            if self._wanted is wanted:
                self._wanted = written
                self._clean.set()

    async def _write(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The status the API has afterwards."""
        changes = status_changes(self._written, wanted)
        if not changes:
            return wanted
        patch = {"metadata": {"uid": self._meta["uid"]}, "status": changes}
        name, namespace = self._meta["name"], self._meta.get("namespace", "")
        try:
            pod = await self._client.patch("pods", name, namespace, patch, type="strategic", subresource="status")
        except NotFound:
            return wanted  # the pod is gone: there is nobody left to tell
        self._revision = max(self._revision, _revision_of(pod))
        return pod.get("status") or {}


def _revision_of(pod: Obj) -> int:
    text = str(pod["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def status_changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A strategic merge patch from one status to the other, by whole fields, and by condition."""
    changes: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if before == value:
            continue
        if name == "conditions":
            value = _condition_changes(before or [], value)
            if not value:
                continue
        elif name in ADDRESS_LISTS and before:
            value = [*value, {"$patch": "replace"}]
        changes[name] = value
    return changes


def _condition_changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conditions that differ; a field that is gone is None, as the patch would else leave it as it was."""
    before = {entry["type"]: entry for entry in old}
    return [dict.fromkeys(before.get(entry["type"], {})) | entry for entry in new if entry not in old]
