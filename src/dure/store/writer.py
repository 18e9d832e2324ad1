"""The store's writer: a small process that owns the SQLite file and does nothing but commit batches.

Started by path with `python -I -S`, so it imports only the standard library. It talks on the socket given by
number: frames of a 4-byte little-endian length and a marshalled tuple. One request, one answer, in order:

  ("open", schema, max_bytes, load)   → ("opened", last, compacted) and, to load, ("rows", [row, ...]) * n, ("loaded",)
                                      | ("schema", found) | ("unusable", text)
  ("commit", rows, compacted, doomed) → ("done",) | ("full", text)

A row is (revision, key, created, deleted, value). A batch is one transaction: after an answer it is on disk, or none
of it is. End of input means the platform has gone: finish, close, exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import signal
import socket
import sqlite3
import struct
import sys
from collections.abc import Iterator
from typing import Any

Row = tuple[int, str, int, int, bytes]

NAME = b"dure-store"
PAGE_BYTES = 8192
CHECKPOINT_PAGES = 4000
FRAME_ROWS = 1000
FRAME_BYTES = 1 << 20
_SQLITE_FULL = 13
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
  revision INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  created INTEGER NOT NULL,
  deleted INTEGER NOT NULL,
  value BLOB NOT NULL
);
INSERT INTO meta VALUES ('schema', {schema}), ('compacted', 0);
COMMIT;
"""


class Log:
    """The SQLite file: rows of every write above the last compaction, and the live ones below it."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, cached_statements=16)
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # nobody else writes, and no shared-memory file can fail us
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit={CHECKPOINT_PAGES * PAGE_BYTES}")
        db.execute("PRAGMA cache_size=-2000")
        if self._max_bytes:
            db.execute(f"PRAGMA max_page_count={max(8, self._max_bytes // PAGE_BYTES)}")
        return db

    def open(self, schema: int) -> int:
        """Make the tables, or find them; the schema version of the file."""
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            self._db.executescript(_TABLES.format(schema=schema))
        return self._meta("schema")

    def compacted(self) -> int:
        return self._meta("compacted")

    def last(self) -> int:
        """The newest durable revision."""
        newest = self._db.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()[0]
        return max(int(newest), self.compacted())

    def rows(self) -> Iterator[list[Row]]:
        """All rows by revision, in frames of bounded size."""
        frame: list[Row] = []
        size = 0
        for row in self._db.execute("SELECT revision, key, created, deleted, value FROM log ORDER BY revision"):
            frame.append(row)
            size += len(row[4])
            if size >= FRAME_BYTES or len(frame) >= FRAME_ROWS:
                yield frame
                frame, size = [], 0
        yield frame

    def commit(self, rows: list[Row], compacted: int, doomed: list[int]) -> str:
        """One durable transaction; the error's text when nothing of it was stored."""
        try:
            self._transact(rows, compacted, doomed)
            return ""
        except sqlite3.Error as error:
            full = error.sqlite_errorcode & 0xFF == _SQLITE_FULL
            if self._happened(rows, reopen=not full):
                return ""
            self._make_room()
            return str(error)

    def close(self) -> None:
        self._db.close()

    def _transact(self, rows: list[Row], compacted: int, doomed: list[int]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", rows)
        if compacted:
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (compacted,))
        if doomed:
            self._db.executemany("DELETE FROM log WHERE revision = ?", [(revision,) for revision in doomed])
        self._db.execute("COMMIT")

    def _happened(self, rows: list[Row], *, reopen: bool) -> bool:
        """Whether the rows are in the file after an error.

        A refused page was never followed by a commit record, so rolling back is exact. After any other error the
        connection may be wrong about the file: close it, which forgets unfinished frames, and ask again.
        """
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        if reopen:
            self._db.close()
            self._db = self._connect()
        return bool(rows) and self.last() >= rows[-1][0]

    def _make_room(self) -> None:
        """Empty the journal into the file, so that the next transaction may write over it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _meta(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0


class Channel:
    """Frames on a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rb")
        self._sock = sock

    def receive(self) -> Any:
        """The next message, None at the end."""
        head = self._file.read(4)
        if len(head) < 4:
            return None
        size = struct.unpack("<I", head)[0]
        body = self._file.read(size)
        return marshal.loads(body) if len(body) == size else None

    def send(self, *message: Any) -> None:
        body = marshal.dumps(message)
        self._sock.sendall(struct.pack("<I", len(body)) + body)


def serve(channel: Channel, path: str) -> None:
    """Answer until the other end closes."""
    request = channel.receive()
    if request is None:
        return
    _, schema, max_bytes, load = request
    try:
        log = Log(path, max_bytes)
        found = log.open(schema)
        if found > schema:
            channel.send("schema", found)
            return
        channel.send("opened", log.last(), log.compacted())
        if load:
            for rows in log.rows():
                channel.send("rows", rows)
            channel.send("loaded")
    except sqlite3.Error as error:
        channel.send("unusable", str(error))
        return
    while (request := channel.receive()) is not None:
        error_text = log.commit(*request[1:])
        channel.send("full", error_text) if error_text else channel.send("done")
    log.close()


def main() -> None:
    path, descriptor = sys.argv[1], int(sys.argv[2])
    os.umask(0o077)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the platform ends this process by closing the socket
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, NAME)
    # should the socket stay open in some other process, the end of the parent still wakes us
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    sock = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGUSR1, lambda *_: sock.shutdown(socket.SHUT_RD))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(Channel(sock), path)


if __name__ == "__main__":
    main()
