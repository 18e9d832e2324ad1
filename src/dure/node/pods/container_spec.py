"""Turns a `v1.Container` and its image into what the runtime is told. Pure: whatever it needs is passed in.

New privileges (set-user-id programs, file capabilities) are only to be had where the container asks for them:
`allowPrivilegeEscalation: true`, privileged, or the capability SYS_ADMIN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dure.core.json import Obj
from dure.node.pods.accounts import User
from dure.node.pods.environment import expand
from dure.node.ports import ContainerSpec, Image, Mount, Resources, Security

SECCOMP_FOLDER = "/var/lib/kubelet/seccomp"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was worked out for one start of one container before its spec can be written."""

    id: str
    attempt: int
    rootfs: str
    log_path: str
    environment: Mapping[str, str]
    user: User
    mounts: Sequence[Mount]
    resources: Resources
    target_container: str = ""


def make_container_spec(pod: Obj, container: Obj, image: Image, prepared: Prepared) -> ContainerSpec:
    environment = dict(prepared.environment)
    environment.setdefault("HOME", prepared.user.home)
    return ContainerSpec(
        id=prepared.id,
        pod_uid=pod["metadata"]["uid"],
        name=container["name"],
        attempt=prepared.attempt,
        image=image.reference or container.get("image", ""),
        image_id=image.digest or image.id,
        rootfs=prepared.rootfs,
        args=command_line(container, image, environment),
        env=tuple(f"{name}={value}" for name, value in environment.items()),
        working_dir=container.get("workingDir") or image.working_dir or "/",
        log_path=prepared.log_path,
        mounts=in_mount_order(prepared.mounts),
        resources=prepared.resources,
        security=make_security(pod, container, prepared.user),
        tty=bool(container.get("tty")),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        target_container=prepared.target_container,
    )


def command_line(container: Obj, image: Image, environment: Mapping[str, str]) -> tuple[str, ...]:
    """`command` replaces the image's entrypoint and with it its cmd; `args` replaces cmd."""
    command, args = container.get("command") or [], container.get("args") or []
    if command:
        words = [*command, *args]
    elif args:
        words = [*args]
    else:
        return (*image.entrypoint, *image.cmd)
    expanded = [expand(word, environment) for word in words]
    return tuple(expanded) if command else (*image.entrypoint, *expanded)


def in_mount_order(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Outer targets before those inside them; the order of equals is kept."""
    return tuple(sorted(mounts, key=lambda mount: mount.target.rstrip("/").count("/")))


def make_security(pod: Obj, container: Obj, user: User) -> Security:
    own = container.get("securityContext") or {}
    context = {**(pod["spec"].get("securityContext") or {}), **own}
    capabilities = own.get("capabilities") or {}
    added = tuple(_capability(name) for name in capabilities.get("add") or [])
    privileged = bool(own.get("privileged"))
    return Security(
        privileged=privileged,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        add_capabilities=added,
        drop_capabilities=tuple(_capability(name) for name in capabilities.get("drop") or []),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=not (own.get("allowPrivilegeEscalation") or privileged or "SYS_ADMIN" in added),
        seccomp="Unconfined" if privileged else _seccomp(context.get("seccompProfile") or {}),
        unmasked_proc=own.get("procMount") == "Unmasked",
    )


def _capability(name: str) -> str:
    """`NET_ADMIN`, whatever its case or prefix; ALL stays."""
    return name.upper().removeprefix("CAP_")


def _seccomp(profile: Obj) -> str:
    match profile.get("type"):
        case "Unconfined":
            return "Unconfined"
        case "Localhost":
            return f"{SECCOMP_FOLDER}/{profile.get('localhostProfile', '')}"
    return "RuntimeDefault"
