"""The JSONL format of a suite: one canonical JSON object per line, self-contained, checked line by line.

Line 1 is the header: format, name, description, checksum, counts. Then come environments, ancestors (versions that
tasks of the suite were hardened from, roots first), the tasks in the suite's order, and gate reports, each as
`{"hash": ..., "kind": ..., "record": {...}}`. The checksum covers the ordered hashes of environments and tasks.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from pydantic import Field, JsonValue

from envsynth.errors import SpecError, SuiteError
from envsynth.record import ContentHash, Record
from envsynth.report import GateReport
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.records import SUITE_FORMAT, Suite, SuiteItem

LineKind = Literal["environment", "ancestor", "task", "report"]
"""What a line holds; lines come in this order."""

KINDS: dict[LineKind, type[EnvironmentSpec] | type[TaskVersion] | type[GateReport]] = {
    "environment": EnvironmentSpec,
    "ancestor": TaskVersion,
    "task": TaskVersion,
    "report": GateReport,
}
"""Class of the record by kind of line, in the order of the file."""

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Counts(Record):
    """How many lines of each kind follow the header."""

    environments: int = Field(ge=1)
    """Environment versions."""
    ancestors: int = Field(ge=0)
    """Task versions that tasks of the suite were hardened from and that are not in the suite."""
    tasks: int = Field(ge=1)
    """Tasks of the suite."""
    reports: int = Field(ge=0)
    """Gate reports, at most one per task version."""


class Header(Record):
    """The first line of a suite file."""

    kind: Literal["suite"] = "suite"
    """Tells the header from other lines."""
    format: Literal["envsynth-suite/1"] = SUITE_FORMAT
    """Version of the suite format."""
    name: str
    """Name of the suite."""
    description: str = ""
    """What it is for."""
    checksum: ContentHash
    """Hash of the ordered pairs of environment and task hash."""
    counts: Counts
    """How many lines of each kind follow."""


class _Line(Record):
    """The envelope of every other line."""

    kind: LineKind
    digest: ContentHash = Field(alias="hash")
    record: dict[str, JsonValue]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One checked line."""

    number: int
    """Line in the file, from 1."""
    kind: LineKind
    """What it holds."""
    hash: str
    """Content hash of the record."""
    record: EnvironmentSpec | TaskVersion | GateReport
    """The record."""


@dataclass(frozen=True, kw_only=True)
class LoadedSuite:
    """A suite with its records, without a store."""

    suite: Suite
    """Names and order of the tasks."""
    environments: dict[str, EnvironmentSpec] = field(repr=False)
    """Environment versions by hash, those of ancestors too."""
    tasks: dict[str, TaskVersion] = field(repr=False)
    """Task versions by hash in the suite's order."""
    ancestors: dict[str, TaskVersion] = field(repr=False)
    """Task versions by hash that tasks of the suite were hardened from, roots first."""
    reports: dict[str, GateReport] = field(repr=False)
    """Gate reports by hash of their task: the exporter's claims, not an audit of yours."""

    def pairs(self) -> list[tuple[EnvironmentSpec, TaskVersion]]:
        """Return the tasks with their environments in the suite's order, ready to be played."""
        return [(self.environments[task.environment], task) for task in self.tasks.values()]


def header_line(header: Header) -> bytes:
    """Return the first line of a file."""
    return header.to_json().encode() + b"\n"


def record_line(kind: LineKind, digest: str, text: str) -> bytes:
    """Return a line for a record whose canonical JSON is at hand; it is not parsed again.

    Args:
        kind: What the line holds.
        digest: Content hash of the record.
        text: Canonical JSON of the record.

    Returns:
        The line, canonical JSON itself, with its line end.
    """
    return f'{{"hash":"{digest}","kind":"{kind}","record":{text}}}\n'.encode()


def load_suite(path: str | Path) -> LoadedSuite:
    """Load a suite file without a store, to play or evaluate it.

    Args:
        path: A file that `export_jsonl` wrote.

    Returns:
        The suite with all its records.

    Raises:
        SuiteError: there is no such file, or it is damaged; the message names the line and the path of the key.
    """
    homes: dict[str, EnvironmentSpec] = {}
    versions: dict[str, dict[str, TaskVersion]] = {"task": {}, "ancestor": {}}
    reports: dict[str, GateReport] = {}
    reader = SuiteReader(Path(path))
    for entry in reader:
        if isinstance(entry.record, EnvironmentSpec):
            homes[entry.hash] = entry.record
        elif isinstance(entry.record, TaskVersion):
            versions[entry.kind][entry.hash] = entry.record
        else:
            reports[entry.record.task] = entry.record
    return LoadedSuite(
        suite=reader.suite,
        environments=homes,
        tasks=versions["task"],
        ancestors=versions["ancestor"],
        reports=reports,
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, _decoded(path, number, line)
    except OSError as error:
        raise SuiteError(f"cannot read suite {path}: {error.strerror}: check the path") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise SuiteError(
            f"{path} line {number} is not UTF-8 ({error.reason} at byte {error.start}): it is damaged or no suite file; "
            "export the suite again"
        ) from error


def _parsed(path: Path, number: int, text: str) -> dict[str, JsonValue]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"{path} line {number} is not JSON ({error}): the file is cut off or damaged; export the suite again"
        ) from error
    if not isinstance(value, dict):
        raise SuiteError(f"{path} line {number} is {text.strip()[:40]!r}, not an object; export the suite again")
    return cast(dict[str, JsonValue], value)


def _header(path: Path, number: int, text: str) -> Header:
    value = _parsed(path, number, text)
    if value.get("kind") != "suite":
        raise SuiteError(f"{path} line 1 is no suite header: this is no suite file, or its first line is missing")
    if value.get("format") != SUITE_FORMAT:
        raise SuiteError(
            f"{path} has format {value.get('format')!r}, this envsynth reads {SUITE_FORMAT!r}: upgrade envsynth, or "
            "export the suite again with this version"
        )
    try:
        return Header.parse(value)
    except SpecError as error:
        raise SuiteError(f"{path} line {number}: {error}") from error


class SuiteReader:
    """Reads a suite file and checks it line by line: kinds, keys, hashes, references, counts, checksum.

    Iterate once over the checked lines after the header; `suite` is there when the iteration has ended.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._suite: Suite | None = None
        self._counts: dict[LineKind, int] = dict.fromkeys(KINDS, 0)
        self._environments: dict[str, int] = {}
        self._versions: dict[str, str] = {}
        self._parents: dict[str, int] = {}
        self._reported: dict[str, int] = {}
        self._items: list[SuiteItem] = []
        self._last: LineKind = "environment"

    @property
    def suite(self) -> Suite:
        """The suite, once all lines are read.

        Raises:
            SuiteError: the file has not been read to its end.
        """
        if self._suite is None:
            raise SuiteError(f"{self._path} has not been read to its end: iterate over it first")
        return self._suite

    def __iter__(self) -> Generator[Entry, None, None]:
        header: Header | None = None
        for number, text in _lines(self._path):
            if header is None:
                header = _header(self._path, number, text)
            else:
                yield self._entry(number, text)
        if header is None:
            raise SuiteError(f"{self._path} is empty: export the suite again")
        self._suite = self._finish(header)

    def _entry(self, number: int, text: str) -> Entry:
        value = _parsed(self._path, number, text)
        try:
            line = _Line.parse(value)
            record = KINDS[line.kind].parse(line.record)
            found = record.hash
        except SpecError as error:
            raise self._wrong(number, str(error)) from error
        if found != line.digest:
            raise self._wrong(
                number,
                f"the {line.kind} says hash {line.digest}, its content has {found}: it was edited or damaged",
            )
        if _RANK[line.kind] < _RANK[self._last]:
            raise self._wrong(number, f"a line of kind {line.kind!r} stands after one of kind {self._last!r}")
        self._last = line.kind
        self._counts[line.kind] += 1
        if isinstance(record, EnvironmentSpec):
            self._once(number, self._environments, found, "environment")
        elif isinstance(record, TaskVersion):
            self._task(number, line.kind, found, record)
        else:
            self._report(number, record)
        return Entry(number=number, kind=line.kind, hash=found, record=record)

    def _finish(self, header: Header) -> Suite:
        promised: dict[str, int] = header.counts.model_dump()
        for kind, count in self._counts.items():
            if promised[f"{kind}s"] != count:
                raise SuiteError(
                    f"{self._path}: the header promises {promised[f'{kind}s']} {kind} lines, the file holds {count}: "
                    "it is cut off or was edited; export the suite again"
                )
        for parent, number in self._parents.items():
            if parent not in self._versions:
                raise self._wrong(number, f"the parent {parent} of this task stands on no line")
        try:
            suite = Suite.of(header.name, self._items, header.description)
        except SpecError as error:
            raise self._wrong(1, str(error)) from error
        if suite.checksum != header.checksum:
            raise SuiteError(
                f"{self._path}: the header says checksum {header.checksum}, the tasks give {suite.checksum}: tasks "
                "were exchanged or reordered; export the suite again"
            )
        return suite

    def _task(self, number: int, kind: LineKind, digest: str, task: TaskVersion) -> None:
        if task.environment not in self._environments:
            raise self._wrong(
                number,
                f"{kind} {digest}: its environment {task.environment} stands on no line before",
            )
        # A parent may stand on a later line, when it belongs to the suite too: checked at the end.
        if task.lineage.parent is not None:
            self._parents.setdefault(task.lineage.parent, number)
        if digest in self._versions:
            raise self._wrong(number, f"task {digest} stands in the file twice")
        self._versions[digest] = task.environment
        if kind == "task":
            self._items.append(SuiteItem(environment=task.environment, task=digest))

    def _report(self, number: int, report: GateReport) -> None:
        home = self._versions.get(report.task)
        if home != report.environment:
            raise self._wrong(
                number,
                f"a gate report of task {report.task} in environment {report.environment}, which is not here",
            )
        self._once(number, self._reported, report.task, "gate report of task")

    def _once(self, number: int, seen: dict[str, int], digest: str, what: str) -> None:
        if digest in seen:
            raise self._wrong(number, f"{what} {digest} stands on line {seen[digest]} already")
        seen[digest] = number

    def _wrong(self, number: int, what: str) -> SuiteError:
        return SuiteError(f"{self._path} line {number}: {what}")
