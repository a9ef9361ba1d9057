"""Claim: bad input gets its message, the right exit code, and loses nothing.

The cases are the table in `tests/test_bad_input.py`: malformed records, wrong SQL, full disk, read-only store, interrupted
runs, two processes on one store, newer schema and so on. `--fast` leaves out those that synthesize.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from acceptance.claims import Claims

PROJECT = Path(__file__).resolve().parents[1]
LONG = "interrupted or two_processes or synthesizing"
"""Which tests take longer than a second or two."""


def main() -> int:
    """Run the table; return 1 when a case failed or was skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="only the cases that run within a second or two")
    chosen = ["-k", f"not ({LONG})"] if parser.parse_args().fast else []
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            f"--junitxml={results}",
        ]
        command += [*chosen, "tests/test_bad_input.py"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    bad = [
        case.get("name", "?")
        for case in cases
        if any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
    ]
    for name in bad:
        print(f"      not passed: {name}")
    if not cases:
        print(done.stdout[-2000:] + done.stderr[-2000:])
    claims = Claims()
    ok = bool(cases) and not bad and done.returncode == 0
    claims.line(
        "bad input: message, exit code, nothing lost",
        f"{len(cases) - len(bad)} of {len(cases)}",
        f"all of {len(cases)}",
        ok,
    )
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
