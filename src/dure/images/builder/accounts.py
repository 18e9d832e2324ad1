"""Users and groups of an image, by its own /etc/passwd and /etc/group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dure.images.errors import BuildFailed
from dure.images.sandbox import read_in_root


@dataclass(frozen=True, slots=True)
class Account:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


def find_account(root: Path, text: str) -> Account:
    """`user[:group]`, each a name or a number, in the tree at `root`. Raises BuildFailed."""
    if not text:
        return Account()
    user, _, group = text.partition(":")
    entry = next((row for row in _rows(root, "etc/passwd", 7) if user in (row[0], row[2])), None)
    if entry is None and not user.isdigit():
        raise BuildFailed(f"unable to find user {user}: no matching entry in the image's /etc/passwd")
    uid = int(entry[2]) if entry else int(user)
    gid = _find_group(root, group) if group else int(entry[3]) if entry else 0
    rows = _rows(root, "etc/group", 4)
    members = () if group or entry is None else tuple(int(row[2]) for row in rows if entry[0] in row[3].split(","))
    return Account(uid, gid, members, (entry[5] if entry else "") or "/")


def find_owner(root: Path, text: str) -> tuple[int, int]:
    """`--chown`'s user and group; without a group it is the user's number. Raises BuildFailed."""
    if not text:
        return 0, 0
    user, _, group = text.partition(":")
    uid = find_account(root, user).uid if user else 0
    if group:
        return uid, _find_group(root, group)
    return uid, find_account(root, user).gid if not user.isdigit() else uid


def _find_group(root: Path, text: str) -> int:
    if text.isdigit():
        return int(text)
    row = next((row for row in _rows(root, "etc/group", 4) if row[0] == text), None)
    if row is None:
        raise BuildFailed(f"unable to find group {text}: no matching entry in the image's /etc/group")
    return int(row[2])


def _rows(root: Path, path: str, columns: int) -> list[list[str]]:
    data = read_in_root(root, path) or b""
    rows = [line.split(":") for line in data.decode(errors="replace").splitlines()]
    numbers = (2, 3) if columns == 7 else (2,)
    return [row for row in rows if len(row) >= columns and all(row[column].isdigit() for column in numbers)]
