"""How an exec or attach ended, as a `meta/v1.Status` on the error channel."""

from __future__ import annotations

from collections.abc import Sequence

from dure.core.json import Obj

SUCCESS: Obj = {"metadata": {}, "status": "Success"}


def exited(code: int, args: Sequence[str]) -> Obj:
    """Success for 0; a client reads the code from the cause."""
    if code == 0:
        return SUCCESS
    command = " ".join(args)
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command [{command}], exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(what: str, why: str) -> Obj:
    """The runtime refused, or broke."""
    message = f"error {what} in container: {why}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
