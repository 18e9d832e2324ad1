"""Which user a container runs as: names and numbers through the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dure.core.json import Obj
from dure.node.confined import read_inside
from dure.node.pods.environment import ConfigFailure

FILE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The two files, parsed. Lines that make no sense are passed over."""

    users: tuple[tuple[str, int, int, str], ...] = ()
    """(name, uid, gid, home)."""
    groups: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """(name, gid, members)."""

    @staticmethod
    def of_rootfs(root: Path | str) -> Accounts:
        return Accounts(_users(_text(root, "/etc/passwd")), _groups(_text(root, "/etc/group")))

    def supplementary(self, name: str) -> tuple[int, ...]:
        return tuple(gid for _, gid, members in self.groups if name in members)


def _text(root: Path | str, path: str) -> str:
    return (read_inside(root, path, FILE_LIMIT) or b"").decode(errors="replace")


def _users(text: str) -> tuple[tuple[str, int, int, str], ...]:
    found = []
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 6 and parts[2].isdigit() and parts[3].isdigit():
            found.append((parts[0], int(parts[2]), int(parts[3]), parts[5] or "/"))
    return tuple(found)


def _groups(text: str) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    found = []
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and parts[2].isdigit():
            found.append((parts[0], int(parts[2]), tuple(parts[3].split(","))))
    return tuple(found)


def resolve_user(pod: Obj, container: Obj, image_user: str, accounts: Accounts) -> User:
    """The container's user from its security context, the pod's, then the image. Raises ConfigFailure."""
    pod_context = pod["spec"].get("securityContext") or {}
    context = {**pod_context, **(container.get("securityContext") or {})}
    user_text, _, group_text = image_user.partition(":")
    wanted = context.get("runAsUser")
    if wanted is not None:
        user_text = str(wanted)
        group_text = ""
    name, uid, gid, home = _lookup(user_text, accounts)
    if group_text:
        gid = _group(group_text, accounts)
    if (run_as_group := context.get("runAsGroup")) is not None:
        gid = int(run_as_group)
    if context.get("runAsNonRoot"):
        _refuse_root(wanted, user_text, uid, pod, container)
    return User(uid, gid, _supplementary(pod_context, accounts.supplementary(name) if name else (), gid), home)


def _supplementary(pod_context: Obj, of_image: tuple[int, ...], gid: int) -> tuple[int, ...]:
    groups = list(of_image) if pod_context.get("supplementalGroupsPolicy") != "Strict" else []
    groups += [int(group) for group in pod_context.get("supplementalGroups") or []]
    if (fs_group := pod_context.get("fsGroup")) is not None:
        groups.append(int(fs_group))
    return tuple(dict.fromkeys(group for group in groups if group != gid))


def _lookup(text: str, accounts: Accounts) -> tuple[str, int, int, str]:
    if not text:
        text = "0"
    if text.isdigit():
        number = int(text)
        known = next((user for user in accounts.users if user[1] == number), None)
        return known if known is not None else ("", number, 0, "/")
    known = next((user for user in accounts.users if user[0] == text), None)
    if known is None:
        raise ConfigFailure(f"unable to find user {text}: no matching entries in passwd file")
    return known


def _group(text: str, accounts: Accounts) -> int:
    if text.isdigit():
        return int(text)
    known = next((gid for name, gid, _ in accounts.groups if name == text), None)
    if known is None:
        raise ConfigFailure(f"unable to find group {text}: no matching entries in group file")
    return known


def _refuse_root(wanted: object, user_text: str, uid: int, pod: Obj, container: Obj) -> None:
    where = f'pod: "{pod["metadata"]["name"]}_{pod["metadata"].get("namespace", "")}({pod["metadata"].get("uid", "")})"'
    if wanted is not None and int(str(wanted)) == 0:
        raise ConfigFailure(f"container's runAsUser breaks non-root policy ({where}, container: {container['name']})")
    if wanted is None and user_text and not user_text.isdigit():
        raise ConfigFailure(
            f"container has runAsNonRoot and image has non-numeric user ({user_text}), "
            f"cannot verify user is non-root ({where}, container: {container['name']})"
        )
    if uid == 0:
        raise ConfigFailure(
            f"container has runAsNonRoot and image will run as root ({where}, container: {container['name']})"
        )
