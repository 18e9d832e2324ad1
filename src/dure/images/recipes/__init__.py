"""What each base image is made of: packages, a script that sets them up, files, and how it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dure.core.json import Obj
from dure.images.content import digest_of
from dure.images.sandbox import DEFAULT_PATH

_FILES = Path(__file__).parent
_FORGET = "rm -rf /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log /var/log/apt"
_UNWANTED = ("man", "doc", "locale", "info", "lintian", "bug")


@dataclass(frozen=True, slots=True)
class Recipe:
    """`script` runs as root in a shell over the ground, its files at /dev/.build/recipe."""

    name: str
    ground: str = "debian"
    packages: tuple[str, ...] = ()
    set_up: str = ""
    before: str = ""
    files: tuple[str, ...] = ()
    dpkg_options: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    discover: Callable[[Path], dict[str, str]] | None = None
    """Variables that depend on what was installed, read from the layer."""

    @property
    def script(self) -> str:
        install = f"apt-get install -qq -y --no-install-recommends {' '.join(self.packages)}"
        lines = [self.before, install, self.set_up, _FORGET]
        return "\n".join(line for line in lines if line)

    def write_files(self, folder: Path) -> None:
        folder.mkdir()
        for name in self.files:
            shutil.copyfile(_FILES / name, folder / name)

    def run_config(self, layer: Path) -> Obj:
        """The image's `config`, with what only the installed packages tell."""
        env = {"PATH": DEFAULT_PATH, **self.config.get("Env", {})}
        if self.discover is not None:
            env.update(self.discover(layer))
        return {**self.config, "Env": [f"{name}={value}" for name, value in env.items()]}

    def fingerprint(self) -> Obj:
        return {
            "name": self.name,
            "script": self.script if self.ground else list(self.packages),
            "files": {name: digest_of((_FILES / name).read_bytes()) for name in self.files},
            "dpkg": list(self.dpkg_options),
            "config": self.config,
        }


def _postgres_path(layer: Path) -> dict[str, str]:
    versions = sorted((layer / "usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
    major = versions[-1].name
    return {"PG_MAJOR": major, "PATH": f"{DEFAULT_PATH}:/usr/lib/postgresql/{major}/bin"}


_INSTALL = "install -D -m {mode} /dev/.build/recipe/{name} {target}"


def _put(name: str, target: str, mode: str = "644") -> str:
    return _INSTALL.format(mode=mode, name=name, target=target)


_ALL = (
    Recipe("busybox", ground="", packages=("busybox-static",), config={"Cmd": ["sh"]}),
    Recipe(
        "debian",
        ground="",
        packages=("ca-certificates",),
        dpkg_options=("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in _UNWANTED)),
        config={"Cmd": ["bash"]},
    ),
    Recipe(
        "python",
        packages=("python3",),
        set_up="ln -s /usr/bin/python3 /usr/local/bin/python\nln -s /usr/bin/python3 /usr/local/bin/python3",
        config={"Cmd": ["python3"], "Env": {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}},
    ),
    Recipe(
        "node",
        packages=("nodejs",),
        set_up="groupadd --gid 1000 node\nuseradd --uid 1000 --gid node --shell /bin/bash --create-home node",
        config={"Cmd": ["node"]},
    ),
    Recipe(
        "nginx",
        before=(
            "groupadd --system --gid 101 nginx\n"
            "useradd --system --uid 101 --gid nginx --no-create-home --home-dir /nonexistent --shell /bin/false nginx"
        ),
        packages=("nginx-light", "gettext-base"),
        set_up="\n".join(
            (
                "rm -rf /var/www /etc/nginx/sites-enabled /etc/nginx/sites-available /usr/share/nginx/html",
                _put("nginx.conf", "/etc/nginx/nginx.conf"),
                _put("nginx-default.conf", "/etc/nginx/conf.d/default.conf"),
                _put("nginx-index.html", "/usr/share/nginx/html/index.html"),
                _put("nginx-50x.html", "/usr/share/nginx/html/50x.html"),
                _put("nginx-entrypoint.sh", "/docker-entrypoint.sh", "755"),
                "mkdir -p /docker-entrypoint.d /var/cache/nginx",
                "chown nginx: /var/cache/nginx",
                "ln -sf /dev/stdout /var/log/nginx/access.log",
                "ln -sf /dev/stderr /var/log/nginx/error.log",
            )
        ),
        files=("nginx.conf", "nginx-default.conf", "nginx-index.html", "nginx-50x.html", "nginx-entrypoint.sh"),
        config={
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
    ),
    Recipe(
        "postgres",
        before="\n".join(
            (
                "groupadd --system --gid 999 postgres",
                "useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres",
                "install -d -m 755 /etc/postgresql-common",
                "echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf",
            )
        ),
        packages=("postgresql",),
        set_up="\n".join(
            (
                _put("postgres-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", "755"),
                "mkdir -p /docker-entrypoint-initdb.d",
                # the JIT compiler is half of the packages' size; without its library PostgreSQL goes without
                "rm -rf /usr/lib/*/libLLVM* /usr/lib/postgresql/*/lib/llvmjit* /usr/lib/postgresql/*/lib/bitcode",
                "install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data",
                "install -d -o postgres -g postgres -m 3777 /var/run/postgresql",
            )
        ),
        files=("postgres-entrypoint.sh",),
        discover=_postgres_path,
        config={
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "Env": {"LANG": "C.UTF-8", "PGDATA": "/var/lib/postgresql/data"},
            "ExposedPorts": {"5432/tcp": {}},
            "StopSignal": "SIGINT",
            "Volumes": {"/var/lib/postgresql/data": {}},
        },
    ),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
