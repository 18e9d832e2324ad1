"""What runtimes say, in words people know."""

from __future__ import annotations

import signal

import pytest

from dure.node.ports import RuntimeFailure
from dure.node.runtimes.oci.messages import exec_failure, start_failure
from dure.node.runtimes.signals import signal_number

START = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)


@pytest.mark.parametrize(
    ("said", "told", "reason"),
    [
        (
            "executable file `foo` not found in $PATH: No such file or directory",
            'exec: "foo": executable file not found in $PATH',
            "StartError",
        ),
        (
            "executable file `/no/foo` not found in $PATH: No such file or directory",
            'exec: "/no/foo": stat /no/foo: no such file or directory',
            "StartError",
        ),
        (
            'runc run failed: unable to start container process: exec: "foo": executable file not found in $PATH',
            'exec: "foo": executable file not found in $PATH',
            "StartError",
        ),
        ("open executable: Permission denied", "open executable: Permission denied", "StartError"),
        ("mount `/x` to `y`: Not a directory", "mount `/x` to `y`: Not a directory", "RunContainerError"),
        ("", "the runtime gave no reason", "RunContainerError"),
    ],
)
def test_a_failed_start(said: str, told: str, reason: str) -> None:
    failure = start_failure(said)
    assert (str(failure), failure.reason) == (START + told, reason)


def test_a_failed_exec() -> None:
    assert str(exec_failure("executable file `foo` not found in $PATH: No such file or directory")) == (
        "OCI runtime exec failed: exec failed: unable to start container process: "
        'exec: "foo": executable file not found in $PATH'
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("SIGQUIT", 3),
    ],
)
def test_signals_are_known_by_name_and_number(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIG", "0", "99", "RTMIN+x", "NOPE"])
def test_other_words_are_no_signals(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="such as SIGTERM"):
        signal_number(name)
