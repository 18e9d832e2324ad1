"""A root file system of a few megabytes for container tests: one static busybox."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

APPLETS = """
cat date dd echo env grep head hostname id kill ls mkdir mount printf ps pwd seq sh sleep stty tail touch tr true tty wc
"""


def find_busybox(scratch: Path) -> Path | None:
    """The host's static busybox, else the one of Debian's package; None if neither can be had."""
    installed = shutil.which("busybox")
    if installed and b"statically" in subprocess.run(["file", "-L", installed], capture_output=True).stdout:
        return Path(installed)
    scratch.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["apt-get", "download", "-qq", "busybox-static"], cwd=scratch, capture_output=True).returncode:
        return None
    package = next(scratch.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, scratch / "unpacked"], check=True)
    return next((scratch / "unpacked").glob("**/bin/busybox"), None)


def make_rootfs(folder: Path, busybox: Path) -> Path:
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, folder / "bin/busybox")
    for applet in APPLETS.split():
        (folder / "bin" / applet).symlink_to("busybox")
    return folder
