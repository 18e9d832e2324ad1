"""Pods as the world writes them: real containers, unmodified manifests."""

from __future__ import annotations

import json
import time
import urllib.request

from tests.support.platform import Platform, eventually

NGINX = """
apiVersion: v1
kind: Pod
metadata:
  name: nginx
spec:
  containers:
  - name: nginx
    image: nginx:1.7.9
    ports:
    - containerPort: 8090
"""

SIDECAR = """
apiVersion: v1
kind: Pod
metadata: {name: logs}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'i=0; while true; do echo "line $i" >> /var/log/app.log; i=$((i+1)); sleep 0.2; done']
    volumeMounts: [{name: shared, mountPath: /var/log}]
  - name: collector
    image: busybox
    command: [sh, -c, 'touch /in/app.log; tail -n +1 -f /in/app.log']
    volumeMounts: [{name: shared, mountPath: /in}]
"""

TALKERS = """
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: busybox
    command: [sh, -c, 'mkdir /www; echo hello from next door > /www/index.html; httpd -f -p 8080 -h /www']
  - name: client
    image: busybox
    command: [sh, -c, 'while true; do wget -qO- http://localhost:8080/ && sleep 1000; sleep 0.2; done']
"""


def wait_ready(platform: Platform, namespace: str, *what: str) -> None:
    platform.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=90s", *what)


def test_nginx_manifest_runs_unmodified(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=NGINX)
    wait_ready(platform, namespace, "pod/nginx")
    pod = platform.get("-n", namespace, "pod", "nginx")
    assert pod["status"]["phase"] == "Running"
    page = urllib.request.urlopen(f"http://{pod['status']['podIP']}/", timeout=5).read()
    assert b"nginx" in page.lower()
    events = platform.out("-n", namespace, "events", "--for", "pod/nginx")
    assert "local stand-in built from Debian packages" in events


def test_same_pod_by_run_and_as_json(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "run", "one", "--image=nginx:1.7.9", "--port=8090")
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "two"},
        "spec": {"containers": [{"name": "nginx", "image": "nginx:1.7.9", "ports": [{"containerPort": 8090}]}]},
    }
    platform.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(body))
    wait_ready(platform, namespace, "pod/one", "pod/two")


def test_containers_of_a_pod_talk_over_localhost(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=TALKERS)
    wait_ready(platform, namespace, "pod/pair")
    said = eventually(lambda: platform.out("-n", namespace, "logs", "pair", "-c", "client"))
    assert said == "hello from next door"


def test_sidecar_collects_logs_over_a_shared_volume(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=SIDECAR)
    wait_ready(platform, namespace, "pod/logs")
    lines = eventually(lambda: platform.out("-n", namespace, "logs", "logs", "-c", "collector").splitlines()[:3])
    assert lines[0] == "line 0"


def test_container_that_exits_is_restarted_and_says_why(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "run", "fails", "--image=busybox", "--", "sh", "-c", "echo sorry; exit 3")
    status = eventually(
        lambda: next(
            item
            for item in platform.get("-n", namespace, "pod", "fails")["status"]["containerStatuses"]
            if item["restartCount"] >= 1 and item["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ),
        within=60,
    )
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["reason"] == "Error"
    assert platform.out("-n", namespace, "logs", "fails", "--previous") == "sorry"


def test_unknown_image_says_what_is_wrong(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "run", "nope", "--image=localhost:1/no/such:image")
    waiting = eventually(
        lambda: platform.get("-n", namespace, "pod", "nope")["status"]["containerStatuses"][0]["state"]["waiting"],
        within=60,
    )
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "localhost:1/no/such:image" in waiting["message"]


def test_command_that_is_not_there(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "run", "typo", "--image=busybox", "--restart=Never", "--", "no-such-command")
    state = eventually(
        lambda: platform.get("-n", namespace, "pod", "typo")["status"]["containerStatuses"][0]["state"]["terminated"]
    )
    assert state["exitCode"] in (127, 128)
    assert "no-such-command" in state["message"]


def test_job_completes_and_its_pods_stay_for_their_logs(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "create", "job", "once", "--image=busybox", "--", "echo", "done and dusted")
    platform.kubectl("-n", namespace, "wait", "--for=condition=complete", "--timeout=60s", "job/once")
    assert platform.out("-n", namespace, "logs", "job/once") == "done and dusted"


def test_configuration_reaches_the_container(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "create", "configmap", "settings", "--from-literal=colour=green")
    platform.kubectl("-n", namespace, "create", "secret", "generic", "keys", "--from-literal=token=t0ps3cret")
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=CONFIGURED)
    wait_ready(platform, namespace, "pod/configured")
    said = platform.out("-n", namespace, "logs", "configured").splitlines()
    assert said == ["green t0ps3cret", "configured", "green", "t0ps3cret", "tier=back"]
    platform.kubectl("-n", namespace, "patch", "configmap", "settings", "-p", '{"data": {"colour": "blue"}}')
    read = ("-n", namespace, "exec", "configured", "--", "cat", "/etc/settings/colour")
    eventually(lambda: platform.out(*read) == "blue", within=60)


CONFIGURED = """
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tier: back}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: settings, configMap: {name: settings}}
  - name: all
    projected:
      sources:
      - {secret: {name: keys}}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  containers:
  - name: app
    image: busybox
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    command: [sh, -c]
    args:
    - |
      echo $(COLOUR) $(TOKEN); echo $ME; cat /etc/settings/colour; echo
      cat /all/token; echo; sed 's/"//g' /all/labels; echo
      sleep 1000
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: all, mountPath: /all}
"""


def test_limits_are_in_force(platform: Platform, namespace: str) -> None:
    manifest = """
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: python:3.11-slim
    command: [python, -c, 'x = bytearray(200 << 20); print(len(x))']
    resources: {limits: {memory: 48Mi, cpu: 500m}}
"""
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=manifest)
    ended = eventually(
        lambda: platform.get("-n", namespace, "pod", "hungry")["status"]["containerStatuses"][0]["state"]["terminated"],
        within=120,
    )
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_graceful_stop_runs_the_handler(platform: Platform, namespace: str) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    platform.kubectl("-n", namespace, "run", "polite", "--image=busybox", "--", "sh", "-c", script)
    wait_ready(platform, namespace, "pod/polite")
    began = time.monotonic()
    platform.kubectl("-n", namespace, "delete", "pod", "polite")
    assert time.monotonic() - began < 15
