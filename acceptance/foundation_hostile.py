"""Claim: all hostile programs are contained, as root and as a plain user, with all layers and with seccomp alone.

`python -m acceptance.foundation_hostile [--fast]`; without root it says that it ran as a plain user only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from tests.sandbox.hostile_programs import HOSTILE
from tests.sandbox.plain_user import PlainUserError, plain_python

PROJECT = Path(__file__).resolve().parents[1]
MODES = ("default", "seccomp only", "exposed")
"""All layers; seccomp alone; seccomp alone with ctypes, subprocess and the like preloaded."""


def _command(mode: str) -> list[str]:
    return ["-m", "tests.sandbox.containment", "--json", "--mode", mode]


def _claim(claims: Claims, who: str, mode: str, done: subprocess.CompletedProcess[str], as_root: bool) -> None:
    findings: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    right_user = [finding for finding in findings if (finding["uid"] == 0) == as_root]
    contained = [finding["name"] for finding in right_user if not finding["leaks"]]
    public = [name for name in contained if name in HOSTILE]
    for finding in findings:
        if finding["leaks"]:
            print(f"      {finding['name']}: {'; '.join(finding['leaks'])}")
    if done.returncode:
        print(f"      exit code {done.returncode} {done.stderr[-500:]}")
    value = f"{len(public)} of {len(HOSTILE)} programs contained, and {len(contained) - len(public)} of our own"
    ok = public == list(HOSTILE) and done.returncode == 0 and len(contained) == len(findings)
    claims.line(f"hostile programs as {who}, {mode}", value, f"{len(HOSTILE)} of {len(HOSTILE)}", ok)


def main() -> int:
    """Run the programs; return 1 when one is not contained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="only with all layers")
    modes = MODES[:1] if parser.parse_args().fast else MODES
    claims = Claims()
    if os.geteuid() == 0:
        for mode in modes:
            command = [sys.executable, *_command(mode)]
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
            _claim(claims, "root", mode, done, as_root=True)
    else:
        print("      this is a plain user: the run as root is left to a machine where that is possible")
    try:
        with plain_python() as python:
            print(f"      plain user: {python.how}")
            for mode in modes:
                _claim(claims, "a plain user", mode, python.run(*_command(mode)), as_root=False)
    except PlainUserError as error:
        claims.line("hostile programs as a plain user", error, "an interpreter that runs", ok=False)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
