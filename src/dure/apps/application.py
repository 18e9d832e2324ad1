"""An application as `dure deploy` finds it: a folder with `dure.yaml`, or with plain manifests and Dockerfiles.

name: shop                     # default: the folder's name
namespace: default
images:                        # default: every folder with a Dockerfile, named after it
  - name: shop-front           # as the manifests name it
    context: front
    dockerfile: Dockerfile     # within the context
    target: ""                 # a stage of it
    args: {}                   # build arguments
manifests: [k8s]               # files or folders; default: k8s/, manifests/, or the *.yaml here
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from dure.core.errors import ConfigError
from dure.core.json import Obj

_KNOWN = {"name", "namespace", "images", "manifests"}
_KNOWN_IMAGE = {"name", "context", "dockerfile", "target", "args"}
_ORDER = (
    "Namespace",
    "CustomResourceDefinition",
    "StorageClass",
    "PriorityClass",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "Secret",
    "ConfigMap",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Service",
)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image to build."""

    name: str
    context: Path
    dockerfile: str = "Dockerfile"
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Application:
    name: str
    folder: Path
    namespace: str
    images: tuple[ImageSource, ...]
    objects: tuple[Obj, ...]
    """In the order in which they are applied."""


def load_application(path: Path) -> Application:
    """Raises ConfigError naming the file and what is wrong with it."""
    if path.is_file():
        return _only_named_images(_plain(path.parent, [path]))
    if not path.is_dir():
        raise ConfigError(f"there is no folder or file {path}", "give a folder with dure.yaml or manifests")
    described = path / "dure.yaml"
    return _described(path, described) if described.exists() else _plain(path, _default_manifests(path))


def _described(folder: Path, file: Path) -> Application:
    spec = next(iter(_documents(file)), None) or {}
    if not isinstance(spec, dict):
        raise ConfigError(f"{file}: a mapping is expected", "see `dure deploy --help`")
    unknown = set(spec) - _KNOWN
    if unknown:
        raise ConfigError(f"{file}: unknown field {sorted(unknown)[0]!r}", f"known are {', '.join(sorted(_KNOWN))}")
    entries, named = _listed(spec, "images", file), _listed(spec, "manifests", file)
    images = _found_images(folder) if entries is None else [_image(folder, file, entry) for entry in entries]
    files = _default_manifests(folder) if named is None else [folder / str(name) for name in named]
    return Application(
        name=str(spec.get("name") or folder.resolve().name),
        folder=folder,
        namespace=str(spec.get("namespace") or "default"),
        images=tuple(images),
        objects=_objects(files, folder),
    )


def _listed(spec: dict[str, Any], field: str, file: Path) -> list[Any] | None:
    value = spec.get(field)
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{file}: {field} is {value!r}", f"a list is expected, as {field}: [{_first_of(value)}]")
    return value


def _first_of(value: Any) -> str:
    return value if isinstance(value, str) else "…"


def _image(folder: Path, file: Path, entry: Any) -> ImageSource:
    fits = isinstance(entry, dict) and entry.get("name") and not set(entry) - _KNOWN_IMAGE
    if not fits or not isinstance(entry.get("args") or {}, dict):
        raise ConfigError(
            f"{file}: image {entry!r} is not understood", f"its fields: {', '.join(sorted(_KNOWN_IMAGE))}"
        )
    context = folder / str(entry.get("context") or ".")
    dockerfile = str(entry.get("dockerfile") or "Dockerfile")
    if not (context / dockerfile).exists():
        raise ConfigError(f"{file}: image {entry['name']}: there is no {context / dockerfile}")
    args = {str(key): str(value) for key, value in (entry.get("args") or {}).items()}
    return ImageSource(str(entry["name"]), context, dockerfile, str(entry.get("target") or ""), args)


def _plain(folder: Path, files: list[Path]) -> Application:
    return Application(folder.resolve().name, folder, "default", tuple(_found_images(folder)), _objects(files, folder))


def _only_named_images(app: Application) -> Application:
    """A manifest given by itself says nothing of the folders beside it, but for those whose image it names."""
    named = {bare_name(image) for obj in app.objects for image in images_in(obj)}
    return replace(app, images=tuple(source for source in app.images if source.name in named))


def _found_images(folder: Path) -> list[ImageSource]:
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [ImageSource(place.resolve().name, place) for place in places if (place / "Dockerfile").exists()]


def _default_manifests(folder: Path) -> list[Path]:
    for name in ("k8s", "manifests", "deploy"):
        if (folder / name).is_dir():
            return [folder / name]
    return [path for path in sorted(folder.glob("*.y*ml")) if path.name != "dure.yaml"]


def _objects(files: list[Path], folder: Path) -> tuple[Obj, ...]:
    found = [obj for file in files for path in _expand(file) for obj in _read_manifest(path)]
    if not found:
        where = ", ".join(str(file) for file in files) or str(folder)
        raise ConfigError(f"no manifests in {where}", "put Kubernetes manifests there, or name them in dure.yaml")
    return tuple(sorted(found, key=lambda obj: _rank(str(obj["kind"]))))


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _expand(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(item for item in path.rglob("*") if item.suffix in (".yaml", ".yml", ".json"))
    elif path.exists():
        yield path
    else:
        raise ConfigError(f"there is no {path}")


def _documents(path: Path) -> Iterator[Any]:
    try:
        yield from yaml.safe_load_all(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {_where(error)}") from error


def _where(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """In one line: where and what."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'not understood'}"


def _read_manifest(path: Path) -> Iterator[Obj]:
    for document in _documents(path):
        if isinstance(document, dict) and document.get("kind") == "List":
            for item in document.get("items") or []:
                yield _checked(item, path)
        elif document is not None:
            yield _checked(document, path)


def _checked(document: Any, path: Path) -> Obj:
    if not isinstance(document, dict) or not document.get("kind") or not document.get("apiVersion"):
        raise ConfigError(f"{path}: not a Kubernetes object: apiVersion and kind are missing")
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        raise ConfigError(f"{path}: {document['kind']} without metadata.name")
    return document


def images_in(value: Any) -> set[str]:
    """Every image that an object names."""
    if isinstance(value, dict):
        here = {value["image"]} if isinstance(value.get("image"), str) else set()
        return here.union(*(images_in(item) for item in value.values()))
    return set().union(*(images_in(item) for item in value)) if isinstance(value, list) else set()


def with_images(obj: Obj, built: Mapping[str, str]) -> Obj:
    """The object with the names of built images replaced by exactly what was built."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: _swap(item, built) if key == "image" else walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return dict(walk(obj))


def _swap(image: Any, built: Mapping[str, str]) -> Any:
    if not isinstance(image, str):
        return image
    return built.get(image.split("@")[0]) or built.get(bare_name(image), image)


def bare_name(image: str) -> str:
    """Without tag and digest."""
    name = image.split("@")[0]
    head, _, tag = name.rpartition(":")
    return head if head and "/" not in tag else name
