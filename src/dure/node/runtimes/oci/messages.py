"""What crun and runc say when they fail, in the words users of Kubernetes know."""

from __future__ import annotations

import re

from dure.node.ports import RuntimeFailure

_NOT_FOUND = re.compile(r"executable file [`'\"](?P<name>[^`'\"]+)[`'\"] not found in \$PATH")
_NO_PERMISSION = re.compile(r"open executable: Permission denied|exec.*[Pp]ermission denied")
_RUNC_PREFIX = re.compile(r"^(?:runc (?:run|create|exec) failed: |exec failed: |unable to start container process: )+")


def tell(message: str) -> tuple[str, bool]:
    """The message without its runtime's own prefixes, and whether the command itself could not be started."""
    text = _RUNC_PREFIX.sub("", message.strip()) or "the runtime gave no reason"
    missing = _NOT_FOUND.search(text)
    if missing and not text.startswith("exec: "):
        name = missing["name"]
        why = f"stat {name}: no such file or directory" if "/" in name else "executable file not found in $PATH"
        return f'exec: "{name}": {why}', True
    return text, text.startswith("exec: ") or bool(_NO_PERMISSION.search(text))


def start_failure(message: str) -> RuntimeFailure:
    """StartError if the command cannot be run, else RunContainerError."""
    text, command = tell(message)
    return RuntimeFailure(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
        f"unable to start container process: {text}",
        "StartError" if command else "RunContainerError",
    )


def exec_failure(message: str) -> RuntimeFailure:
    text, _ = tell(message)
    return RuntimeFailure(
        f"OCI runtime exec failed: exec failed: unable to start container process: {text}", "ExecError"
    )
