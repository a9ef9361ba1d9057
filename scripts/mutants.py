"""Plant known bugs in a copy of this project, one at a time, and see that the tests which name them fail.

`python scripts/mutants.py [FILE.toml ...]` reads `tests/mutants/*.toml` unless files are named. A file holds

    [[mutant]]
    name = "short-and-unique"
    row = "G1"                                  # optional: the row of a table that this bug belongs to
    file = "envsynth/policy/grpo.py"
    find = "exact source text; must occur exactly once"
    replace = "the bug"
    tests = "tests/policy/test_grpo.py::test_one tests/policy/test_grpo.py::test_two"

KILLED: a named test failed. SURVIVED: all passed. BROKEN: no verdict, because the text is not there exactly once, nothing
could be collected, a fixture failed, or time ran out. Exit code 0: all killed; 1: not all; 2: nothing could be
judged, because a file is malformed or a named test fails without any bug.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {"name", "row", "file", "find", "replace", "tests"}
SKIPPED = {".git", "__pycache__", "node_modules"}
"""Folders that are never copied, besides virtual environments."""


class BadFile(ValueError):
    """A file of mutants is malformed; the message says where and how."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One planted bug."""

    name: str
    """Unique over all files."""
    file: str
    """Which source file, relative to the root."""
    find: str
    """Text that occurs there exactly once."""
    replace: str
    """Text that takes its place."""
    tests: tuple[str, ...]
    """Test ids, of which at least one must fail."""
    row: str = ""
    """Row of a table that the bug belongs to."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a mutant."""

    name: str
    """Name of the mutant."""
    row: str
    """Its row."""
    status: str
    """KILLED, SURVIVED or BROKEN."""
    detail: str
    """The first test that failed, or why there is no verdict."""
    seconds: float
    """Wall time of the tests."""


def read_mutants(files: Sequence[Path]) -> list[Mutant]:
    """Read all files.

    Args:
        files: TOML files.

    Returns:
        Mutants in order of files and lines.

    Raises:
        BadFile: a file is no TOML, a field is missing, unknown or no text, or a name is there twice.
    """
    mutants: list[Mutant] = []
    for file in files:
        try:
            entries = tomllib.loads(file.read_text(encoding="utf-8")).get("mutant", [])
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadFile(f"{file}: {error}") from error
        for position, entry in enumerate(entries, start=1):
            where = f"{file.name}, mutant {position} ({entry.get('name', 'without a name')})"
            missing, unknown = sorted(FIELDS - {"row"} - set(entry)), sorted(set(entry) - FIELDS)
            if missing or unknown or not all(isinstance(value, str) for value in entry.values()):
                raise BadFile(f"{where}: missing fields {missing}, unknown fields {unknown}; every value is a text")
            if not entry["tests"].split() or entry["find"] == entry["replace"]:
                raise BadFile(f"{where}: name at least one test, and let find and replace differ")
            mutants.append(Mutant(**(entry | {"tests": tuple(entry["tests"].split())})))
    twice = sorted(name for name, count in Counter(mutant.name for mutant in mutants).items() if count > 1)
    if twice:
        raise BadFile(f"these names are there twice: {', '.join(twice)}")
    return mutants


def choose(mutants: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    """Take the mutants with these names.

    Args:
        mutants: All of them.
        only: Names; none: all.

    Returns:
        The chosen ones in their order.

    Raises:
        BadFile: a name is unknown, or nothing is left.
    """
    unknown = sorted(set(only) - {mutant.name for mutant in mutants})
    if unknown or not mutants:
        raise BadFile(f"no such mutants: {', '.join(unknown)}" if unknown else "there are no mutants to judge")
    return [mutant for mutant in mutants if not only or mutant.name in only]


def files_of(root: Path) -> list[Path]:
    """List the files of a project: tracked and untracked, without ignored ones where git can tell.

    Args:
        root: Folder of the project.

    Returns:
        Paths relative to the root, sorted.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    found = (
        [Path(name) for name in listed.stdout.split("\0") if name]
        if listed.returncode == 0
        else [path.relative_to(root) for path in root.rglob("*")]
    )
    return sorted(
        path
        for path in found
        if (root / path).is_file() and not any(part in SKIPPED or part.startswith(".venv") for part in path.parts)
    )


def copy_project(root: Path, target: Path) -> Path:
    """Copy the files of a project.

    Args:
        root: Folder of the project.
        target: Where to.

    Returns:
        The target.
    """
    for path in files_of(root):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target / path)
    return target


def run_tests(folder: Path, tests: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """Run tests in a copy.

    Args:
        folder: The copy.
        tests: Test ids.
        timeout_s: Limit, seconds.

    Returns:
        "passed", "failed" or "broken"; and the first failing test, or what went wrong.
    """
    report = folder / ".mutants-report.xml"
    report.unlink(missing_ok=True)
    # No bytecode: a mutation may keep size and second of a file, and then Python would run the cached original.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return "broken", f"no end within {timeout_s:g} seconds"
    if done.returncode == 0:
        return "passed", ""
    cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None]
    if done.returncode == 1 and failed:
        return "failed", failed[0]
    tail = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
    return "broken", f"pytest ended with {done.returncode} and no failed test: {''.join(tail)}"


def judge(mutant: Mutant, folder: Path, timeout_s: float) -> Verdict:
    """Plant one bug in a copy, run its tests, and take the bug out again.

    Args:
        mutant: The bug.
        folder: A copy of the project.
        timeout_s: Limit of its tests, seconds.

    Returns:
        The verdict.
    """
    began = time.monotonic()
    path = folder / mutant.file
    source = path.read_text(encoding="utf-8") if path.is_file() else None
    if source is None:
        status, detail = "broken", f"there is no file {mutant.file}"
    elif source.count(mutant.find) != 1:
        status, detail = "broken", f"find occurs {source.count(mutant.find)} times in {mutant.file}; it must be once"
    else:
        try:
            path.write_text(source.replace(mutant.find, mutant.replace), encoding="utf-8")
            status, detail = run_tests(folder, mutant.tests, timeout_s)
        finally:
            path.write_text(source, encoding="utf-8")
    word = {"failed": "KILLED", "passed": "SURVIVED", "broken": "BROKEN"}[status]
    seconds = round(time.monotonic() - began, 1)
    return Verdict(name=mutant.name, row=mutant.row, status=word, detail=detail, seconds=seconds)


def judge_all(mutants: Sequence[Mutant], root: Path, workers: int, timeout_s: float, is_quiet: bool) -> list[Verdict]:
    """Judge all mutants, each worker in a copy of its own.

    Args:
        mutants: Bugs.
        root: Folder of the project.
        workers: How many run side by side.
        timeout_s: Limit of the tests of one, seconds.
        is_quiet: Whether to print no line per mutant.

    Returns:
        Verdicts in order of the mutants.

    Raises:
        BadFile: a named test fails without any bug.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(workers):
            copies.put(copy_project(root, Path(temporary) / str(number)))

        def in_a_copy(mutant: Mutant) -> Verdict:
            folder = copies.get()
            try:
                return judge(mutant, folder, timeout_s)
            finally:
                copies.put(folder)

        folder = copies.get()
        named = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        status, detail = run_tests(folder, named, timeout_s * len(mutants))
        if status != "passed":
            raise BadFile(f"without any bug, the named tests must pass, but: {detail}")
        copies.put(folder)
        verdicts: list[Verdict] = []
        with ThreadPoolExecutor(workers) as pool:
            for verdict in pool.map(in_a_copy, mutants):
                verdicts.append(verdict)
                if not is_quiet:
                    row = f"{verdict.row:<4}"
                    print(
                        f"{verdict.status:<8} {verdict.seconds:6.1f} s  {row} {verdict.name}: {verdict.detail}",
                        flush=True,
                    )
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge mutants as the command line says; return the exit code.

    Args:
        arguments: Command line without the program; None: that of the process.

    Returns:
        0, 1 or 2, as the module says.
    """
    parser = argparse.ArgumentParser(description="Plant known bugs in a copy of the project and see its tests fail.")
    parser.add_argument("files", nargs="*", type=Path, help="TOML files; tests/mutants/*.toml by default")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="judge these alone; repeatable")
    parser.add_argument("--workers", type=int, default=1, help="how many run side by side")
    parser.add_argument("--timeout", type=float, default=300.0, help="limit of the tests of one mutant, seconds")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the project")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args(arguments)
    try:
        files = options.files or sorted(options.root.glob("tests/mutants/*.toml"))
        mutants = read_mutants(files)
        chosen = choose(mutants, options.only)
        verdicts = judge_all(chosen, options.root.resolve(), max(1, options.workers), options.timeout, options.json)
    except BadFile as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = Counter(verdict.status for verdict in verdicts)
    summary = {status.lower(): counts[status] for status in ("KILLED", "SURVIVED", "BROKEN")}
    if options.json:
        print(json.dumps({"summary": summary, "mutants": [asdict(verdict) for verdict in verdicts]}, indent=2))
    else:
        print(f"{len(verdicts)} mutants: " + ", ".join(f"{count} {status}" for status, count in summary.items()))
    return 0 if counts["KILLED"] == len(verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
