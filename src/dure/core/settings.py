"""Where a platform lives and which addresses it takes; one frozen value handed down from the command line.

Names and ports are contracts: default addresses on 127.0.0.1, moved together by `port_offset`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dure.core.errors import ConfigError
from dure.core.json import dumps, loads

ROOT_HOME = Path("/var/lib/dure")


def default_home() -> Path:
    """`$DURE_HOME`, else /var/lib/dure for root, else ~/.local/share/dure."""
    named = os.environ.get("DURE_HOME")
    if named:
        return Path(named).absolute()
    return ROOT_HOME if os.geteuid() == 0 else Path.home() / ".local/share/dure"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `dure up` can be told. Networks are CIDR texts."""

    home: str
    nodes: int = 2
    port_offset: int = 0
    listen: str = "127.0.0.1"
    cluster_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"
    link_cidr: str = "10.243.0.0/24"
    cluster_domain: str = "cluster.local"
    stand_ins: bool = False
    containers: bool = True
    simulated_nodes: int = 0
    merge_kubeconfig: bool = True

    @property
    def path(self) -> Path:
        return Path(self.home)

    @property
    def instance(self) -> str:
        """Prefix of every global name on this machine: links, namespaces, tables, cgroups."""
        if self.path == ROOT_HOME:
            return "dure"
        return "dure-" + hashlib.sha256(self.home.encode()).hexdigest()[:4]

    @property
    def api_port(self) -> int:
        return 6443 + self.port_offset

    @property
    def api_url(self) -> str:
        return f"https://{self.listen}:{self.api_port}"

    @property
    def link_host(self) -> str:
        """The host's own address on the link to its nodes; pods reach the API there."""
        return str(ipaddress.ip_network(self.link_cidr)[1])

    @property
    def api_service_ip(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def dns_ip(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[10])

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    @property
    def pki_dir(self) -> Path:
        return self.path / "pki"

    @property
    def log_dir(self) -> Path:
        return self.path / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def context(self) -> str:
        """The kubeconfig context: `dure`, or the instance's name beside it."""
        return self.instance

    @property
    def agent_socket(self) -> Path:
        return self.run_dir / "agent.sock"

    def node_names(self) -> list[str]:
        count = self.nodes if self.containers else 0
        real = [f"dure-{index}" for index in range(1, count + 1)]
        return real + [f"sim-{index}" for index in range(1, self.simulated_nodes + 1)]

    def check(self) -> None:
        """Raises ConfigError, naming the setting and what would be right."""
        networks = {}
        for name in ("cluster_cidr", "service_cidr", "link_cidr"):
            text = getattr(self, name)
            try:
                networks[name] = ipaddress.IPv4Network(text)
            except ValueError as error:
                raise ConfigError(f"{name} {text!r} is not an IPv4 network: {error}") from error
        pairs = [("cluster_cidr", "service_cidr"), ("cluster_cidr", "link_cidr"), ("service_cidr", "link_cidr")]
        for left, right in pairs:
            if networks[left].overlaps(networks[right]):
                raise ConfigError(f"{left} {networks[left]} and {right} {networks[right]} overlap")
        if networks["cluster_cidr"].prefixlen > 22:
            raise ConfigError(f"cluster_cidr {networks['cluster_cidr']} is too small: give a /22 or wider")
        if networks["service_cidr"].prefixlen > 24:
            raise ConfigError(f"service_cidr {networks['service_cidr']} is too small: give a /24 or wider")
        if not 0 <= self.nodes <= 16:
            raise ConfigError(f"--nodes {self.nodes}: from 0 to 16 local nodes")
        if self.containers and self.nodes == 0 and self.simulated_nodes == 0:
            raise ConfigError("--nodes 0 leaves no node to run on", "add --simulated-nodes or --no-containers")
        if not 0 <= self.port_offset <= 50000:
            raise ConfigError(f"--port-offset {self.port_offset}: from 0 to 50000")

    def save(self) -> None:
        """Write to the data folder, for the daemons and for the next `dure up`."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / "settings.json"
        scratch = target.with_suffix(".tmp")
        scratch.write_bytes(dumps(asdict(self)))
        scratch.rename(target)

    @staticmethod
    def load(home: Path) -> Settings | None:
        """What the platform in this data folder was last started with; raises ConfigError when it cannot be told."""
        file = home / "settings.json"
        try:
            data = loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}", "choose a data folder: --home") from error
        except ValueError as error:
            raise ConfigError(f"{file} is damaged: {error}", _AFRESH.format(file)) from error
        return Settings(**{**_known(data, file), "home": str(home)})


_AFRESH = "rm {}; then `dure up` with the options it had"


def _known(data: Any, file: Path) -> dict[str, Any]:
    """The fields that are settings, each of its type; others are a newer version's."""
    if not isinstance(data, dict):
        raise ConfigError(f"{file} is damaged: not a mapping", _AFRESH.format(file))
    like = asdict(Settings(""))
    known = {name: value for name, value in data.items() if name in like}
    for name, value in known.items():
        if type(value) is not type(like[name]):
            raise ConfigError(f"{file} is damaged: {name} is {value!r}", _AFRESH.format(file))
    return known
