"""Rows of the matrix of hostile programs: who opens the jail, and with which layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from tests.sandbox.containment import MODES
from tests.sandbox.hostile_programs import HOSTILE
from tests.sandbox.plain_user import PlainUserError, plain_python

PROJECT = Path(__file__).resolve().parents[1]
ROOT, PLAIN = "root", "a plain user"


def play_rows(claims: Claims, rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Run all programs once for each row and print a line for it; without root, rows of root are left out and named.

    Args:
        claims: Where the lines go.
        rows: Who opens the jail, and a mode of `tests.sandbox.containment`.

    Yields:
        Who, the mode, and what each program did.
    """
    wanted = list(rows)
    is_root = os.geteuid() == 0
    if not is_root:
        print("      this is a plain user: the runs as root are left to a machine where that is possible")
    for mode in [mode for who, mode in wanted if who == ROOT and is_root]:
        command = [sys.executable, *_arguments(mode)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        yield ROOT, mode, _claim(claims, ROOT, mode, done)
    modes = [mode for who, mode in wanted if who == PLAIN]
    if not modes:
        return
    try:
        with plain_python() as python:
            print(f"      plain user: {python.how}")
            for mode in modes:
                yield PLAIN, mode, _claim(claims, PLAIN, mode, python.run(*_arguments(mode)))
    except PlainUserError as error:
        claims.line("hostile programs as a plain user", error, "an interpreter that runs", ok=False)


def _arguments(mode: str) -> list[str]:
    return ["-m", "tests.sandbox.containment", "--json", "--mode", mode]


def _claim(claims: Claims, who: str, mode: str, done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    right_user = [finding for finding in findings if (finding["uid"] == 0) == (who == ROOT)]
    contained = [finding["name"] for finding in right_user if not finding["leaks"]]
    public = [name for name in contained if name in HOSTILE]
    for finding in findings:
        if finding["leaks"]:
            print(f"      {finding['name']}: {'; '.join(finding['leaks'])}")
    if done.returncode:
        print(f"      exit code {done.returncode} {done.stderr[-500:]}")
    off = sorted({layer for finding in findings for layer in finding["off"]})
    unwanted = {layer for layer in ("namespaces", "landlock") if MODES[mode].get(layer) is False}
    value = (
        f"{len(public)} of {len(HOSTILE)} programs contained, and {len(contained) - len(public)} of our own; "
        f"layers off: {', '.join(off) or 'none'}"
    )
    ok = public == list(HOSTILE) and done.returncode == 0 and len(contained) == len(findings) and unwanted <= set(off)
    claims.line(f"hostile programs as {who}, {mode}", value, f"{len(HOSTILE)} of {len(HOSTILE)}", ok)
    return findings
