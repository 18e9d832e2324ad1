"""nftables in this process: libnftables by ctypes, one context on a thread that lives in its namespace.

A script is one transaction: all of it takes effect at once or none of it (nft(8)).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dure.core.errors import ConfigError, DureError
from dure.core.json import loads
from dure.node.network.namespaces import NamespaceThread

T = TypeVar("T")

_JSON_OUTPUT = 1 << 4
_LARGE = 1 << 16
"""Characters of a script after which the parser's memory, many times that, is worth giving back."""


class NftError(DureError):
    """The kernel or the parser refused a script; the message is nft's own."""


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise ConfigError(f"libnftables is missing: {error}", "apt-get install libnftables1") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def _give_memory_back() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


class Nft:
    """The nftables of one namespace (none: the process's own). Calls are carried out one after the other."""

    def __init__(self, name: str, netns: Path | None = None) -> None:
        self._thread = NamespaceThread(f"nft {name}", netns)
        self._library: ctypes.CDLL | None = None
        self._context: int | None = None

    def start(self) -> None:
        """From the loop's thread. Raises ConfigError without libnftables. Safe to repeat."""
        if self._library is None:
            self._library = _library()
        self._thread.start()

    def close(self) -> None:
        self._thread.submit(self._free)
        self._thread.close()

    async def run(self, script: str) -> None:
        """Apply one transaction. Raises NftError, then nothing of it happened."""
        await self._thread.call(lambda: self._run(script))

    async def call(self, function: Callable[[], T]) -> T:
        """Run something else on the thread, inside the namespace."""
        return await self._thread.call(function)

    async def query(self, command: str) -> list[dict[str, Any]]:
        """What a `list …` command prints, as nft's JSON objects (libnftables-json(5))."""
        text = await self._thread.call(lambda: self._run(command))
        return list(loads(text)["nftables"]) if text else []

    def _run(self, script: str) -> bytes:
        library = self._library
        if library is None:
            raise NftError("used before it was started")
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            library.nft_ctx_buffer_output(self._context)
            library.nft_ctx_buffer_error(self._context)
            library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT)
        failed = library.nft_run_cmd_from_buffer(self._context, script.encode())
        output: bytes = library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = library.nft_ctx_get_error_buffer(self._context) or b""
        if len(script) > _LARGE:
            _give_memory_back()
        if failed:
            raise NftError(errors.decode(errors="replace").strip() or "nftables refused a transaction")
        return output

    def _free(self) -> None:
        if self._library is not None and self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None
