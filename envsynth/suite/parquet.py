"""Parquet export: one row per task, every column of one type, for data frames, `datasets` and trainers.

Nested values whose shape differs from task to task are JSON strings; `prompt` is a list of chat messages. The private
half (solution, verifier, oracle, probes, task program, gate report, which calls fail) can be left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from envsynth.environments.tools import tool_docs
from envsynth.errors import MissingExtra
from envsynth.record import canonical_json
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.records import Suite, TaskEntry
from envsynth.store.store import Store
from envsynth.suite.atomic import whole_file
from envsynth.suite.transfer import stored_items

ROWS_PER_GROUP = 64
"""Rows held in memory at once: an environment's JSON is a few hundred kilobytes."""

PRIVATE = ("faults", "delivery", "solution", "ablations", "verifier", "oracle", "probes", "ir", "gate_report")
"""Columns of the private half: what an actor must never see."""


def export_parquet(suite: Suite, store: Store, path: str | Path, *, include_private: bool = True) -> Path:
    """Write a suite as a Parquet file, one row per task in the suite's order.

    The file's metadata names the suite, its format and its checksum.

    Args:
        suite: The suite.
        store: The store that holds its tasks.
        path: Where the file shall be; an older file there is replaced whole.
        include_private: Whether solution, verifier, oracle, probes, task program, gate report and fault schedule are in
            it. Without them the file can be given away, but nobody can score with it, and of a task of the kind
            `recover` it does not say which calls fail: played from it, none does.

    Returns:
        The path.

    Raises:
        MissingExtra: pyarrow is not installed.
        SuiteError: a task is not in the store, or the file cannot be written; nothing is written then.
    """
    arrow, writer = _pyarrow()
    target = Path(path)
    items = stored_items(suite, store)
    schema = _schema(arrow, suite, include_private)
    with whole_file(target) as file, writer.ParquetWriter(file, schema, compression="zstd") as out:
        for start in range(0, len(items), ROWS_PER_GROUP):
            rows = list(_rows(store, items[start : start + ROWS_PER_GROUP], include_private))
            out.write_table(arrow.Table.from_pylist(rows, schema=schema))
    return target


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow, which is not installed: pip install 'envsynth[export]'") from error


def _schema(arrow: ModuleType, suite: Suite, include_private: bool) -> object:
    text, count = arrow.string(), arrow.int32()
    message = arrow.struct([("role", text), ("content", text)])
    columns = [
        ("task_id", text),
        ("env_id", text),
        ("slug", text),
        ("gym_id", text),
        ("category", text),
        ("kind", text),
        ("position", count),
        ("depth", count),
        ("operator", text),
        ("parent", text),
        ("status", text),
        ("prompt", arrow.list_(message)),
        ("tools", text),
        ("answer_schema", text),
        ("max_turns", count),
        ("max_calls", count),
        ("overlay", text),
        ("environment", text),
        ("content_hash", text),
    ]
    if include_private:
        columns += [(name, text) for name in PRIVATE]
    metadata = {
        "envsynth.suite": suite.name,
        "envsynth.format": suite.format,
        "envsynth.checksum": suite.checksum,
        "envsynth.half": "whole" if include_private else "public",
    }
    return arrow.schema(columns, metadata=metadata)


def _rows(store: Store, items: list[tuple[int, TaskEntry]], include_private: bool) -> Iterator[dict[str, Any]]:
    for position, entry in items:
        task, spec = store.task(entry.hash), store.environment(entry.environment)
        row = {"position": position, "status": entry.status, **_public(spec, task, entry)}
        if include_private:
            row |= _private(store, task, entry)
        yield row


def _public(spec: EnvironmentSpec, task: TaskVersion, entry: TaskEntry) -> dict[str, Any]:
    messages = [{"role": "user", "content": task.prompt}]
    if spec.policy:
        messages.insert(0, {"role": "system", "content": "\n".join(spec.policy)})
    return {
        "task_id": entry.hash,
        "env_id": entry.environment,
        "slug": spec.slug,
        "gym_id": spec.gym_id,
        "category": entry.category,
        "kind": task.kind,
        "depth": entry.depth,
        "operator": entry.operator,
        "parent": entry.parent,
        "prompt": messages,
        "tools": canonical_json(tool_docs(spec, task.delivery)),
        "answer_schema": canonical_json(task.answer_schema),
        "max_turns": task.max_turns,
        "max_calls": task.delivery.max_calls,
        "overlay": canonical_json([row.model_dump(mode="json") for row in task.overlay]),
        "environment": spec.to_json(),
        "content_hash": entry.hash,
    }


def _private(store: Store, task: TaskVersion, entry: TaskEntry) -> dict[str, Any]:
    report = store.latest_report(entry.hash)
    value = task.model_dump(mode="json")
    return {
        "faults": canonical_json(value.get("faults", [])),
        "delivery": canonical_json(task.delivery.model_dump(mode="json")),
        "solution": task.solution,
        **{name: canonical_json(value[name]) for name in ("ablations", "verifier", "oracle", "probes", "ir")},
        "gate_report": None if report is None else report.to_json(),
    }
