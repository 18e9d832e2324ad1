"""The server daemon: store, API server, controllers and scheduler in one process and one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from dure.api.kinds import builtin_kinds
from dure.apiserver.bootstrap import Addresses
from dure.apiserver.parts import Setup
from dure.apiserver.ports import MASTERS, VerifiedUser
from dure.apiserver.server import ApiServer
from dure.apps.connect import AgentConnector, HostDialer
from dure.apps.notify import notify, supervisor_pid
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.client.in_process import InProcessTransport
from dure.controllers import Context, Informers, run_controllers
from dure.core.aio import running
from dure.core.clock import SystemClock
from dure.core.errors import ConfigError
from dure.core.log import set_up_logging
from dure.core.process import collect_rarely, die_with_parent, set_process_name
from dure.core.settings import Settings
from dure.identity.authority import Authority
from dure.identity.kubeconfig import make_kubeconfig, merge_kubeconfig, write_kubeconfig
from dure.identity.tokens import TokenSigner
from dure.store.sqlite import SqliteStore
from dure.wire.server import HttpServer, Listen
from dure.wire.tls import server_context

if TYPE_CHECKING:
    from dure.scheduler import Scheduler

log = logging.getLogger("dure.apps")

_EVERYWHERE = "0.0.0.0"


async def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    authority = Authority(settings.pki_dir)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(settings.path / "store"))
        notify(f"store open at revision {store.revision}")
        kinds = builtin_kinds()
        server = ApiServer(store, kinds, _setup(settings))
        await stack.enter_async_context(server.opened())
        listens = _listens(settings, authority)
        await stack.enter_async_context(HttpServer(server.handle, listens).serving())
        _write_kubeconfigs(settings, authority)
        notify(f"API answering at {settings.api_url}")
        itself = VerifiedUser("system:dure-server", (MASTERS,))
        client = Client(InProcessTransport(server.handle, itself, "dure-server"), kinds)
        await stack.enter_async_context(running(_controllers(settings, client, authority), _scheduler(client)))
        collect_rarely()
        notify("controllers and scheduler running", ready=True)
        await stop.wait()


def _setup(settings: Settings) -> Setup:
    return Setup(
        tokens=TokenSigner(settings.pki_dir / "sa.key"),
        nodes=AgentConnector(settings.agent_socket),
        dialer=HostDialer(),
        addresses=Addresses(settings.service_cidr, settings.link_host, settings.api_port),
        public_address=f"{settings.listen}:{settings.api_port}",
    )


def _listens(settings: Settings, authority: Authority) -> list[Listen]:
    """The published address, and the one on the link to the nodes, which the agent makes later."""
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{settings.cluster_domain}",
        "localhost",
        socket.gethostname(),
        "127.0.0.1",
        settings.listen,
        settings.link_host,
        settings.api_service_ip,
    ]
    pair = authority.server("apiserver", list(dict.fromkeys(names)))
    tls = server_context(pair.certificate, pair.key, authority.certificate_path)
    listens = [Listen(settings.listen, settings.api_port, tls=tls)]
    if settings.containers and settings.listen not in (_EVERYWHERE, settings.link_host):
        listens.append(Listen(settings.link_host, settings.api_port, tls=tls, not_yet_there=True))
    return listens


def _write_kubeconfigs(settings: Settings, authority: Authority) -> None:
    admin = authority.client("admin", "dure-admin", [MASTERS])
    config = make_kubeconfig(settings.context, settings.api_url, authority.certificate_path, admin)
    write_kubeconfig(settings.kubeconfig, config)
    if settings.merge_kubeconfig:
        from dure.apps.paths import user_kubeconfig

        merge_kubeconfig(user_kubeconfig(), config)
    for node in settings.node_names():
        authority.client(f"node-{node}", f"system:node:{node}", ["system:nodes"])
    authority.client("agent", "system:dure-agent")


async def _controllers(settings: Settings, client: Client, authority: Authority) -> None:
    clock = SystemClock()
    context = Context(client, Informers(client), EventRecorder(client, "controller-manager"), clock)
    await run_controllers(
        context,
        client.kinds,
        root_certificate=authority.certificate_pem.decode(),
        volumes=settings.path / "volumes",
    )


async def _scheduler(client: Client) -> None:
    informers = Informers(client)
    # numpy takes a while to load: requests are answered meanwhile
    make = await asyncio.to_thread(_load_scheduler)
    scheduler = make(
        client,
        informers.of("pods"),
        informers.of("nodes"),
        EventRecorder(client, "default-scheduler"),
        SystemClock(),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(informers.run())
        group.create_task(scheduler.run())


def _load_scheduler() -> type[Scheduler]:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here gains by more, and they cost time and memory
    from dure.scheduler import Scheduler

    return Scheduler


def main() -> None:
    """`python -m dure.apps.server HOME`."""
    set_process_name("dure-server")
    die_with_parent(supervisor_pid())
    set_up_logging()
    settings = Settings.load(Path(sys.argv[1]))
    if settings is None:
        raise SystemExit(f"dure: no settings in {sys.argv[1]}")
    try:
        uvloop.run(run(settings))
    except ConfigError as error:
        notify("", error=error.message, mend=error.mend)
        log.error("cannot start", extra={"cause": error.message})
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
