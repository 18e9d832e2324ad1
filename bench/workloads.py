"""The objects the benchmarks make."""

from __future__ import annotations

from typing import Any

from dure.core.json import dumps

Obj = dict[str, Any]


def pod(name: str, image: str, command: list[str], **spec: Any) -> Obj:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


def config_map(name: str, filling: int = 700) -> Obj:
    """A kilobyte as it is stored."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"value": "x" * filling},
    }


def config_map_bytes(name: str, filling: int = 700) -> bytes:
    return dumps(config_map(name, filling))


def web(name: str, image: str) -> list[Obj]:
    """A Deployment of one server, and its Service."""
    serve = f"mkdir -p /tmp/www && echo {name} > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"
    template = pod(name, image, ["sh", "-c", serve])
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]


def caller(name: str, image: str, url: str) -> Obj:
    """A pod that ends well once `url` answers it."""
    ask = f"until wget -q -O - {url} >/dev/null 2>&1; do usleep 10000 || sleep 0.01; done"
    return pod(name, image, ["sh", "-c", ask], restartPolicy="Never")


def is_running(obj: Obj) -> bool:
    return bool((obj.get("status") or {}).get("phase") == "Running")


def is_node_ready(obj: Obj) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
