"""Which base made from packages answers to which public name, where the user allowed it.

A stand-in is no copy of the public image: it has what Debian packages, in Debian's version. It keeps the command,
ports, variables and paths that users of the public image rely on.
"""

from __future__ import annotations

import platform
from fnmatch import fnmatchcase

from dure.images.reference import DEFAULT_DOMAIN, Reference

LOCAL_DOMAIN = "dure.local"

_PUBLIC: dict[str, str] = {
    "library/busybox": "busybox",
    "library/debian": "debian",
    "library/nginx": "nginx",
    "library/node": "node",
    "library/postgres": "postgres",
    "library/python": "python",
}
_BUILT_UPON = ("debian", "python", "node")
"""People install packages in these, so a tag that promises another distribution is not answered."""
_OTHER_WORLDS = ("*alpine*", "*windows*", "*nanoserver*")


def stand_in_for(reference: Reference) -> str:
    """The base that may answer to a public reference, "" for none. A digest means one exact image: none."""
    base = _PUBLIC.get(reference.path, "") if reference.domain == DEFAULT_DOMAIN else ""
    if not base or reference.digest:
        return ""
    refused = _OTHER_WORLDS if base in _BUILT_UPON else _OTHER_WORLDS[1:]
    return "" if any(fnmatchcase(reference.tag, pattern) for pattern in refused) else base


def public_names(base: str) -> list[str]:
    """For people: what a base stands in for."""
    return [f"{path.removeprefix('library/')}:*" for path, name in _PUBLIC.items() if name == base]


def release_codename() -> str:
    """Of the distribution whose packages this machine's apt installs: "bookworm"."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return release.get("VERSION_CODENAME") or release.get("VERSION_ID") or "unknown"


def base_reference(base: str) -> Reference:
    """The name under which a base is kept: `dure.local/<base>:<codename>`."""
    return Reference(LOCAL_DOMAIN, base, release_codename())


def base_of(reference: Reference) -> str:
    """The base a local name means, whatever its tag; "" if it is no such name."""
    return reference.path if reference.domain == LOCAL_DOMAIN and reference.path in _PUBLIC.values() else ""
