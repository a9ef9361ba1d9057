"""Run a command and measure its whole tree of processes: wall time, processor time, greatest memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAUSE_S, LATER_PAUSE_S = 0.5, 5.0
"""Seconds between two looks at the tree, in its first ten seconds and later: a look at sixty processes costs tens of
milliseconds."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """What a command took."""

    code: int
    """Exit code."""
    out: str
    """What it wrote to stdout."""
    wall_s: float
    """Seconds from start to end."""
    cpu_s: float
    """Processor seconds, user and system, of the command and of all processes that were waited for."""
    peak_bytes: int
    """Greatest memory of all processes at one look: of a page that several share, each counts its part."""


def members(root: int) -> list[int]:
    """Return a process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            parent = int(text.rpartition(")")[2].split()[1])  # the name before it may hold spaces and brackets
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def resident(processes: Sequence[int]) -> int:
    """Sum the memory of processes, bytes; those that have ended count nothing.

    Proportional: a page that n of all processes share counts 1/n for each. Where the kernel does not tell that of a process,
    all of its resident memory counts.
    """
    total = 0
    for process in processes:
        try:
            total += _proportional(process)
        except OSError:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
    return total


def _proportional(process: int) -> int:
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def measure(command: Sequence[str], *, folder: Path | None = None, quiet: bool = False) -> Measured:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        quiet: Whether its messages are dropped instead of shown.

    Returns:
        What it took.
    """
    began, before = time.monotonic(), _cpu_of_children()
    peaks = [0]
    ended = threading.Event()
    process = subprocess.Popen(
        list(command), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet else None, text=True
    )

    def watch() -> None:
        while not ended.wait(PAUSE_S if time.monotonic() - began < 10 else LATER_PAUSE_S):
            peaks.append(resident(members(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out = ""
    try:
        out, _ = process.communicate()
    except KeyboardInterrupt:  # the command got it as well: what it took counts, and its exit code tells of it
        process.wait()
    finally:
        ended.set()
        watcher.join()
    wall, cpu = time.monotonic() - began, _cpu_of_children() - before
    return Measured(process.returncode, out, wall, cpu, max(peaks))


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system
