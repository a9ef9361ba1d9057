"""Build the SQLite image that an episode starts from. All SQL runs in a jail worker; the host never opens an image."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict, deque
from importlib import resources
from typing import Any

from pydantic import JsonValue

from envsynth.errors import SandboxError, SpecError
from envsynth.record import Scalar, content_hash
from envsynth.sandbox import CallResult, Jail, Limits, Worker
from envsynth.spec import Column, OverlayRow, Table, World

BUILD_LIMITS = Limits(soft_s=10.0, hard_s=20.0, cpu_s=60)
"""What one request of a build may use."""

ROWS_PER_REQUEST = 2_000
"""Rows in one request to the worker; keeps frames small."""

CACHE_BYTES = 32 << 20
"""Images kept in this process, by content hash; least recently used leave first."""


class _ImageCache:
    """Images by content hash, bounded by their total size."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
            return self._images.get(key)

    def put(self, key: str, image: bytes) -> None:
        with self._lock:
            self._images[key] = image
            while len(self._images) > 1 and sum(map(len, self._images.values())) > CACHE_BYTES:
                self._images.popitem(last=False)


_cache = _ImageCache()

_seen: deque[tuple[World, str]] = deque(maxlen=4)
"""The worlds seen last, with their hashes."""


@functools.cache
def _builder_source() -> str:
    package = resources.files("envsynth.environments")
    return package.joinpath("builder.py").read_text(encoding="utf-8")


def build_image(jail: Jail, world: World, overlay: tuple[OverlayRow, ...] = ()) -> bytes:
    """Build the database image of a world with a task's overlay rows.

    Args:
        jail: Where the worker that runs the SQL is forked.
        world: Schema and rows.
        overlay: Distractor rows, appended after the world's rows of their tables.

    Returns:
        Image of an SQLite database, rollback-journal mode. Equal input gives equal bytes.

    Raises:
        SpecError: a cell has another type than its column, or SQLite refuses a table or row; the message names it.
        SandboxError: the worker failed, which says nothing about the world.
    """
    key = content_hash([_world_hash(world), [row.model_dump(mode="json") for row in overlay]])
    image = _cache.get(key)
    if image is None:
        rows = _all_rows(world, overlay)
        with jail.worker("tools") as worker:
            image = _build(worker, world, rows)
        _cache.put(key, image)
    return image


def _world_hash(world: World) -> str:
    """Hash of a world; records never change, so that of one just seen is known by its identity."""
    for known, found in _seen:
        if known is world:
            return found
    found = content_hash(world.model_dump(mode="json"))
    _seen.append((world, found))
    return found


def image_hash(image: bytes) -> str:
    """Name the state of a database, as `info["final_state"]` does: 32 hexadecimal digits, equal for equal bytes."""
    return hashlib.sha256(image).hexdigest()[:32]  # processors have instructions for this one


def _all_rows(world: World, overlay: tuple[OverlayRow, ...]) -> dict[str, list[tuple[Scalar, ...]]]:
    rows = {table.name: list(world.rows.get(table.name, ())) for table in world.tables}
    for index, extra in enumerate(overlay):
        if extra.table not in rows:
            raise SpecError(f"overlay[{index}]: unknown table {extra.table!r}")
        names = [column.name for column in world.table(extra.table).columns]
        if sorted(extra.row) != sorted(names):
            raise SpecError(f"overlay[{index}]: cells {sorted(extra.row)} are not the columns {names}")
        rows[extra.table].append(tuple(extra.row[name] for name in names))
    for table in world.tables:
        for index, row in enumerate(rows[table.name]):
            for column, cell in zip(table.columns, row, strict=True):
                _check_cell(column, cell, f"rows.{table.name}[{index}].{column.name}")
    return rows


_CELL_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "TEXT": (str,), "REAL": (int, float)}


def _check_cell(column: Column, cell: Scalar, path: str) -> None:
    if cell is None:
        if not column.nullable:
            raise SpecError(f"{path}: NULL in a column that is not nullable")
    elif type(cell) not in _CELL_TYPES[column.type]:
        raise SpecError(f"{path}: {cell!r} is not of type {column.type}")
    elif isinstance(cell, int) and not -(2**63) <= cell < 2**63:
        raise SpecError(f"{path}: {cell!r} does not fit into 64 bits")


def create_statement(table: Table) -> str:
    """Return the CREATE TABLE statement of a table; strict types, so that tools cannot store other ones."""
    parts = [_column_clause(column) for column in table.columns]
    parts.append(f"PRIMARY KEY ({', '.join(map(_quoted, table.primary_key))})")
    parts.extend(f"CHECK ({check})" for check in table.checks)
    for column in table.columns:
        if column.references is not None:
            target, _, key = column.references.partition(".")
            reference = f"{_quoted(target)} ({_quoted(key)})"
            parts.append(f"FOREIGN KEY ({_quoted(column.name)}) REFERENCES {reference}")
    return f"CREATE TABLE {_quoted(table.name)} ({', '.join(parts)}) STRICT"


def _column_clause(column: Column) -> str:
    clause = f"{_quoted(column.name)} {column.type}"
    clause += "" if column.nullable else " NOT NULL"
    return clause + (" UNIQUE" if column.unique else "")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _build(worker: Worker, world: World, rows: dict[str, list[tuple[Scalar, ...]]]) -> bytes:
    _expect(worker.load(_builder_source(), "world_builder"))
    _expect(worker.open(b"", "main"))
    statements: list[JsonValue] = [[table.name, create_statement(table)] for table in world.tables]
    _ask(worker, "create_tables", {"statements": statements})
    for table in world.tables:
        marks = ", ".join("?" for _ in table.columns)
        sql = f"INSERT INTO {_quoted(table.name)} VALUES ({marks})"
        found = rows[table.name]
        for start in range(0, len(found), ROWS_PER_REQUEST):
            part: list[Any] = [list(row) for row in found[start : start + ROWS_PER_REQUEST]]
            request: dict[str, JsonValue] = {
                "table": table.name,
                "sql": sql,
                "rows": part,
                "start": start,
            }
            _ask(worker, "insert_rows", request)
    _ask(worker, "check_references", {})
    return _expect(worker.image("main")).blob


def _expect(result: CallResult) -> CallResult:
    if not result.ok:
        raise SandboxError(f"building a world failed: {result.status.value}: {result.message}", result.status.value)
    return result


def _ask(worker: Worker, function: str, arguments: dict[str, JsonValue]) -> None:
    result = _expect(worker.call(function, arguments, databases=("main",), limits=BUILD_LIMITS))
    problem = result.value
    if isinstance(problem, dict):
        where = f"table {problem['table']!r}"
        row = problem["row"]
        where += "" if row is None else f", row {row}"
        raise SpecError(f"malformed world: {where}: {problem['message']}")
