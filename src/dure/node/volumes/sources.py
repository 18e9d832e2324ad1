"""Which files a configMap, secret, downwardAPI or projected volume shows. Pure but for fetching the objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dure.core.json import Obj
from dure.node.payload import config_map_data, secret_data
from dure.node.pods.downward import Downward
from dure.node.volumes.errors import Missing
from dure.node.volumes.payload_writer import PayloadFile

DEFAULT_MODE = 0o644

Get = Callable[[str, str], Awaitable[Obj | None]]
"""(resource, name) → the object in the pod's namespace."""

Token = Callable[[Obj], Awaitable[str]]
"""A serviceAccountToken source → a token that is valid now."""


@dataclass(frozen=True, slots=True)
class SourceReader:
    namespace: str
    get: Get
    token: Token
    downward: Callable[[], Downward]
    fs_group: int | None
    run_as_user: int | None = None

    async def read(self, volume: Obj) -> dict[str, PayloadFile]:
        """The volume's whole payload. Raises VolumeFailure."""
        for field in ("configMap", "secret", "downwardAPI"):
            if (source := volume.get(field)) is not None:
                return await self._one(field, source, _mode(source), named_by_volume=True)
        projected = volume["projected"]
        files: dict[str, PayloadFile] = {}
        for source in projected.get("sources") or []:
            for field, inner in source.items():
                files |= await self._one(field, inner or {}, _mode(projected))
        return files

    async def _one(
        self, field: str, source: Obj, mode: int, *, named_by_volume: bool = False
    ) -> dict[str, PayloadFile]:
        match field:
            case "configMap":
                return await self._keyed("configmaps", "configmap", source.get("name", ""), source, mode)
            case "secret":
                name = source.get("secretName", "") if named_by_volume else source.get("name", "")
                return await self._keyed("secrets", "secret", name, source, mode)
            case "downwardAPI":
                return self._downward(source, mode)
            case "serviceAccountToken":
                return {source["path"]: await self._token_file(source, mode)}
        raise Missing(f"this node knows no projected source {field!r}")

    async def _keyed(self, resource: str, word: str, name: str, source: Obj, mode: int) -> dict[str, PayloadFile]:
        optional = bool(source.get("optional"))
        obj = await self.get(resource, name)
        if obj is None:
            if optional:
                return {}
            raise Missing(f'{word} "{name}" not found')
        data = config_map_data(obj) if resource == "configmaps" else secret_data(obj)
        items = source.get("items")
        if not items:
            return {key: self._file(value, mode) for key, value in data.items()}
        files: dict[str, PayloadFile] = {}
        for item in items:
            if item["key"] in data:
                files[item["path"]] = self._file(data[item["key"]], _mode(item, mode, "mode"))
            elif not optional:
                raise Missing(f"{word} references non-existent {word} key: {item['key']}")
        return files

    def _downward(self, source: Obj, mode: int) -> dict[str, PayloadFile]:
        downward, files = self.downward(), {}
        for item in source.get("items") or []:
            if (ref := item.get("fieldRef")) is not None:
                text = downward.field(ref.get("fieldPath", ""))
            else:
                text = downward.resource(item.get("resourceFieldRef") or {})
            files[item["path"]] = self._file(text.encode(), _mode(item, mode, "mode"))
        return files

    async def _token_file(self, source: Obj, mode: int) -> PayloadFile:
        """Readable by the group where there is one, else by the one user the pod runs as; else as asked."""
        data = (await self.token(source)).encode()
        if self.fs_group is not None:
            return PayloadFile(data, 0o640, gid=self.fs_group)
        if self.run_as_user is not None:
            return PayloadFile(data, 0o600, uid=self.run_as_user)
        return PayloadFile(data, mode)

    def _file(self, data: bytes, mode: int) -> PayloadFile:
        """A group that owns the volume may read what the owner may."""
        if self.fs_group is None:
            return PayloadFile(data, mode)
        return PayloadFile(data, mode | ((mode & 0o700) >> 3) & 0o050, gid=self.fs_group)


def _mode(source: Obj, default: int = DEFAULT_MODE, field: str = "defaultMode") -> int:
    mode = source.get(field)
    return default if mode is None else int(mode)
