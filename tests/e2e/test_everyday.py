"""What a new user meets in the first hour: what objects and commands say, and that nothing is left half-done."""

from __future__ import annotations

from pathlib import Path

from tests.support.platform import Platform

READY_POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
    - name: web
      image: busybox:1.36
      command: [sh, -c, "echo hi > /index.html; httpd -f -p 8080 -h /"]
      readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
"""

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.everyday.example}
spec:
  group: everyday.example
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: everyday.example/v1
kind: Widget
metadata: {name: one}
"""

HALF_WRONG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: fine}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: wrong}
dota: {a: b}
"""


def test_ready_pod_complains_of_nothing(platform: Platform, namespace: str) -> None:
    """Its conditions kept the reason and message from before it was ready."""
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=READY_POD)
    platform.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    conditions = platform.get("-n", namespace, "pod", "web")["status"]["conditions"]
    assert {(entry["status"], entry.get("reason"), entry.get("message")) for entry in conditions} == {
        ("True", None, None)
    }


def test_described_events_are_in_the_order_of_what_happened(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "apply", "-f", "-", stdin=READY_POD)
    platform.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    text = platform.out("-n", namespace, "describe", "pod", "web").partition("Events:")[2]
    order = [text.index(f" {reason} ") for reason in ("Scheduled", "Pulled", "Created", "Started")]
    assert order == sorted(order)


def test_deploying_custom_kinds_with_their_instances(platform: Platform, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(WIDGETS)
    try:
        platform.dure("deploy", str(tmp_path), "-n", namespace)
        assert platform.out("-n", namespace, "get", "widgets.everyday.example", "-o", "name").endswith("/one")
    finally:
        platform.kubectl("delete", "crd", "widgets.everyday.example", check=False)


def test_deploying_pods_into_a_new_namespace(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(READY_POD)
    try:
        platform.dure("deploy", str(tmp_path), "-n", "everyday-new")
        assert platform.out("-n", "everyday-new", "get", "pods", "-o", "name") == "pod/web"
    finally:
        platform.kubectl("delete", "namespace", "everyday-new", "--wait=false", check=False)


def test_deploying_what_is_half_wrong_applies_nothing(platform: Platform, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "maps.yaml").write_text(HALF_WRONG)
    done = platform.dure("deploy", str(tmp_path), "-n", namespace, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dure: nothing was applied:\n  ConfigMap wrong: ")
    assert 'unknown field "dota"' in done.stderr
    assert "fine" not in platform.out("-n", namespace, "get", "configmaps", "-o", "name")


def test_deploying_an_image_that_cannot_be_had_says_so(platform: Platform, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(READY_POD.replace("busybox:1.36", "nowhere.invalid/x:1"))
    done = platform.dure("deploy", str(tmp_path), "-n", namespace, "--timeout", "5", check=False)
    assert done.returncode == 1
    first, why, look = done.stderr.splitlines()
    assert first == "dure: not ready after 5 s:"
    assert "pod/web Pending (web: " in why
    assert "no such host" in why
    assert f"dure kubectl -n {namespace} describe pods" in look


def test_deploying_a_dockerfile_that_fails_names_it(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(READY_POD.replace("busybox:1.36", "api"))
    (tmp_path / "api").mkdir()
    (tmp_path / "api/Dockerfile").write_text("FROM busybox:1.36\nCOPY nothing /\n")
    done = platform.dure("deploy", str(tmp_path), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"dure: image api ({tmp_path}/api/Dockerfile): Dockerfile line 2: COPY nothing /: ")
