"""A started platform for the tests that use real clients on real containers; one for the whole run.

Each test gets a namespace of its own. The platform has its own data folder, ports and networks, so that it stands
beside one that the user has running.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.support.loop import run_real
from tests.support.platform import Platform, kubectls, own_platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is `e2e`, and says why it cannot run where it cannot."""
    for item in items:
        if "/tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="containers need root"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """`async def` tests run in real time, on the loop the platform uses."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    run_real(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Up for the whole run, with stand-ins for public images."""
    with own_platform("dure-e2e-") as made:
        made.up()
        yield made


@pytest.fixture
def namespace(platform: Platform) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", name)
    yield name
    platform.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(
    params=kubectls(),
    ids=lambda path: (
        subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
        .stdout.split('"gitVersion": "')[1]
        .split('"')[0]
    ),
)
def any_kubectl(request: pytest.FixtureRequest) -> str:
    """Each kubectl that this machine has."""
    return str(request.param)
