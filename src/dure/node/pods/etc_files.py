"""The files a node manages inside a pod: /etc/hosts, /etc/hostname, /etc/resolv.conf, in kubelet's wording. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dure.core.json import Obj

HOSTNAME_LIMIT = 63
SEARCH_LIMIT = 32
NAMESERVER_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Resolver:
    """What the node itself has in resolv.conf, and the cluster's DNS."""

    cluster_ip: str
    cluster_domain: str
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def pod_hostname(pod: Obj) -> str:
    if override := pod["spec"].get("hostnameOverride"):
        return str(override)
    name = str(pod["spec"].get("hostname") or pod["metadata"]["name"])
    return name[:HOSTNAME_LIMIT].rstrip("-.")


def uts_hostname(pod: Obj, cluster_domain: str) -> str:
    """What `hostname` prints: with `setHostnameAsFQDN` the whole name."""
    domain = pod_domain(pod, cluster_domain)
    if domain and pod["spec"].get("setHostnameAsFQDN"):
        return f"{pod_hostname(pod)}.{domain}"
    return pod_hostname(pod)


def pod_domain(pod: Obj, cluster_domain: str) -> str:
    """The fully qualified rest after the hostname, empty without a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{subdomain}.{pod['metadata'].get('namespace', '')}.svc.{cluster_domain}" if subdomain else ""


def hosts_file(pod: Obj, ip: str, cluster_domain: str) -> str:
    hostname, domain = pod_hostname(pod), pod_domain(pod, cluster_domain)
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        f"{ip}\t{hostname}.{domain}\t{hostname}" if domain else f"{ip}\t{hostname}",
    ]
    return "\n".join(lines) + "\n" + _aliases(pod)


def host_network_hosts_file(pod: Obj, of_host: str) -> str:
    return "# Kubernetes-managed hosts file (host network).\n" + of_host + _aliases(pod)


def _aliases(pod: Obj) -> str:
    aliases = pod["spec"].get("hostAliases") or []
    if not aliases:
        return ""
    lines = [f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or []) for alias in aliases]
    return "\n# Entries added by HostAliases.\n" + "\n".join(lines) + "\n"


def resolv_conf(pod: Obj, resolver: Resolver) -> str:
    """By dnsPolicy and dnsConfig."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pod["spec"].get("hostNetwork"):
        policy = "Default"
    namespace, domain = pod["metadata"].get("namespace", ""), resolver.cluster_domain
    match policy:
        case "ClusterFirst" | "ClusterFirstWithHostNet":
            nameservers = [resolver.cluster_ip]
            searches = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *resolver.searches]
            options = {"ndots": "5"}
        case "None":
            nameservers, searches, options = [], [], {}
        case _:
            nameservers, searches = list(resolver.nameservers), list(resolver.searches)
            options = dict(_option(text) for text in resolver.options)
    return _render(nameservers, searches, options, pod["spec"].get("dnsConfig") or {})


def _render(nameservers: list[str], searches: list[str], options: dict[str, str], config: Obj) -> str:
    nameservers = _unique([*nameservers, *(config.get("nameservers") or [])])[:NAMESERVER_LIMIT]
    searches = _unique([*searches, *(config.get("searches") or [])])[:SEARCH_LIMIT]
    merged: Mapping[str, str] = {
        **options,
        **{entry["name"]: entry.get("value") or "" for entry in config.get("options") or []},
    }
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {address}" for address in nameservers]
    if merged:
        lines.append("options " + " ".join(f"{name}:{value}" if value else name for name, value in merged.items()))
    return "\n".join(lines) + "\n"


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, value


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def parse_resolv_conf(text: str, cluster_ip: str, cluster_domain: str) -> Resolver:
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        word, *rest = line.split("#", 1)[0].split() or [""]
        if word == "nameserver" and rest:
            nameservers.append(rest[0])
        elif word == "search":
            searches = rest
        elif word == "options":
            options = rest
    return Resolver(cluster_ip, cluster_domain, tuple(nameservers), tuple(searches), tuple(options))
