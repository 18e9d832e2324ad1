"""The host's package sources, lent to image builds: which mirror, through which proxy, with which certificates.

Only sources of the host's own distribution release count; others (a vendor's repository) could not be verified or
would not fit inside. What is lent never stays in an image.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dure.images.errors import BaseFailed
from dure.images.locks import locked, replace_file
from dure.images.sandbox import LENT, read_in_root
from dure.images.stand_ins import release_codename

_ETC = Path("/etc/apt")
_COMPONENTS = ("main", "universe")
_FRESH_SECONDS = 12 * 3600
_OPTIONS = re.compile(
    r"Acquire::(?:(?:http|https|ftp|tor)::|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]|Queue-Mode|Allow)"
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_CERTIFICATE_VARIABLES = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_DEFAULTS = {
    "debian": (
        ("http://deb.debian.org/debian", "{0}"),
        ("http://deb.debian.org/debian", "{0}-updates"),
        ("http://deb.debian.org/debian-security", "{0}-security"),
    ),
    "ubuntu": (
        ("http://archive.ubuntu.com/ubuntu", "{0}"),
        ("http://archive.ubuntu.com/ubuntu", "{0}-updates"),
        ("http://security.ubuntu.com/ubuntu", "{0}-security"),
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One line of a sources.list."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def __str__(self) -> str:
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {' '.join(self.components)}"


def parse_one_line(text: str) -> list[Source]:
    """The classic format: `deb [options] uri suite components…`."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match:
            options = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
            found.append(Source(match[2], match[3], tuple(match[4].split()), options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The stanza format of `*.sources` files."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed_by = fields.get("signed-by", "")
        found += [
            Source(uri, suite, tuple(fields.get("components", "").split()), signed_by if "\n" not in signed_by else "")
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def fitting_sources(sources: Iterable[Source], codename: str) -> list[Source]:
    """Those of the release itself, with the components we know, each once."""
    fitting = []
    for source in sources:
        components = tuple(part for part in source.components if part in _COMPONENTS)
        of_release = source.suite == codename or source.suite in (f"{codename}-updates", f"{codename}-security")
        if of_release and components:
            fitting.append(Source(source.uri, source.suite, components, source.signed_by))
    return list(dict.fromkeys(fitting))


def public_sources(codename: str, distribution: str) -> list[Source]:
    """The distribution's public servers."""
    lines = _DEFAULTS.get(distribution, _DEFAULTS["debian"])
    components = _COMPONENTS if distribution == "ubuntu" else _COMPONENTS[:1]
    return [Source(uri, suite.format(codename), components) for uri, suite in lines]


def host_sources() -> list[Source]:
    """What this machine's own apt uses, else the public servers of its release."""
    texts = [_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))]
    sources: list[Source] = []
    for path in texts:
        if path.is_file() and path.suffix in (".list", ".sources"):
            parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
            sources += parse(path.read_text(errors="replace"))
    codename = release_codename()
    return fitting_sources(sources, codename) or public_sources(codename, distribution())


def distribution() -> str:
    """`debian` or `ubuntu`, by os-release."""
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    return "ubuntu" if re.search(r'^ID="?ubuntu', text, re.MULTILINE) else "debian"


async def _host_options() -> list[str]:
    """The host's settings for reaching its sources, as configuration lines."""
    process = await asyncio.create_subprocess_exec("apt-config", "dump", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return [line for line in output.decode(errors="replace").splitlines() if _OPTIONS.match(line)]


def build_environment() -> dict[str, str]:
    """Proxy and certificate variables for a build step; they are not kept in the image."""
    env = {}
    for name in _PROXY_VARIABLES:
        for spelling in (name, name.upper()):
            if os.environ.get(spelling):
                env[spelling] = os.environ[spelling]
    if _lends_certificates():
        env.update(dict.fromkeys(_CERTIFICATE_VARIABLES, f"{LENT}/ca-certificates.crt"))
    return env


def _lends_certificates() -> bool:
    """Whether this machine trusts an authority of its own, as behind a company's proxy."""
    return _CERTIFICATES.exists() and _OWN_CERTIFICATES.is_dir() and any(_OWN_CERTIFICATES.iterdir())


class PackageSources:
    """apt's configuration and package lists in a folder of ours, for this host's apt and for builds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lists = folder / "state" / "lists"
        self.sources = folder / "sources.list"
        self.options = folder / "apt.conf"
        self._inside = folder / "inside.conf"
        self._inside_mirror = folder / "inside-mirror.conf"
        self._inside_only = folder / "inside-only.conf"

    async def configure(self) -> None:
        """Write the configuration only. Raises BaseFailed."""
        if shutil.which("apt-get") is None:
            raise BaseFailed("base images are made from Debian packages, and this machine has no apt-get")
        async with locked(self._folder.parent / "apt.lock"):
            for folder in (self.lists / "partial", self._folder / "cache" / "archives" / "partial"):
                folder.mkdir(parents=True, exist_ok=True)
            await self._write_configuration()

    async def prepare(self) -> None:
        """Write the configuration and bring the package lists up to date. Raises BaseFailed."""
        await self.configure()
        async with locked(self._folder.parent / "apt.lock"):
            stamp = self._folder / "updated"
            text = self.sources.read_text()
            fresh = stamp.exists() and time.time() - stamp.stat().st_mtime < _FRESH_SECONDS
            if not fresh or stamp.read_text() != text:
                await self.run_host("apt-get", "update", "-qq")
                stamp.write_text(text)

    async def configure_if_possible(self) -> None:
        """The same on a host that may have no apt: then builds get no help with it."""
        if shutil.which("apt-config") is not None:
            await self.configure()

    async def _write_configuration(self) -> None:
        options = await _host_options()
        _write(self.sources, [str(source) for source in host_sources()])
        _write(self.options, ['Acquire::Languages "none";', *options])
        inside = list(options)
        if _lends_certificates():
            inside.append(f'Acquire::https::CaInfo "{LENT}/ca-certificates.crt";')
        if any(self._credentials()):
            inside += [f'Dir::Etc::netrc "{LENT}/auth.conf";', f'Dir::Etc::netrcparts "{LENT}/auth.conf.d";']
        list_option = f'Dir::Etc::SourceList "{LENT}/sources.list";'
        _write(self._inside, inside)
        _write(self._inside_mirror, [*inside, list_option])
        _write(self._inside_only, [*inside, list_option, 'Dir::Etc::SourceParts "/dev/null";'])

    def _credentials(self) -> list[Path]:
        folder = _ETC / "auth.conf.d"
        found = [_ETC / "auth.conf"] if (_ETC / "auth.conf").is_file() else []
        return [*found, folder] if folder.is_dir() and any(folder.iterdir()) else found

    def lent_with_lists(self) -> dict[str, str]:
        """For `Command.lent`: packages of the host's sources alone, installed without `apt-get update`."""
        return {**self._lent(self._inside_only), "/var/lib/apt/lists": str(self.lists)}

    def lent_to(self, root: Path) -> dict[str, str]:
        """For `Command.lent` over any image: the host's mirror only if the image is of the host's release."""
        if not self._inside.exists():
            return {}
        release = (read_in_root(root, "etc/os-release") or b"").decode(errors="replace")
        is_ours = re.search(rf'^VERSION_CODENAME="?{re.escape(release_codename())}"?$', release, re.MULTILINE)
        public = {source.uri.rstrip("/") for source in public_sources(release_codename(), distribution())}
        uses_mirror = any(source.uri.rstrip("/") not in public for source in parse_one_line(self.sources.read_text()))
        return self._lent(self._inside_mirror if is_ours and uses_mirror else self._inside)

    def _lent(self, options: Path) -> dict[str, str]:
        lent = {"apt.conf": str(options), "sources.list": str(self.sources)}
        lent.update({path.name: str(path) for path in self._credentials()})
        if _lends_certificates():
            lent["ca-certificates.crt"] = str(_CERTIFICATES)
        return lent

    @staticmethod
    def environment() -> dict[str, str]:
        return {"APT_CONFIG": f"{LENT}/apt.conf", "DEBIAN_FRONTEND": "noninteractive", **build_environment()}

    async def run_host(self, *command: str, folder: Path | None = None) -> str:
        """Run an apt command of the host on our sources and lists; its output. Raises BaseFailed."""
        settings = [
            f"Dir::State={self._folder}/state",
            f"Dir::Cache={self._folder}/cache",
            f"Dir::Etc::SourceList={self.sources}",
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::State::status=/dev/null",
            "APT::Sandbox::User=root",
            "APT::Update::Post-Invoke-Success::=/bin/true",
            "Acquire::Languages=none",
            "Acquire::GzipIndexes=false",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]
        options = [part for setting in settings for part in ("-o", setting)]
        return await run_tool([command[0], *options, *command[1:]], folder=folder)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Replaced as a whole and only when it differs: running builds have the old file mounted."""
    data = "".join(f"{line}\n" for line in lines).encode()
    if not path.exists() or path.read_bytes() != data:
        replace_file(path, data)


async def run_tool(command: Sequence[str], *, folder: Path | None = None) -> str:
    """Run a program of the host to its end; its output. Raises BaseFailed with the last lines."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        tail = "\n".join(text.strip().splitlines()[-15:])
        raise BaseFailed(f"{Path(command[0]).name} failed with exit code {process.returncode}:\n{tail}")
    return text
