"""`python -m bench`: every figure, its goal, its peer or limit in the same run, and the ratio.

Figures are medians of interleaved rounds. Nothing here passes or fails: read the ratios.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import uvloop

from bench import creates, footprint, lists, pods, scheduling, start, watchers
from bench.platform import SHOP, CommandFailed, Platform
from bench.table import RESULTS, Row, Section, print_head, print_section, write_results

Benchmark = Callable[[Platform], AsyncIterator[Row]]

BENCHMARKS: dict[str, Benchmark] = {
    "start": start.run,
    "footprint": footprint.run,
    "pods": pods.run,
    "creates": creates.run,
    "lists": lists.run,
    "watchers": watchers.run,
    "scheduling": scheduling.run,
}
_HOME = Path("/var/tmp/dure-bench")


async def measure(name: str, platform: Platform) -> Section:
    """A benchmark that fails says so in its section; the others go on."""
    section, began = Section(name), time.monotonic()
    try:
        async with aclosing(BENCHMARKS[name](platform)) as rows:  # type: ignore[type-var]
            async for row in rows:
                section.rows.append(row)
    except (CommandFailed, RuntimeError, OSError, TimeoutError) as error:
        section.failure = f"{type(error).__name__}: {error}"
    except ExceptionGroup as errors:
        section.failure = "; ".join(f"{type(error).__name__}: {error}" for error in errors.exceptions)
    section.seconds = time.monotonic() - began
    return section


async def prepare(platform: Platform) -> None:
    """Make the images once; they stay in the data folder for later runs."""
    marker = platform.home / "images" / "prepared"
    if marker.exists():
        return
    print(f"making the images of {SHOP.name}, once: ", end="", flush=True)
    began = time.monotonic()
    async with platform.running():
        await platform.deploy_shop()
        await start.run_pod(platform)
    marker.touch()
    print(f"{time.monotonic() - began:.0f} s")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be given more than once")
    parser.add_argument("--json", type=Path, help="file for the figures (default: bench/results/<time>.json)")
    parser.add_argument("--home", type=Path, default=_HOME, help=f"data folder (default {_HOME})")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: containers need root; try: sudo make bench", file=sys.stderr)
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    platform = Platform(options.home)
    await platform.down()
    await prepare(platform)
    print_head()
    sections: list[Section] = []
    for name in options.only or BENCHMARKS:
        sections.append(await measure(name, platform))
        print_section(sections[-1])
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path = options.json or RESULTS / f"{stamp}.json"
    write_results(path, sections)
    print(f"\n{path}")
    return 1 if any(section.failure for section in sections) else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
