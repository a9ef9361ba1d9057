"""Runs the command line for the tests: in this process, or as a program of its own."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envsynth.cli import main
from envsynth.store import Store

ROOT = Path(__file__).parents[1]
CATEGORY = "booking laboratory equipment"
SMALL = ("--seed", "6", "--lineages", "1", "--steps", "1", "--workers", "1")
"""Options of `synthesize` that make small environments, a second or two each."""


@dataclass(frozen=True)
class Ran:
    """What a call left."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Messages in one line, without the box and the line breaks of usage errors."""
        return " ".join(re.sub("[│╭╮╰╯─|]", " ", self.err).split())


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run the command line in this process, where exceptions that are bugs come out."""
    before = signal.getsignal(signal.SIGTERM)
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
    text = capsys.readouterr()
    return Ran(int(stop.value.code or 0), text.out, text.err)


def start(
    *arguments: object, setup: Callable[[], None] | None = None, stdout: Any = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    """Start the command line as a program, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "envsynth.cli", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=setup,
    )


def run(*arguments: object, setup: Callable[[], None] | None = None, **environment: str) -> Ran:
    """Run the command line as a program."""
    process = start(*arguments, setup=setup, **environment)
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


def small_files() -> None:
    """Let no file of this process grow beyond 64 KiB: what a full disk looks like to a program."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def held(path: Path) -> list[str]:
    """List everything that a store holds, by hash."""
    with Store.open(path, readonly=True) as store:
        found = [f"environment {entry}" for entry in store.environment_entries()]
        for entry in store.task_entries():
            found.append(f"task {entry} {store.task_json(entry.hash)}")
            found += [f"report {report.hash}" for report in store.reports(entry.hash)]
        found += [f"rejection {item.hash}" for item in store.rejections()]
        found += [f"trajectory {item.hash}" for item in store.trajectories()]
        found += [f"suite {store.suite(name).hash}" for name in store.suites()]
        return found + [f"run {entry}" for entry in store.runs()]
