"""OciRuntime on this machine's own crun or runc: the contract, and what only real containers can show."""

# ruff: noqa: ASYNC110 -- files and processes of others have no event to wait for

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dure.node.ports import ContainerState, Mount, Resources, RuntimeFailure, Security
from dure.node.runtimes.oci.choice import Host, choose, read_host
from dure.node.runtimes.oci.kernel import unmount
from dure.node.runtimes.oci.runtime import OciRuntime, destroy_all
from dure.node.runtimes.oci.shim_spawn import Program
from dure.node.runtimes.oci.teardown import monitor_pid
from tests.support.rootfs import find_busybox, make_rootfs
from tests.unit.node.runtimes.contract import POD, Bench, RuntimeContract

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")]

INSTANCE = f"dure-test-{os.getpid()}"
PROGRAMS = {
    "waits": ("sleep", "1000"),
    "ends with 3": ("sh", "-c", "exit 3"),
    "talks": ("sh", "-c", "echo good; echo bad >&2"),
    "ignores TERM": ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"),
    "minds TERM": ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"),
    "missing": ("missing",),
}


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("root")
    busybox = find_busybox(folder / "download")
    if busybox is None:
        pytest.skip("no static busybox to be had")
    OciBench.root = make_rootfs(folder / "fs", busybox)
    yield OciBench.root


class OciBench(Bench):
    root: Path
    runtime: OciRuntime

    @property
    def run_dir(self) -> str:
        return str(self.folder / "run")

    async def kill_monitor(self) -> None:
        """And wait until another has taken over."""
        pid = monitor_pid(self.run_dir)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while monitor_pid(self.run_dir) in (0, pid):
                await asyncio.sleep(0.01)
            await self.runtime.containers()

    async def shell(self, id_: str, script: str) -> str:
        result = await self.runtime.exec_sync(id_, ["sh", "-c", script])
        return (result.stdout + result.stderr).decode()

    async def wait_log(self, id_: str, text: str) -> None:
        async with asyncio.timeout(10):
            while not any(text in line for line in self.log(id_)):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def oci(folder: Path, choose: Callable[[Host], Program] = choose) -> AsyncIterator[OciBench]:
    run_dir = str(folder / "run")
    try:
        async with OciRuntime(run_dir, INSTANCE, choose) as runtime:
            yield OciBench(runtime, folder, str(OciBench.root), f"/{INSTANCE}/node-1", programs=PROGRAMS)
        complaints = Path(run_dir, "shim.log").read_text()
        assert complaints == ""
    finally:
        await destroy_all(run_dir, INSTANCE)


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


class TestOciRuntime(RuntimeContract):
    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Bench]:
        async with oci(folder) as bench:
            yield bench


@pytest.mark.skipif(not read_host().runc, reason="runc is not installed")
class TestRunc(RuntimeContract):
    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Bench]:
        async with oci(folder, lambda host: choose(replace(host, crun=""))) as bench:
            yield bench

    async def test_exec_on_a_terminal(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            async with bench.runtime.exec("a", ["sh", "-c", "tty; exit 5"], tty=True, stdin=False) as session:
                assert b"/dev/pts/0" in b"".join([data async for _, data in session.output()])
                assert await session.wait() == 5


class TestConfinement:
    async def test_the_pod_has_one_name_and_shared_memory(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            await bench.run("b")
            assert await bench.shell("a", "hostname; echo shared > /dev/shm/x") == "web\n"
            assert await bench.shell("b", "cat /dev/shm/x; hostname") == "shared\nweb\n"
            assert (await bench.shell("b", "ps -o args")).count("sleep") == 1

    async def test_a_default_container_has_few_powers(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            status = await bench.shell("a", "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status")
            assert status.split() == [
                "CapEff:", "00000000a80425fb", "CapBnd:", "00000000a80425fb", "NoNewPrivs:", "1", "Seccomp:", "2",
            ]  # fmt: skip
            assert "denied" in await bench.shell("a", "mount -t tmpfs none /tmp")
            assert "Read-only" in await bench.shell("a", "echo 1 > /proc/sys/kernel/panic")
            assert await bench.shell("a", "wc -c < /proc/timer_list") == "0\n"

    async def test_a_compiled_filter_confines_as_its_source_does(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("first")
            await bench.run("second")
            assert await bench.shell("second", "grep Seccomp: /proc/1/status; grep Seccomp: /proc/self/status") == (
                "Seccomp:\t2\n" * 2
            )

    async def test_capabilities_can_be_added_and_dropped(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            security = Security(add_capabilities=("NET_ADMIN",), drop_capabilities=("ALL",))
            await bench.run("a", security=security)
            assert await bench.shell("a", "grep CapBnd /proc/self/status") == "CapBnd:\t0000000000001000\n"

    async def test_a_privileged_container_sees_devices(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", security=Security(privileged=True, no_new_privileges=False))
            assert await bench.shell("a", "mount -t tmpfs none /tmp && echo yes; ls /dev/kmsg") == "yes\n/dev/kmsg\n"

    async def test_a_user_of_its_own_may_write_to_dev_stdout(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            security = Security(uid=1000, gid=1000, groups=(2000,))
            await bench.run("a", "talks", args=script("id; echo again > /proc/self/fd/1"), security=security)
            await bench.wait_ended("a")
            assert bench.log("a") == ["stdout F uid=1000 gid=1000 groups=1000,2000", "stdout F again"] or bench.log(
                "a"
            ) == ["stdout F uid=1000 gid=1000 groups=2000", "stdout F again"]

    async def test_mounts_and_a_read_only_root(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            (tmp_path / "data").mkdir()
            (tmp_path / "data/file").write_text("text")
            mounts = (Mount(str(tmp_path / "data"), "/in", True), Mount(str(tmp_path / "data"), "/out/deep"))
            await bench.run("a", mounts=mounts, security=Security(read_only_root=True))
            assert await bench.shell("a", "cat /in/file; echo new > /out/deep/made; cat /in/made") == "textnew\n"
            assert "Read-only" in await bench.shell("a", "touch /in/x")
            assert "Read-only" in await bench.shell("a", "touch /x")

    async def test_a_working_folder_is_made(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", "talks", args=script("pwd; echo $COLOUR $HOSTNAME"), working_dir="/made/here")
            await bench.wait_ended("a")
            assert bench.log("a") == ["stdout F /made/here", "stdout F blue web"]

    async def test_processes_are_shared_when_asked(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox(share_pid=True))
            for name in ("a", "b"):
                await bench.runtime.create(bench.container(name, args=("sleep", f"100{name == 'b':d}")))
                await bench.runtime.start(name)
            seen = await bench.shell("a", "ps -o pid,comm,args")
            assert "sleep 1000" in seen
            assert "sleep 1001" in seen
            assert await bench.shell("a", "cat /proc/1/comm") == "dure-pause\n"
            assert "denied" in await bench.shell("a", "ls /proc/1/root/")
            await bench.runtime.stop("a", grace_seconds=0)
            assert (await bench.state("b")).state == "running"
            await bench.runtime.stop_sandbox(POD)
            assert (await bench.state("b")).exit_code == 137

    async def test_orphans_in_a_shared_namespace_are_reaped(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox(share_pid=True))
            await bench.runtime.create(bench.container("a"))
            await bench.runtime.start("a")
            await bench.shell("a", "(sh -c 'sleep 0.1' &) ; sleep 0.3")
            assert " Z " not in await bench.shell("a", "ps -o pid,stat,comm")

    async def test_an_ephemeral_container_joins_its_target(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("sleep", "777"))
            await bench.run("debug", target_container="a")
            assert "sleep 777" in await bench.shell("debug", "ps -o args")


class TestResources:
    async def test_lack_of_memory_is_told(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            hog = script("head -c 100000000 /dev/zero | tail > /tmp/x; exit 1")
            await bench.run("a", "talks", args=hog, resources=Resources(memory_bytes=16 << 20))
            state = await bench.wait_ended("a")
            assert (state.oom_killed, state.exit_code != 0) == (True, True)

    async def test_limits_are_in_force_and_can_be_changed(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", resources=Resources(cpu_quota=20_000, memory_bytes=64 << 20, pids=50))
            show = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"
            assert await bench.shell("a", show) == f"{64 << 20}\n"
            await bench.runtime.update("a", Resources(cpu_quota=30_000, memory_bytes=96 << 20, pids=50))
            assert await bench.shell("a", show) == f"{96 << 20}\n"

    async def test_use_is_counted(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=script("while :; do :; done"))
            await asyncio.sleep(0.3)
            used = await bench.runtime.usage("a")
            assert used is not None
            assert used.cpu_nanoseconds > 50_000_000
            assert 0 < used.memory_bytes < 64 << 20


class TestSessions:
    async def test_exec_reads_its_input(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            async with bench.runtime.exec("a", ["wc", "-c"], tty=False, stdin=True) as session:
                await session.write_stdin(b"x" * 300_000)
                session.close_stdin()
                assert [chunk async for chunk in session.output()] == [("stdout", b"300000\n")]
                assert await session.wait() == 0

    async def test_exec_on_a_terminal(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            async with bench.runtime.exec("a", ["sh"], tty=True, stdin=True) as session:
                session.resize(132, 43)
                await session.write_stdin(b"stty size; echo $TERM; exit 5\n")
                said = b"".join([data async for _, data in session.output()])
                assert b"43 132\r\nxterm\r\n" in said
                assert await session.wait() == 5

    async def test_a_cancelled_exec_is_killed(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await bench.runtime.exec_sync("a", ["sleep", "555"])
            await asyncio.sleep(0.1)
            assert "555" not in await bench.shell("a", "ps -o args | grep -v grep")

    async def test_a_missing_command_is_named(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            for tty in (False, True):
                with pytest.raises(RuntimeFailure, match='exec: "nope": executable file not found'):
                    async with bench.runtime.exec("a", ["nope"], tty=tty, stdin=False):
                        pass

    async def test_all_who_are_attached_see_the_output(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("cat",), stdin=True)
            async with (
                bench.runtime.attach("a", stdin=True) as one,
                bench.runtime.attach("a", stdin=False) as other,
            ):
                await one.write_stdin(b"hello\nhalf")
                for session in (one, other):
                    seen = b""
                    async for _, data in session.output():
                        seen += data
                        if seen == b"hello\nhalf":
                            break
            await bench.wait_log("a", "hello")
            assert bench.log("a") == ["stdout F hello"]
            assert (await bench.state("a")).state == "running"

    async def test_input_given_once_ends(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("cat",), stdin=True, stdin_once=True)
            async with bench.runtime.attach("a", stdin=True) as session:
                await session.write_stdin(b"all\n")
                session.close_stdin()
                assert [chunk async for chunk in session.output()] == [("stdout", b"all\n")]
            assert (await bench.wait_ended("a")).exit_code == 0

    async def test_attaching_to_a_terminal(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("sh",), stdin=True, tty=True)
            async with bench.runtime.attach("a", stdin=True) as session:
                session.resize(100, 30)
                await session.write_stdin(b"stty size; exit 6\n")
                said = b"".join([data async for _, data in session.output()])
            assert b"30 100\r\n" in said
            assert (await bench.wait_ended("a")).exit_code == 6


class TestLogs:
    async def test_long_lines_are_cut_and_the_last_needs_no_end(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", "talks", args=script("head -c 40000 /dev/zero | tr '\\0' x; printf '\\nend'"))
            await bench.wait_ended("a")
            lines = bench.log("a")
            assert [line[:9] for line in lines] == ["stdout P ", "stdout P ", "stdout F ", "stdout F "]
            assert "".join(line[9:] for line in lines[:3]) == "x" * 40000
            assert lines[3] == "stdout F end"

    async def test_many_lines_come_whole_and_in_order(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", "talks", args=("seq", "1", "200000"))
            await bench.wait_ended("a")
            assert bench.log("a") == [f"stdout F {number}" for number in range(1, 200001)]


class TestKilledMonitor:
    async def test_containers_live_on_and_their_end_is_known(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a")
            await bench.run("b", args=script("trap 'exit 9' TERM; while :; do sleep 0.05; done"))
            before = await bench.state("a")
            await bench.kill_monitor()
            assert await bench.state("a") == before
            await bench.runtime.stop("b", grace_seconds=10)
            assert (await bench.state("b")).exit_code == 9
            assert await bench.shell("a", "echo still") == "still\n"

    async def test_an_end_without_a_monitor_is_known(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=script("sleep 0.3; echo last words; exit 11"))
            for _ in range(6):
                await bench.kill_monitor()
            state = await bench.wait_ended("a")
            assert (state.exit_code, bench.log("a")) == (11, ["stdout F last words"])

    async def test_no_line_is_lost(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            writer = script("i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done")
            await bench.run("a", args=writer)
            while (await bench.state("a")).state == "running":
                await bench.kill_monitor()
                await asyncio.sleep(0.05)
            numbers = [int(line.split()[2]) for line in bench.log("a")]
            assert sorted(set(numbers)) == list(range(30000))

    async def test_a_start_that_was_under_way_happens_once(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox())
            for number in range(12):
                name = f"c{number}"
                out = tmp_path / f"{name}.out"
                out.touch()
                mounts = (Mount(str(out), "/started"),)
                args = script("echo run >> /started; sleep 1000")
                await bench.runtime.create(bench.container(name, args=args, mounts=mounts))
                async with asyncio.TaskGroup() as group:
                    group.create_task(bench.runtime.start(name))
                    await asyncio.sleep(0.002 * number)
                    group.create_task(bench.kill_monitor())
                assert (await bench.state(name)).state == "running"
                await bench.shell(name, "true")
                assert out.read_text() == "run\n"

    async def test_a_terminal_survives(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("sh",), stdin=True, tty=True)
            await bench.kill_monitor()
            async with bench.runtime.attach("a", stdin=True) as session:
                await session.write_stdin(b"echo on; exit 6\n")
                assert b"on\r\n" in b"".join([data async for _, data in session.output()])
            assert (await bench.wait_ended("a")).exit_code == 6

    async def test_input_stays_open(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=("cat",), stdin=True)
            await bench.kill_monitor()
            async with bench.runtime.attach("a", stdin=True) as session:
                await session.write_stdin(b"on\n")
                assert await anext(session.output()) == ("stdout", b"on\n")


class TestRestartedAgent:
    async def test_everything_is_found_again(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", args=script("sleep 0.5; echo late; exit 4"))
            before = await bench.state("a")
            await bench.runtime.close()
            async with OciRuntime(bench.run_dir, INSTANCE) as again:
                assert list(await again.sandboxes()) == [bench.sandbox()]
                assert list(await again.containers()) == [before]
                bench.runtime = again
                state = await bench.wait_ended("a")
                assert (state.exit_code, bench.log("a")) == (4, ["stdout F late"])

    async def test_the_end_of_a_monitor_without_agent_costs_only_the_exit_code(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.run("a", "minds TERM")
            state = await bench.state("a")
            await bench.runtime.close()
            os.kill(monitor_pid(bench.run_dir), signal.SIGKILL)
            os.kill(state.pid, signal.SIGKILL)
            async with OciRuntime(bench.run_dir, INSTANCE) as again:
                bench.runtime = again
                found: ContainerState = await bench.wait_ended("a")
                assert (found.state, found.exit_code) in (("exited", 255), ("exited", 137))

    async def test_another_boot_leaves_nothing_to_adopt(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox())
            await bench.runtime.create(bench.container("a"))
            await bench.runtime.close()
            os.kill(monitor_pid(bench.run_dir), signal.SIGKILL)
            while monitor_pid(bench.run_dir):
                await asyncio.sleep(0.01)
            Path(bench.run_dir, "boot_id").write_text('"another"')
            for name in ("shm", "ipc", "uts"):
                unmount(f"{bench.run_dir}/sandboxes/{POD}/{name}")
            async with OciRuntime(bench.run_dir, INSTANCE) as again:
                assert (list(await again.sandboxes()), list(await again.containers())) == ([], [])


class TestTheEnd:
    async def test_nothing_is_left(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox(share_pid=True))
            await bench.runtime.create(bench.container("a", "ignores TERM"))
            await bench.runtime.start("a")
            pid = (await bench.state("a")).pid
            (Path(bench.run_dir) / "shim.log").write_text("")
            await bench.runtime.close(kill=True)
            assert not Path(f"/proc/{pid}").exists()
            assert not Path(bench.run_dir).exists()
            assert bench.run_dir not in Path("/proc/mounts").read_text()
            assert not list(Path("/sys/fs/cgroup").glob(f"**/{INSTANCE}"))
            assert monitor_pid(bench.run_dir) == 0
            Path(bench.run_dir).mkdir()
            (Path(bench.run_dir) / "shim.log").write_text("")

    async def test_many_start_at_once(self, tmp_path: Path) -> None:
        async with oci(tmp_path) as bench:
            names = [f"c{number}" for number in range(20)]
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(bench.run(name))
            assert {(await bench.state(name)).state for name in names} == {"running"}
