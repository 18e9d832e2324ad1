"""Services and names as pods and the host see them."""

from __future__ import annotations

import urllib.request
from collections import Counter

from tests.e2e.test_pods import wait_ready
from tests.support.platform import Platform, eventually

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox
        command: [sh, -c, 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: %d, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: asker, image: busybox, command: [sleep, "1000"]}]
"""


def fetch(url: str) -> str:
    return urllib.request.urlopen(url, timeout=5).read().decode().strip()


def test_a_service_by_every_way(platform: Platform, namespace: str) -> None:
    port = platform.offset + 19080
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=WEB % port)
    platform.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=90s")
    wait_ready(platform, namespace, "pod/asker")
    names = {pod["metadata"]["name"] for pod in platform.get("-n", namespace, "pods", "-l", "app=web")["items"]}

    def ask(*command: str) -> str:
        return platform.out("-n", namespace, "exec", "asker", "--", *command)

    assert eventually(lambda: ask("wget", "-qO-", "http://web")) in names
    assert ask("wget", "-qO-", f"http://web.{namespace}.svc.cluster.local") in names
    addresses = {pod["status"]["podIP"] for pod in platform.get("-n", namespace, "pods", "-l", "app=web")["items"]}
    looked_up = eventually(lambda: ask("nslookup", f"peers.{namespace}.svc.cluster.local"))
    assert all(address in looked_up for address in addresses)

    service = platform.get("-n", namespace, "service", "web")
    seen = Counter(fetch(f"http://{service['spec']['clusterIP']}/") for _ in range(40))
    assert set(seen) == names

    outside = eventually(
        lambda: platform.get("-n", namespace, "service", "outside")["status"]["loadBalancer"]["ingress"]
    )
    assert outside[0]["ip"] == "127.0.0.1"
    assert eventually(lambda: fetch(f"http://127.0.0.1:{port}/")) in names
    node_port = platform.get("-n", namespace, "service", "outside")["spec"]["ports"][0]["nodePort"]
    for node in platform.get("nodes")["items"]:
        address = next(item["address"] for item in node["status"]["addresses"] if item["type"] == "InternalIP")
        assert fetch(f"http://{address}:{node_port}/") in names


def test_api_is_reachable_from_a_pod_with_its_own_token(platform: Platform, namespace: str) -> None:
    platform.kubectl(
        "-n", namespace, "create", "rolebinding", "me", "--clusterrole=view", f"--serviceaccount={namespace}:default"
    )
    script = (
        "import json,ssl,urllib.request;"
        "d='/var/run/secrets/kubernetes.io/serviceaccount/';"
        "c=ssl.create_default_context(cafile=d+'ca.crt');"
        "r=urllib.request.Request('https://kubernetes.default.svc/api/v1/namespaces/'+open(d+'namespace').read()+'/pods',"
        "headers={'Authorization':'Bearer '+open(d+'token').read()});"
        "print(json.load(urllib.request.urlopen(r,context=c))['kind'])"
    )
    platform.kubectl(
        "-n", namespace, "run", "inside", "--image=python:3.11-slim", "--restart=Never", "--", "python3", "-c", script
    )
    eventually(
        lambda: platform.get("-n", namespace, "pod", "inside")["status"]["phase"] in ("Succeeded", "Failed"), within=90
    )
    assert platform.out("-n", namespace, "logs", "inside") == "PodList"
