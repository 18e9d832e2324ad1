"""Everyday kubectl, in each version that is here."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.support.platform import Platform, eventually


def test_everyday_commands(platform: Platform, namespace: str, any_kubectl: str, tmp_path: Path) -> None:
    def k(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = platform.kubectl("-n", namespace, *arguments, binary=any_kubectl, stdin=stdin, check=check)
        return (done.stdout + ("" if check else done.stderr)).strip()

    assert "created" in k("create", "deployment", "web", "--image=busybox", "--", "sleep", "1000")
    assert "successfully rolled out" in k("rollout", "status", "deployment/web", "--timeout=60s")
    k("label", "deployment", "web", "tier=front")
    k("annotate", "deployment", "web", "note=hello")
    assert k("get", "deployment", "-l", "tier=front", "-o", "jsonpath={.items[*].metadata.annotations.note}") == "hello"
    k("scale", "deployment/web", "--replicas=2")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    k("set", "image", "deployment/web", "busybox=busybox:1.36")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    k("rollout", "undo", "deployment/web")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    assert k("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}") == "busybox"
    k("rollout", "restart", "deployment/web")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    assert "REVISION" in k("rollout", "history", "deployment/web")

    k("expose", "deployment", "web", "--port=80")
    wide = k("get", "pods", "-o", "wide")
    assert re.search(r"web-\S+\s+1/1\s+Running\s+0\s+\S+\s+\d+\.\d+\.\d+\.\d+\s+dure-\d", wide)
    described = k("describe", "deployment", "web")
    assert "NewReplicaSet:" in described
    assert "ScalingReplicaSet" in described

    k("create", "configmap", "c", "--from-literal=a=b")
    k("create", "secret", "generic", "s", "--from-literal=a=b")
    k("create", "job", "j", "--image=busybox", "--", "true")
    k("wait", "--for=condition=complete", "job/j", "--timeout=60s")
    changed = k("get", "configmap", "c", "-o", "yaml").replace("a: b", "a: c")
    assert "-  a: b" in k("diff", "-f", "-", stdin=changed, check=False)
    assert "replaced" in k("replace", "-f", "-", stdin=changed)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/a: c/a: d/' \"$1\"\n")
    editor.chmod(0o755)
    done = subprocess.run(
        [any_kubectl, "-n", namespace, "edit", "configmap", "c"],
        env={**platform.environment(), "KUBE_EDITOR": str(editor)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "edited" in done.stdout
    assert k("get", "configmap", "c", "-o", "jsonpath={.data.a}") == "d"

    assert k("auth", "can-i", "create", "pods") == "yes"
    assert "dure-admin" in k("auth", "whoami")
    assert "FIELDS" in k("explain", "pod.spec").upper()
    assert "deployments" in k("api-resources", "--api-group=apps")
    assert "ScalingReplicaSet" in k("events")
    k("delete", "deployment", "web")
    pods = ("get", "pods", "-l", "app=web", "-o", "json")
    eventually(lambda: all("deletionTimestamp" in pod["metadata"] for pod in json.loads(k(*pods))["items"]))


def test_server_side_apply_and_conflict(platform: Platform, namespace: str, any_kubectl: str) -> None:
    def apply(value: str, manager: str, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{a: {value}}}\n"
        return platform.kubectl(
            "-n", namespace, "apply", "--server-side", f"--field-manager={manager}", *more, "-f", "-",
            stdin=text, binary=any_kubectl, check=check,
        )  # fmt: skip

    apply("one", "first")
    refused = apply("two", "second", check=False)
    assert 'conflict with "first"' in refused.stderr
    apply("two", "second", "--force-conflicts")
    assert platform.out("-n", namespace, "get", "configmap", "c", "-o", "jsonpath={.data.a}") == "two"


def test_streams_into_containers(platform: Platform, namespace: str, any_kubectl: str, tmp_path: Path) -> None:
    def k(*arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return platform.kubectl("-n", namespace, *arguments, binary=any_kubectl, stdin=stdin, check=check)

    script = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.5; done"
    k("run", "box", "--image=busybox", "--", "sh", "-c", script)
    k("wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
    assert k("exec", "box", "--", "echo", "hi").stdout == "hi\n"
    assert k("exec", "-i", "box", "--", "cat", stdin="over and back").stdout == "over and back"
    failed = k("exec", "box", "--", "sh", "-c", "echo oops >&2; exit 3", check=False)
    assert (failed.returncode, "oops" in failed.stderr) == (3, True)
    assert k("logs", "box", "--tail=1").stdout.startswith("tick ")

    source = tmp_path / "file"
    source.write_bytes(os.urandom(200_000))
    back = tmp_path / "back"
    k("cp", str(source), f"{namespace}/box:/tmp/file")
    k("cp", f"{namespace}/box:/tmp/file", str(back))
    assert back.read_bytes() == source.read_bytes()

    follower = subprocess.Popen(
        [any_kubectl, "-n", namespace, "logs", "-f", "box"],
        env=platform.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(2)] == ["tick 0\n", "tick 1\n"]
    follower.kill()
    follower.wait()


def test_port_forward(platform: Platform, namespace: str, any_kubectl: str) -> None:
    script = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"
    platform.kubectl("-n", namespace, "run", "web", "--image=busybox", "--", "sh", "-c", script)
    platform.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    forward = subprocess.Popen(
        [any_kubectl, "-n", namespace, "port-forward", "pod/web", ":8080"],
        env=platform.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        line = forward.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert port, line
        for _ in range(3):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=10).read() == b"page\n"
    finally:
        forward.kill()
        forward.wait()


def test_terminal(platform: Platform, namespace: str, any_kubectl: str) -> None:
    """`exec -it` in a real terminal."""
    platform.kubectl("-n", namespace, "run", "box", "--image=busybox", "--", "sleep", "1000")
    platform.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [any_kubectl, "-n", namespace, "exec", "-it", "box", "--", "sh"],
        env=platform.environment(), stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    said = b""
    os.write(master, b"echo $((40+2)); tty; exit 5\n")
    deadline = time.monotonic() + 20
    while shell.poll() is None and time.monotonic() < deadline:
        try:
            said += os.read(master, 4096)
        except OSError:
            break
    assert shell.wait(timeout=10) == 5
    os.close(master)
    assert b"42" in said
    assert b"/dev/pts/" in said
