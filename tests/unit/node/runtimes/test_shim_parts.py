"""The monitor's parts by themselves: log, output, messages on the wire, files."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.frames import Frames
from dure.node.runtimes.oci.layout import read_json, write_json
from dure.node.runtimes.oci.shim_log import LINE_BYTES, CriLog
from dure.node.runtimes.oci.shim_output import Peeker, PipeOutput


def records(path: Path) -> list[str]:
    """`<stream> <F|P> <text>` of each line."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CriLog]:
    opened = CriLog(str(tmp_path / "0.log"))
    yield opened
    opened.close()


class TestLog:
    def test_lines_are_stamped_and_tagged(self, log: CriLog, tmp_path: Path) -> None:
        assert log.write("stdout", b"one\n\ntwo\n") == 9
        assert records(tmp_path / "0.log") == ["stdout F one", "stdout F ", "stdout F two"]
        stamp = (tmp_path / "0.log").read_text().split(" ")[0]
        assert (len(stamp), stamp[-1]) == (30, "Z")

    def test_a_line_without_its_end_is_left(self, log: CriLog, tmp_path: Path) -> None:
        assert log.write("stdout", b"one\ntw") == 4
        assert log.write("stdout", b"tw") == 0
        assert records(tmp_path / "0.log") == ["stdout F one"]

    def test_it_can_be_taken_as_a_part_or_a_whole(self, log: CriLog, tmp_path: Path) -> None:
        assert log.write("stderr", b"a", "P") == 1
        assert log.write("stderr", b"b", "F") == 1
        assert records(tmp_path / "0.log") == ["stderr P a", "stderr F b"]

    def test_long_lines_are_cut(self, log: CriLog, tmp_path: Path) -> None:
        assert log.write("stdout", b"x" * (2 * LINE_BYTES + 1) + b"\nend\n") == 2 * LINE_BYTES + 6
        found = records(tmp_path / "0.log")
        assert [(line[:9], len(line) - 9) for line in found] == [
            ("stdout P ", LINE_BYTES),
            ("stdout P ", LINE_BYTES),
            ("stdout F ", 1),
            ("stdout F ", 3),
        ]

    def test_a_full_file_is_put_aside_and_old_ones_go(self, tmp_path: Path) -> None:
        small = CriLog(str(tmp_path / "0.log"), file_bytes=100, files=3)
        for number in range(20):
            small.write("stdout", b"%d" % number + b"x" * 80 + b"\n")
        small.close()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert (len(names), names[0]) == (3, "0.log")
        assert "19x" in (tmp_path / names[-1]).read_text()

    def test_a_torn_line_is_dropped_when_it_is_opened_again(self, tmp_path: Path) -> None:
        path = tmp_path / "0.log"
        path.write_text("2026-01-01T00:00:00.000000000Z stdout F whole\n2026-01-01T00:00:0")
        again = CriLog(str(path))
        again.write("stdout", b"next\n")
        again.close()
        assert records(path) == ["stdout F whole", "stdout F next"]


class TestOutput:
    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Iterator[tuple[int, int]]:
        os.mkfifo(tmp_path / "out")
        writer = os.open(tmp_path / "out", os.O_RDWR)
        reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
        yield reader, writer
        os.close(reader)
        os.close(writer)

    def test_whole_lines_leave_the_pipe_and_the_rest_stays(
        self, pipe: tuple[int, int], log: CriLog, tmp_path: Path
    ) -> None:
        reader, writer = pipe
        output = PipeOutput("stdout", reader, Peeker())
        os.write(writer, b"one\ntwo\nthr")
        assert output.pump(log, []) == "a part"
        os.write(writer, b"ee\n")
        assert output.pump(log, []) == "nothing"
        assert records(tmp_path / "0.log") == ["stdout F one", "stdout F two", "stdout F three"]

    def test_a_successor_finds_what_was_not_logged(self, pipe: tuple[int, int], log: CriLog, tmp_path: Path) -> None:
        reader, writer = pipe
        os.write(writer, b"one\ntw")
        PipeOutput("stdout", reader, Peeker()).pump(log, [])
        os.write(writer, b"o\n")
        PipeOutput("stdout", reader, Peeker()).pump(log, [])
        assert records(tmp_path / "0.log") == ["stdout F one", "stdout F two"]

    def test_the_last_words_need_no_end(self, pipe: tuple[int, int], log: CriLog, tmp_path: Path) -> None:
        reader, writer = pipe
        output = PipeOutput("stderr", reader, Peeker())
        os.write(writer, b"half")
        assert output.pump(log, [], "F") == "nothing"
        assert records(tmp_path / "0.log") == ["stderr F half"]


class TestFrames:
    @pytest.fixture
    def ends(self) -> Iterator[tuple[Frames, Frames]]:
        left, right = (Frames(sock) for sock in socket.socketpair())
        yield left, right
        left.close()
        right.close()

    def test_messages_come_whole_and_in_order(self, ends: tuple[Frames, Frames]) -> None:
        left, right = ends
        for number in range(3):
            left.send({"number": number})
        assert right.receive() == [({"number": number}, []) for number in range(3)]

    def test_a_large_message_takes_several_goes(self, ends: tuple[Frames, Frames]) -> None:
        left, right = ends
        done = left.send({"text": "x" * 3_000_000})
        got: list[tuple[dict[str, object], list[int]]] = []
        while not got:
            got = right.receive()
            done = done or left.flush()
        assert (done, len(str(got[0][0]["text"]))) == (True, 3_000_000)

    def test_descriptors_belong_to_their_message(self, ends: tuple[Frames, Frames]) -> None:
        left, right = ends
        source, target = os.pipe()
        left.send({"a": 1})
        left.send({"b": 2}, [target])
        left.send({"c": 3})
        (_, none), (message, (fd,)), _ = right.receive()
        os.write(fd, b"x")
        assert (none, message, os.read(source, 1)) == ([], {"b": 2, "fds": 1}, b"x")
        for number in (source, target, fd):
            os.close(number)

    def test_the_end_is_told(self, ends: tuple[Frames, Frames]) -> None:
        left, right = ends
        left.send({"last": 1})
        left.close()
        assert right.receive() == [({"last": 1}, [])]
        with pytest.raises(ConnectionError):
            right.receive()

    def test_a_length_out_of_bounds_is_refused(self, ends: tuple[Frames, Frames]) -> None:
        left, right = ends
        left.sock.send(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionError, match="at most"):
            right.receive()


class TestFiles:
    def test_a_file_is_written_whole(self, tmp_path: Path) -> None:
        write_json(str(tmp_path / "a"), {"x": 1})
        assert read_json(str(tmp_path / "a")) == {"x": 1}
        assert read_json(str(tmp_path / "b")) is None
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_process_is_told_from_another_with_its_number(self) -> None:
        ticks = kernel.start_ticks(os.getpid())
        assert kernel.is_alive(os.getpid(), ticks)
        assert not kernel.is_alive(os.getpid(), ticks + 1)

    def test_the_status_of_a_zombie_can_be_read(self) -> None:
        child = os.fork()
        if child == 0:
            os._exit(9)
        ticks = kernel.start_ticks(child)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        status = kernel.zombie_status(child, ticks)
        os.waitpid(child, 0)
        assert status == 9 << 8
        assert kernel.zombie_status(child, ticks) is None
