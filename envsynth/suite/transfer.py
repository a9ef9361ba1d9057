"""Moves suites between stores and files: JSONL out, JSONL in. Export, import and export again give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envsynth.errors import StoreError, SuiteError
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.records import Suite, TaskEntry
from envsynth.store.store import Store
from envsynth.suite.atomic import whole_file
from envsynth.suite.freezing import check_name
from envsynth.suite.jsonl import Counts, Header, SuiteReader, header_line, record_line


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import brought."""

    name: str
    """Name of the suite, now frozen in the store."""
    checksum: str
    """Its checksum."""
    n_tasks: int
    """Tasks in it."""
    new_environments: tuple[str, ...]
    """Hashes of environments that were not in the store before."""
    new_tasks: tuple[str, ...]
    """Hashes of task versions, ancestors included, that were not in the store before."""
    unaudited: tuple[str, ...]
    """Hashes of the suite's tasks that the gates have not run on here."""

    def __str__(self) -> str:
        """One sentence for people: what is new, and what must not be trusted yet."""
        text = (
            f"suite {self.name!r}: {self.n_tasks} tasks, {len(self.new_tasks)} task versions and "
            f"{len(self.new_environments)} environments are new"
        )
        if self.unaudited:
            text += (
                f"; {len(self.unaudited)} tasks are unaudited: the gate reports in the file are its author's claims, "
                "so run `envsynth check --save` before you trust them"
            )
        return text


def export_jsonl(suite: Suite, store: Store, path: str | Path) -> Path:
    """Write a suite with all its records to one self-contained file.

    Args:
        suite: The suite.
        store: The store that holds its tasks.
        path: Where the file shall be; an older file there is replaced whole.

    Returns:
        The path.

    Raises:
        SuiteError: a task is not in the store, or the file cannot be written; nothing is written then.
        StoreError: a record in the store is damaged.
    """
    target = Path(path)
    tasks = [entry for _, entry in stored_items(suite, store)]
    ancestors = _ancestors(tasks, store)
    homes = list(dict.fromkeys(entry.environment for entry in (*tasks, *ancestors)))
    reports = [store.latest_report(entry.hash) for entry in (*ancestors, *tasks)]
    kept = [report for report in reports if report is not None]
    header = Header(
        name=suite.name,
        description=suite.description,
        checksum=suite.checksum,
        counts=Counts(environments=len(homes), ancestors=len(ancestors), tasks=len(tasks), reports=len(kept)),
    )
    with whole_file(target) as file:
        file.write(header_line(header))
        for home in homes:
            file.write(record_line("environment", home, store.environment_json(home)))
        for entry in ancestors:
            file.write(record_line("ancestor", entry.hash, store.task_json(entry.hash)))
        for entry in tasks:
            file.write(record_line("task", entry.hash, store.task_json(entry.hash)))
        for report in kept:
            file.write(record_line("report", report.hash, report.to_json()))
    return target


def import_jsonl(path: str | Path, store: Store) -> ImportResult:
    """Read a suite file into a store: all of it or, when anything is wrong, nothing.

    New records are marked as imported, and their tasks as unaudited whatever the gate reports in the file say: run the
    gates to audit them. Records that the store has already stay as they are.

    Args:
        path: A file that `export_jsonl` wrote.
        store: The store to read into.

    Returns:
        What is new, and which tasks are unaudited.

    Raises:
        SuiteError: the file is damaged (the message names the line and the path of the key), or the store has another
            suite of that name.
        StoreError: the store cannot be written, or a slug belongs to another environment there.
    """
    source = Path(path)
    reader = SuiteReader(source)
    try:
        with store.batch("imported") as batch:
            for entry in reader:
                if isinstance(entry.record, EnvironmentSpec):
                    batch.add_environment(entry.record)
                elif isinstance(entry.record, TaskVersion):
                    batch.add_task(entry.record)
                else:
                    batch.add_report(entry.record)
            suite = reader.suite
            check_name(store, suite)
            batch.add_suite(suite)
    except StoreError as error:
        raise type(error)(f"cannot import {source}: {error}") from error
    entries = store.entries_of([item.task for item in suite.items])
    return ImportResult(
        name=suite.name,
        checksum=suite.checksum,
        n_tasks=len(suite.items),
        new_environments=batch.new_environments,
        new_tasks=batch.new_tasks,
        unaudited=tuple(key for key, entry in entries.items() if entry.status == "unaudited"),
    )


def stored_items(suite: Suite, store: Store) -> list[tuple[int, TaskEntry]]:
    """Look up the tasks of a suite.

    Args:
        suite: The suite.
        store: The store that shall hold them.

    Returns:
        Position and index entry of each task, in the suite's order.

    Raises:
        SuiteError: a task is not in the store.
    """
    entries = store.entries_of([item.task for item in suite.items])
    missing = [item.task for item in suite.items if item.task not in entries]
    if missing:
        raise SuiteError(
            f"{len(missing)} of {len(suite.items)} tasks of suite {suite.name!r} are not in store {store.where}, the "
            f"first is {missing[0]}: open the store that it was frozen in"
        )
    return [(position, entries[item.task]) for position, item in enumerate(suite.items)]


def _ancestors(tasks: list[TaskEntry], store: Store) -> list[TaskEntry]:
    """Return the versions that tasks were hardened from and that are not among them, roots first."""
    known = {entry.hash for entry in tasks}
    found: dict[str, TaskEntry] = {}
    wanted = [entry.parent for entry in tasks]
    while level := [key for key in dict.fromkeys(wanted) if key is not None and key not in known | found.keys()]:
        entries = store.entries_of(level)
        found.update(entries)
        wanted = [entry.parent for entry in entries.values()]
    return sorted(found.values(), key=lambda entry: (entry.depth, entry.hash))
