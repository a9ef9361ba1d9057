"""Plays the programs of the grammar, each in a fresh worker, and looks for leaks, stalls and what is left behind."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envsynth.errors import SandboxError
from envsynth.sandbox import Ask, CallResult, Failure, Jail, Limits, Worker
from envsynth.sandbox.requests import call, image_of, open_image
from tests.sandbox.containment import (
    MODES,
    Canaries,
    fresh_worker_works,
    image,
    leaks_in,
    pids,
    resident_mb,
    wait_for_processes,
)
from tests.sandbox.grammar import Program, generate
from tests.sandbox.hostile_programs import prepare

SHORT = Limits(soft_s=0.03, hard_s=0.12, memory_mb=48)
"""Limits under which even endless programs are over soon."""
STALL_S = 1.0
"""Seconds that a program may hold up the host: at most four requests, each with its hard limit, and the last words."""
ASKS = 4
"""Tool calls of a solution that are answered before it is left."""
CHECKED_EVERY = 100
"""Programs between two looks at whether a fresh worker is sound."""
JAILS = ("exposed", "default")

SAID = frozenset(Failure) - {Failure.UNSUPPORTED, Failure.SANDBOX_UNAVAILABLE}
"""How a request may end; the sandbox itself must never be down."""


def _by_call(worker: Worker, source: str) -> list[CallResult | Ask]:
    """Load, call and take the image: what is left of a forged frame meets the next request."""
    found: list[CallResult | Ask] = [worker.open(image()), worker.load(source)]
    if worker.alive:
        found.append(worker.call("attack", databases=("main",)))
    if worker.alive:
        found.append(worker.image())
    return found


def _by_batch(worker: Worker, source: str) -> list[CallResult | Ask]:
    """Ask for everything in one frame, so that forged replies to several requests may fit."""
    found: list[CallResult | Ask] = [worker.load(source)]
    if worker.alive:
        found += worker.run(
            [open_image("main", image()), call("attack", {}, "main"), image_of("main"), call("attack", {}, "main")]
        )
    return found


def _by_asking(worker: Worker, source: str) -> list[CallResult | Ask]:
    """Let a solution ask for tools; it gets values and errors in turn."""
    found: list[CallResult | Ask] = [worker.load(source)]
    if worker.alive:
        found.append(worker.begin("attack", {"db": None}))
    for turn in range(ASKS):
        if not isinstance(found[-1], Ask):
            break
        found.append(worker.reply({"rows": [turn]}) if turn % 2 else worker.reply_error({"code": "no"}))
    return found


_HOW = (("tools", _by_call), ("tools", _by_batch), ("solution", _by_asking))


def told(values: Iterable[Any]) -> str:
    """All text in plain data, each piece in quotation marks as in JSON; data may be too deep for an encoder."""
    found: list[str] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(f'"{value}"')
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
    return "\n".join(found)


@dataclass
class Report:
    """What playing many programs showed."""

    played: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    grown_mb: float = 0.0
    descriptors: int = 0
    processes: int = 0
    checks: int = 0
    problems: list[tuple[Program | None, str, str]] = field(default_factory=list)
    """Program, jail and what was wrong."""


def faults(results: list[CallResult | Ask], canaries: Canaries, seconds: float) -> list[str]:
    """Return what is wrong with the results of one program."""
    said: list[Any] = []
    found: list[str] = []
    for result in results:
        if isinstance(result, Ask):
            said += [result.tool, result.arguments]
            continue
        said += [
            result.value,
            result.error_type,
            result.code,
            result.message,
            result.stdout,
            result.blob.decode("latin-1"),
        ]
        if result.status not in SAID:
            found.append(f"status {result.status}: {result.message}")
    found += leaks_in(told(said)) + canaries.touched()
    if seconds > STALL_S:
        found.append(f"the host was held up for {seconds:.2f} s")
    return found


def play(jail: Jail, canaries: Canaries, program: Program, report: Report) -> list[str]:
    """Play a program in a worker of its own; return what was wrong."""
    role, how = _HOW[program.number % len(_HOW)]
    source = prepare(program.source, canaries.folder, canaries.shared, canaries.port)
    began = time.monotonic()
    results: list[CallResult | Ask] = []
    trouble: list[str] = []
    try:
        with jail.worker(role) as worker:
            results = how(worker, source)
    except SandboxError as error:
        trouble.append(f"SandboxError: {error}")
    except Exception as error:  # noqa: BLE001 - whatever a program makes the host raise is a find
        trouble.append(f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    report.longest_s = max(report.longest_s, seconds)
    report.ends.update("ask" if isinstance(result, Ask) else str(result.status) for result in results)
    return trouble + faults(results, canaries, seconds)


def play_many(numbers: Iterable[int], limits: Limits = SHORT) -> Report:
    """Play programs by number, each in an exposed and in a default jail, and look at what is left.

    Args:
        numbers: Which programs.
        limits: Limits of each request.

    Returns:
        What was found; nothing is raised for it.
    """
    report = Report()
    with Canaries() as canaries:
        gc.collect()
        besides = pids(os.getpid())  # of other jails of this process
        before = len(list(Path("/proc/self/fd").iterdir()))
        jails = {mode: Jail(limits, **MODES[mode]) for mode in JAILS}
        memory = resident_mb()
        for number in numbers:
            program = generate(number)
            for mode in JAILS:
                problems = play(jails[mode], canaries, program, report)
                report.problems += [(program, mode, problem) for problem in problems]
            report.played += 1
            report.targets[program.target] += 1
            if report.played % CHECKED_EVERY == 0:
                _check(jails, report)
        _check(jails, report)
        gc.collect()
        report.grown_mb = resident_mb() - memory
        for jail in jails.values():
            jail.close()
        report.processes = wait_for_processes(os.getpid(), 0, besides)
        report.descriptors = len(list(Path("/proc/self/fd").iterdir())) - before
    return report


def _check(jails: dict[str, Jail], report: Report) -> None:
    """Look whether fresh workers are sound; thrice, because a busy machine may pass limits as short as these."""
    for mode, jail in jails.items():
        report.checks += 1
        if not any(fresh_worker_works(jail, image()) for _ in range(3)):
            report.problems.append((None, mode, "a fresh worker is wrong"))
