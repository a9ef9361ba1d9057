"""The table of properties of training: each row has tests that pass in four seconds or are marked slow, and planted bugs.

A row's tests are those that its planted bugs name (`FILES`). Full: the tests run and are timed, so the
machine must be idle, and every bug is planted and must be noticed, which takes many minutes. `--fast`: that every row has
bugs and every test that they name exists; `make test` and `make slow` run them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

from acceptance.claims import Claims
from scripts.mutants import Mutant, read_mutants

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("G1", "G2", "K1", "K2", "O1", "O2", "S1", "S2", "S3", "R1", "R2", "R3", "N2", "E1", "C1", "P1")
SECONDS = 4.0
FILES = [ROOT / "tests" / "mutants" / f"{name}.toml" for name in ("grpo", "policy", "train")]
"""Where the bugs of these rows are; those of the jail stand in a file of their own."""


def row_of(mutant: Mutant) -> str:
    """The row that a planted bug belongs to: its field, else the beginning of its name."""
    return mutant.row or mutant.name.partition(":")[0]


def run_tests(tests: list[str]) -> dict[str, tuple[str, float]]:
    """Run tests, slow ones too; return status and seconds by test id without parameters (the worst of them)."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        found: dict[str, tuple[str, float]] = {}
        for case in ET.parse(report).getroot().iter("testcase"):
            path = case.get("classname", "").replace(".", "/") + ".py"
            test = f"{path}::{case.get('name', '').partition('[')[0]}"
            bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
            before = found.get(test, ("pass", 0.0))
            seconds = max(before[1], float(case.get("time", "0")))
            found[test] = ("fail" if bad or before[0] == "fail" else "pass", seconds)
    return found


def collected(marks: str = "") -> set[str]:
    """Ids, without parameters, of the tests of policy and training, or of those with a mark."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", marks, "tests/policy", "tests/train"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {line.partition("[")[0] for line in text.splitlines() if "::" in line}


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    claims = Claims()
    mutants = read_mutants(FILES)
    tests: dict[str, dict[str, None]] = defaultdict(dict)
    for mutant in mutants:
        tests[row_of(mutant)] |= dict.fromkeys(test.partition("[")[0] for test in mutant.tests)
    if fast:
        known = collected()
        for row in ROWS:
            there = sum(test in known for test in tests[row])
            claims.line(
                f"row {row}: tests that its {sum(row_of(mutant) == row for mutant in mutants)} planted bugs name",
                f"{there} of {len(tests[row])} exist",
                "all, at least one",
                0 < there == len(tests[row]),
            )
        return claims.exit_code()
    wanted = [test for row in ROWS for test in tests[row]]
    found, slow = run_tests(list(dict.fromkeys(wanted))), collected("slow")
    for row in ROWS:
        mine = {test: found.get(test, ("missing", 0.0)) for test in tests[row]}
        passed = sum(status == "pass" for status, _ in mine.values())
        longest = max((seconds for test, (_, seconds) in mine.items() if test not in slow), default=0.0)
        claims.line(
            f"row {row}: tests that pass; the longest that is not marked slow",
            f"{passed} of {len(mine)}; {longest:.1f} s",
            f"all; {SECONDS:g} s",
            bool(mine) and passed == len(mine) and longest <= SECONDS,
        )
    _mutants(claims, len(mutants))
    return claims.exit_code()


def _mutants(claims: Claims, count: int) -> None:
    command = [sys.executable, "scripts/mutants.py", *map(str, FILES), "--workers", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    verdicts = json.loads(done.stdout)["mutants"]
    killed = sum(verdict["status"] == "KILLED" for verdict in verdicts)
    claims.line("planted bugs that a test notices", f"{killed} of {count}", "all", killed == count)
    for verdict in verdicts:
        if verdict["status"] != "KILLED":
            print(f"      {verdict['status']}: {verdict['name']}: {verdict['detail']}")


if __name__ == "__main__":
    raise SystemExit(main())
