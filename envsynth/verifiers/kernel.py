"""The verifier kernel: loaded as source text into a fresh verifier worker, before anything of the task.

The host reads this file and sends it; it never judges with it. It imports only the standard library, because the worker
has nothing else. Four ideas: the diff is computed once, from pristine rows, before task code runs; every state atom
claims the entries that satisfy it; what nobody claimed fails the frame; what depends on the initial rows only is worked
out once for all outcomes of a request, where no outcome is in sight.
"""

from __future__ import annotations

import copy
import functools
import marshal
import traceback
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, cast

REASON_CHARS = 500
"""Reasons and failures are cut to this many characters."""

Rows = dict[str, list[dict[str, Any]]]
Entry = dict[str, Any]


class BrokenVerifierError(Exception):
    """The verifier, or the outcome that it is given, is defective: no verdict."""


def lookup(value: Any, *path: str | int) -> Any:
    """Follow keys and indexes into nested data without raising.

    Args:
        value: Nested dictionaries and lists.
        *path: Keys and indexes.

    Returns:
        What stands there, or None when the path leads nowhere.
    """
    found = value
    for step in path:
        if isinstance(step, str):
            found = cast("Entry", found).get(step) if isinstance(found, dict) else None
            continue
        items = cast("list[Any]", found) if isinstance(found, list) else []
        found = items[step] if -len(items) <= step < len(items) else None
    return found


def same(left: Any, right: Any) -> bool:
    """Whether two scalars have equal type and value: 1, 1.0 and True are three different things."""
    return type(left) is type(right) and left == right


def row_diff(before: Rows, after: Rows, keys: dict[str, list[str]]) -> list[Entry]:
    """Compute which rows were inserted, updated or deleted.

    Args:
        before: Rows by table.
        after: Rows by table.
        keys: Primary key columns by table; a table without any is compared by whole rows.

    Returns:
        Entries `{op, table, old, new, changed}`: tables in order of `keys`; in each, first what was there before in its
        order (updates and deletions), then insertions in theirs. Rows are copies.
    """
    diff: list[Entry] = []
    for table, key in keys.items():
        olds, news = before.get(table, []), after.get(table, [])
        if olds is news:
            continue
        alike = _alike(olds, news)
        if alike == len(olds) == len(news):
            continue
        if key:  # rows alike at the start are each other's; without a key the order of columns counts as well
            olds, news = olds[alike:], news[alike:]
        rest = _index(news, key)
        for old in olds:
            matches = rest.get(_identity(old, key))
            new = matches.pop(0) if matches else None
            changed = [] if new is None else _changed(old, new)
            if new is None:
                diff.append(_entry("delete", table, old, None, []))
            elif changed:
                diff.append(_entry("update", table, old, new, changed))
        left = {id(row) for rows in rest.values() for row in rows}
        diff.extend(_entry("insert", table, None, row, []) for row in news if id(row) in left)
    return diff


def _alike(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> int:
    """How many rows two tables have in common at their start: all of most tables, the old ones of one that grew."""
    count = 0
    for old, new in zip(before, after, strict=False):
        if old is not new and _changed(old, new):
            break
        count += 1
    return count


def _entry(op: str, table: str, old: Any, new: Any, changed: list[str]) -> Entry:
    return {
        "op": op,
        "table": table,
        "old": None if old is None else dict(old),
        "new": None if new is None else dict(new),
        "changed": changed,
    }


def _identity(row: dict[str, Any], key: list[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((type(row.get(column)).__name__, row.get(column)) for column in key or row)


def _index(rows: list[dict[str, Any]], key: list[str]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(_identity(row, key), []).append(row)
    return found


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    # Nearly all rows are untouched; these comparisons run in C.
    if old == new and list(old) == list(new) and [*map(type, old.values())] == [*map(type, new.values())]:
        return []
    columns = dict.fromkeys([*old, *new])
    return [
        column for column in columns if column not in old or column not in new or not same(old[column], new[column])
    ]


# ----------------------------------------------------------------------------------------------------- reading images


def read_schema(db: Any) -> dict[str, str]:
    """Return the SQL of every object of the schema by `type name`, in order of creation."""
    query = "SELECT type, name, sql FROM sqlite_master ORDER BY rowid"
    return {f"{row['type']} {row['name']}": row["sql"] or "" for row in db.execute(query)}


def read_keys(db: Any) -> dict[str, list[str]]:
    """Return the primary key columns of every table."""
    keys: dict[str, list[str]] = {}
    for table in _tables(db):
        columns = list(db.execute(f"PRAGMA table_info({_quoted(table)})"))
        keyed = sorted((row["pk"], row["name"]) for row in columns if row["pk"])
        keys[table] = [name for _, name in keyed]
    return keys


def read_columns(db: Any) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return declared type and whether NULL is refused, by table and column."""
    return {
        table: {
            row["name"]: (row["type"], bool(row["notnull"] or row["pk"]))
            for row in db.execute(f"PRAGMA table_info({_quoted(table)})")
        }
        for table in _tables(db)
    }


def read_rows(db: Any) -> Rows:
    """Return all rows of all tables as dictionaries, in order of insertion."""
    return {table: _as_rows(*_read(db, table)) for table in _tables(db)}


def _read(db: Any, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of columns, and rows as tuples: a fifth of the time that dictionaries take."""
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute(f"SELECT * FROM {_quoted(table)} ORDER BY rowid")
    return [column[0] for column in cursor.description], cursor.fetchall()


def _as_rows(names: list[str], rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def _exactly(names: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    """Bytes that are equal for equal tables only: names, order of rows, types and values."""
    return marshal.dumps((names, rows), 2)


def _tables(db: Any) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    )
    return [row["name"] for row in db.execute(query)]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _schema_diff(before: dict[str, str], after: dict[str, str]) -> list[Entry]:
    """Entries of op `schema`: a tool that alters the schema changed something, and no atom can claim it."""
    return [
        _entry("schema", name, {"sql": before.get(name)}, {"sql": after.get(name)}, ["sql"])
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


class _Pages:
    """Which pages of the initial image hold which table, so that tables whose pages are as they were are not read again.

    A table is untouched when the schema, its root and every page that the root leads to are. Pages that no tree of the
    initial image leads to (overflowing cells, free pages) may belong to any table: a change in one of them tells nothing.

    Args:
        db: The initial database.
    """

    def __init__(self, db: Any) -> None:
        self._image = bytes(db.serialize())
        size = int.from_bytes(self._image[16:18])
        self._size = 65536 if size == 1 else size or 4096
        self._count = len(self._image) // self._size
        self._roots = self._read_roots(db)
        self._names = {name for _, name, root, _ in self._roots if root}  # a view or virtual table has no root
        self._owners: dict[int, str] = {}
        for _, name, root, _ in self._roots:
            if root:
                self._own_tree(name, root)

    @staticmethod
    def _read_roots(db: Any) -> list[tuple[Any, ...]]:
        cursor = db.cursor()
        cursor.row_factory = None
        return cursor.execute("SELECT type, name, rootpage, sql FROM sqlite_master ORDER BY rowid").fetchall()

    def _own_tree(self, name: str, root: int) -> None:
        """Note all pages of a tree: an interior page names its children, each cell one and the header the last.

        Raises:
            BrokenVerifierError: the image is damaged.
        """
        todo = [root]
        while todo:
            number = todo.pop()
            if not 0 < number <= self._count or number in self._owners:
                raise BrokenVerifierError(f"the initial database is damaged: page {number} of {name!r}")
            self._owners[number] = name
            page = self._image[(number - 1) * self._size : number * self._size]
            if page[0] in (2, 5):  # no leaf
                cells = int.from_bytes(page[3:5])
                places = [int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell]) for cell in range(cells)]
                todo += [int.from_bytes(page[place : place + 4]) for place in (*places, 8)]

    def untouched(self, db: Any) -> set[str] | None:
        """Names of tables and indexes that are as they were; None when pages cannot tell."""
        image, size = bytes(db.serialize()), self._size
        if image == self._image:
            return self._names
        # Size of pages, space reserved in each, format of the schema, encoding of text.
        fixed = (slice(16, 18), slice(20, 21), slice(44, 48), slice(56, 60))
        if len(image) < len(self._image) or any(image[part] != self._image[part] for part in fixed):
            return None
        # Typed: a root of another type, or a text that equals a number, would be another schema.
        if marshal.dumps(self._read_roots(db), 2) != marshal.dumps(self._roots, 2):
            return None
        touched: set[str] = set()
        for number in range(2, self._count + 1):
            start = (number - 1) * size
            if image[start : start + size] != self._image[start : start + size]:
                if number not in self._owners:
                    return None
                touched.add(self._owners[number])
        return self._names - touched


# ------------------------------------------------------------------------------------------------- outcomes on paper


def apply_changes(
    rows: Rows,
    keys: dict[str, list[str]],
    columns: dict[str, dict[str, tuple[str, bool]]],
    changes: list[Entry],
) -> Rows:
    """Apply stated row changes to a copy of the initial rows.

    Args:
        rows: Initial rows by table; not modified.
        keys: Primary key columns by table.
        columns: Declared type and NOT NULL by table and column.
        changes: `{op, table, row}`: insert (a missing primary key is filled), update, delete.

    Returns:
        The rows afterwards.

    Raises:
        BrokenVerifierError: a change names a table, column or row that does not exist, or inserts a row twice.
    """
    after = {table: list(found) for table, found in rows.items()}
    for change in changes:
        op, table, row = change["op"], change["table"], dict(change["row"])
        if table not in after:
            raise BrokenVerifierError(f"outcome: {op} in unknown table {table!r}")
        unknown = [column for column in row if column not in columns[table]]
        if unknown:
            raise BrokenVerifierError(f"outcome: {op} in {table!r} has unknown columns {unknown}")
        if op == "insert":
            after[table].append(_complete(row, after[table], keys[table], columns[table], table))
            continue
        position = _find(after[table], row, keys[table], f"outcome: {op} in {table!r}")
        if op == "delete":
            del after[table][position]
        else:
            after[table][position] = {**after[table][position], **row}
    return after


def _find(rows: list[dict[str, Any]], row: dict[str, Any], key: list[str], what: str) -> int:
    wanted = _identity(row, key)
    for position, candidate in enumerate(rows):
        if _identity(candidate, key) == wanted:
            return position
    raise BrokenVerifierError(f"{what}: no row with that primary key {[row.get(k) for k in key]}")


def _complete(
    row: dict[str, Any],
    rows: list[dict[str, Any]],
    key: list[str],
    columns: dict[str, tuple[str, bool]],
    table: str,
) -> dict[str, Any]:
    full: dict[str, Any] = {}
    for column, (kind, required) in columns.items():
        value = row.get(column)
        if value is None and column in key:
            value = _fresh([other.get(column) for other in rows], kind)
        if value is None and required:
            raise BrokenVerifierError(f"outcome: insert in {table!r} lacks column {column!r}")
        full[column] = value
    if _identity(full, key) in _index(rows, key):
        raise BrokenVerifierError(f"outcome: insert in {table!r} repeats a primary key")
    return full


def _fresh(taken: list[Any], kind: str) -> Any:
    if kind == "INTEGER":
        return max((value for value in taken if isinstance(value, int)), default=0) + 1
    number = len(taken) + 1
    while f"new-{number}" in taken:
        number += 1
    return f"new-{number}"


# ------------------------------------------------------------------------------------------------------------ judging


class Initial:
    """What definitions marked `once` say of the initial rows; worked out once for all outcomes of a request.

    They run in a namespace of their own, which has neither answer nor diff nor final rows: one that asks for these is
    broken. Whatever they return is kept as bytes, and each caller gets a copy of its own; so no outcome can leave anything
    to the next one.

    Args:
        source: The task's definitions.
        before: Initial rows; copied before the definitions see them.
    """

    def __init__(self, source: str, before: Rows) -> None:
        self._source, self._before = source, before
        self._space: Entry = {}
        self._bytes: dict[str, bytes] = {}  # of initial rows by table, to find out whether a definition modified them
        self._functions: dict[str, Callable[..., Any]] = {}
        self._known: dict[tuple[str, bytes], bytes] = {}
        self._working = False

    def once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Mark a definition whose value depends on its arguments and the initial rows `db` only."""
        name = function.__qualname__

        def known(*given: Any) -> Any:
            key = name, _plain(given, f"an argument of {name!r}")
            if key not in self._known:
                self._known[key] = self._work_out(*key)
            return marshal.loads(self._known[key])

        return known

    def _work_out(self, name: str, given: bytes) -> bytes:
        """Call a definition on arguments of its own; definitions that it calls come here in turn.

        Raises:
            BrokenVerifierError: it cannot be kept for other outcomes.
        """
        outermost, self._working = not self._working, True
        done = False
        try:
            if not self._functions:
                self._define()
            if name not in self._functions:
                raise BrokenVerifierError(f"{name!r} is marked `once` and stands not at the top level")
            value = _plain(self._functions[name](*marshal.loads(given)), f"what {name!r} returns")
            if outermost and not self._is_pristine():
                raise BrokenVerifierError(f"{name!r} is marked `once` and modified the initial rows")
            done = True
        finally:
            self._working = not outermost
            if outermost and not done:  # it stopped half-way: nothing of what it may have left is kept
                self._functions, self._known = {}, {}
        return value

    def _is_pristine(self) -> bool:
        rows = self._space.get("db")
        if type(rows) is _Tables:
            return rows.is_as_it_was(self._bytes)
        return marshal.dumps(rows, 2) == marshal.dumps(self._before, 2)

    def _define(self) -> None:
        self._space = {**_namespace(), "db": _Tables(self._before), "once": self._register}
        exec(_compiled(self._source, "<task definitions>", "exec"), self._space)  # noqa: S102 - runs in the jail

    def _register(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if function.__qualname__ in self._functions:
            raise BrokenVerifierError(f"{function.__qualname__!r} is marked `once` and defined twice")
        self._functions[function.__qualname__] = function
        return self.once(function)


def _plain(value: Any, what: str) -> bytes:
    """Bytes that are equal for equal plain data only.

    Raises:
        BrokenVerifierError: it is no plain data.
    """
    try:
        return marshal.dumps(value, 2)
    except ValueError as error:
        if type(value) is tuple and any(type(part) is _Tables for part in cast("tuple[Any, ...]", value)):
            plain = tuple(dict(part) if type(part) is _Tables else part for part in cast("tuple[Any, ...]", value))
            return _plain(plain, what)
        raise BrokenVerifierError(f"{what} is no plain data, which `once` needs") from error


def _copied(rows: Rows) -> Rows:
    return {table: [row.copy() for row in found] for table, found in rows.items()}


_UNSEEN: Any = object()
"""Stands in a `_Tables` for the rows of a table that nobody has looked at."""


class _Tables(dict[str, list[dict[str, Any]]]):
    """A copy of rows, made for each table when it is first looked at: task code looks at few of them.

    In all else it is like a dictionary whose tables were copied at the start, as what it copies never changes.

    Args:
        rows: Rows by table, which nobody may change.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        super().__init__((table, _UNSEEN) for table in rows)
        self._rows = rows

    def __getitem__(self, table: str, /) -> list[dict[str, Any]]:
        found = super().__getitem__(table)
        if found is _UNSEEN:
            found = [row.copy() for row in self._rows[table]]
            super().__setitem__(table, found)
        return found

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # without a method here, `dict(...)` would take the values as they lie

    def get(self, table: str, default: Any = None, /) -> Any:
        return self[table] if table in self else default  # noqa: SIM401 - that would be this method

    def __reduce_ex__(self, _: Any, /) -> Any:
        return dict, (dict(self),)  # copies of it are plain dictionaries

    def look_at_all(self) -> None:
        for table in self:
            self[table]  # pyright: ignore[reportUnusedExpression] - copies it

    def is_as_it_was(self, known: dict[str, bytes]) -> bool:
        """Whether all that somebody has looked at equals the rows that it was copied from, whose bytes are kept."""
        seen = {table: found for table, found in super().items() if found is not _UNSEEN}
        if list(self) != list(self._rows):
            return False
        known.update((table, marshal.dumps(self._rows[table], 2)) for table in seen if table not in known)
        return all(marshal.dumps(found, 2) == known[table] for table, found in seen.items())


def _looking_at_all(name: str) -> Any:
    inherited: Any = getattr(dict, name)

    @functools.wraps(inherited)
    def method(self: _Tables, *given: Any, **named: Any) -> Any:
        for tables in (self, *given):
            if type(tables) is _Tables:
                tables.look_at_all()
        return inherited(self, *given, **named)

    return method


for _name in (
    "__eq__", "__ior__", "__ne__", "__or__", "__repr__", "__ror__", "copy", "items", "pop", "popitem", "setdefault",
    "update", "values",
):  # fmt: skip
    setattr(_Tables, _name, _looking_at_all(_name))


def _copied_entries(diff: list[Entry]) -> list[Entry]:
    """Copies as `copy.deepcopy` makes them; the cells of rows are scalars."""
    return [_entry(entry["op"], entry["table"], entry["old"], entry["new"], entry["changed"].copy()) for entry in diff]


def judge_one(
    task: dict[str, Any],
    answer: Any,
    before: Rows,
    after: Rows,
    diff: list[Entry],
    initial: Initial | None = None,
) -> Entry:
    """Judge one outcome in a namespace of its own.

    Args:
        task: `{form, definitions, atoms: [{id, kind, expression}], program}`.
        answer: The final answer, already checked against its schema.
        before: Initial rows.
        after: Final rows.
        diff: The row diff.
        initial: What is known of the initial rows from other outcomes of the same task.

    Returns:
        `{"checks": [[id, ok, reason], ...], "broken": None}` or `{"checks": [], "broken": text}`.
    """
    is_program = task["form"] == "program"
    copied = _copied if is_program else _Tables
    world = {
        "answer": copy.deepcopy(answer),
        "before": copied(before),
        "after": copied(after),
        "diff": _copied_entries(diff),
    }
    space: Entry = _namespace()
    try:
        if is_program:
            checks = _run_program(task["program"], world, space)
        else:
            once = (initial or Initial(task["definitions"], before)).once
            checks = _run_atoms(task["definitions"], task["atoms"], world, once, space)
    except Exception as error:  # noqa: BLE001 - whatever task code raises is the same fact: no verdict
        return {"checks": [], "broken": _describe(error)}
    finally:
        space.clear()  # functions and their namespace hold each other: what the outcome saw is freed now, not some day
    return {"checks": checks, "broken": None}


def _describe(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<task")]
    where = f" (at {frames[-1].filename} line {frames[-1].lineno})" if frames else ""
    text = str(error)[:REASON_CHARS]
    return text if isinstance(error, BrokenVerifierError) else f"{type(error).__name__}: {text}{where}"


def _namespace() -> dict[str, Any]:
    return {"__name__": "task", "lookup": lookup, "same": same}


@functools.cache
def _compiled(source: str, name: str, mode: str) -> CodeType:
    """Compile task code once for all outcomes of a request; code objects are immutable."""
    return compile(source, name, mode)


def _run_program(source: str, world: dict[str, Any], space: Entry) -> list[list[Any]]:
    exec(_compiled(source, "<task program>", "exec"), space)  # noqa: S102 - this module runs in the jail
    function = space.get("verify")
    if not callable(function):
        raise BrokenVerifierError("the program defines no function `verify`")
    returned = function(world["answer"], world["before"], world["after"], world["diff"])
    result = cast("Entry", returned) if type(returned) is dict else {}
    ok = result.get("ok")
    if type(ok) is not bool:
        raise BrokenVerifierError("the program must return {'ok': bool, 'reasons': [str]}")
    given = result.get("reasons", [])
    reasons: list[Any] = cast("list[Any]", given) if type(given) is list else [None]
    if any(type(reason) is not str for reason in reasons):
        raise BrokenVerifierError("the program's `reasons` must be a list of texts")
    return [["program", ok, "" if ok else "; ".join(reasons)[:REASON_CHARS]]]


def _run_atoms(
    source: str,
    atoms: list[Entry],
    world: dict[str, Any],
    once: Callable[..., Any],
    space: Entry,
) -> list[list[Any]]:
    given = world["diff"]
    pristine = _copied_entries(given)
    free = list(range(len(given)))
    orders = [atom for atom in atoms if atom["kind"] == "order"]
    final = _copied(world["after"]) if orders else {}
    space.update(answer=world["answer"], db=world["before"], after=world["after"], diff=given, once=once)
    exec(_compiled(source, "<task definitions>", "exec"), space)  # noqa: S102 - this module runs in the jail
    checks: dict[str, list[Any]] = {}
    for atom in [atom for atom in atoms if atom["kind"] != "order"]:
        state = atom["kind"] == "state"
        # A state atom sees what is still unclaimed: two equal demands then need two changes.
        space["diff"] = [given[index] for index in free] if state else list(given)
        value = _value(atom, space)
        if not state:
            checks[atom["id"]] = [atom["id"], bool(value), "" if value else "the answer does not meet it"]
        elif not value:
            checks[atom["id"]] = [atom["id"], False, "no change of state meets it"]
        else:
            reason = _claim(value, given, pristine, free, atom["id"])
            checks[atom["id"]] = [atom["id"], not reason, reason]
    frame = _frame(pristine, free)
    for atom in orders:
        # Rules are written for states that tools can reach: where somebody else wrote, they are not asked.
        met = not free and bool(_value(atom, _final_space(source, final)))
        checks[atom["id"]] = [
            atom["id"],
            met,
            "" if met else "the final state is not in order" if not free else frame[2],
        ]
    return [*(checks[atom["id"]] for atom in atoms), frame]


def _value(atom: Entry, space: dict[str, Any]) -> Any:
    """What the expression of an atom gives in a namespace."""
    code = _compiled(atom["expression"].strip(), f"<task atom {atom['id']}>", "eval")
    return eval(code, space)  # noqa: S307 - this module runs in the jail


def _final_space(source: str, after: Rows) -> dict[str, Any]:
    """A namespace in which the final rows are all there is: what an `order` atom says of one state."""
    space = _namespace()
    space.update(db=_copied(after), once=Initial(source, after).once)
    exec(_compiled(source, "<task definitions>", "exec"), space)  # noqa: S102 - this module runs in the jail
    return space


def _claim(value: Any, given: list[Entry], pristine: list[Entry], free: list[int], name: str) -> str:
    if not isinstance(value, (list, tuple)):
        raise BrokenVerifierError(f"state atom {name!r} returned {type(value).__name__}, not diff entries")
    chosen: list[int] = []
    for item in cast("list[Any]", value):
        index = _position(item, given, pristine, [slot for slot in free if slot not in chosen])
        if index is None:
            raise BrokenVerifierError(f"state atom {name!r} claims something that is no diff entry")
        if index not in free:
            return "it needs a change that another goal has claimed already"
        if index not in chosen:
            chosen.append(index)
    free[:] = [slot for slot in free if slot not in chosen]
    return ""


def _position(item: Any, given: list[Entry], pristine: list[Entry], free: list[int]) -> int | None:
    """Index of an entry by identity, else of an equal one, a free one first; None when there is none."""
    for index, entry in enumerate(given):
        if entry is item:
            return index
    equal = [index for index, entry in enumerate(pristine) if entry == item]
    return next((index for index in equal if index in free), equal[0] if equal else None)


def _frame(pristine: list[Entry], free: list[int]) -> list[Any]:
    counts: dict[str, int] = {}
    for index in free:
        name = f"{pristine[index]['op']} {pristine[index]['table']}"
        counts[name] = counts.get(name, 0) + 1
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return [
        "frame",
        not free,
        f"changes that nothing asks for: {listed}"[:REASON_CHARS] if free else "",
    ]


# ------------------------------------------------------------------------------------------- what the host calls


def verify_images(
    before_db: Any,
    *after_dbs: Any,
    task: dict[str, Any],
    answers: list[Any],
    places: list[int] | None = None,
) -> list[Entry]:
    """Judge played episodes that began with the same database, each from its final one and its answer.

    Args:
        before_db: The database at reset.
        *after_dbs: Databases at the end.
        task: See `judge_one`.
        answers: Final answers.
        places: For each answer which of all these databases its episode ended with, 0 for the one at reset; one after
            the other when None.

    Returns:
        See `judge_one`; one per answer. All differences are computed before anything of the task runs.
    """
    tables, exactly, before, keys, schema, pages = _at_reset(before_db)
    ends: list[tuple[Rows, list[Entry]]] = [(before, [])]
    for after_db in after_dbs:
        untouched = pages.untouched(after_db)
        after: Rows = {}
        for table in _tables(after_db) if untouched is None else tables:
            # Most tables are as they were; their rows are copied once more before anybody sees them.
            if untouched is not None and table in untouched:
                after[table] = before[table]
                continue
            names, found = _read(after_db, table)
            old = len(before.get(table, []))
            if exactly.get(table) != _exactly(names, found[:old]):
                after[table] = _as_rows(names, found)
            else:
                after[table] = before[table] + _as_rows(names, found[old:]) if len(found) > old else before[table]
        changes = _schema_diff(schema, read_schema(after_db)) if untouched is None else []
        every_key = {**read_keys(after_db), **keys} if changes else keys
        ends.append((after, changes + row_diff(before, after, every_key)))
    initial = _initial(task["definitions"], before)
    found_ends = [ends[place] for place in places] if places is not None else ends[1:]
    return [
        judge_one(task, answer, before, after, diff, initial)
        for answer, (after, diff) in zip(answers, found_ends, strict=True)
    ]


MOST_INITIALS = 4
"""Tasks over one initial database whose definitions' values are remembered."""

_reset: list[tuple[bytes, Any]] = []
"""What was read of the last initial image, with the image: a worker that judges many batches sees few different ones."""
_initials: dict[str, Initial] = {}
"""What definitions say of it, by their source."""


def _at_reset(db: Any) -> Any:
    """Read the initial database.

    Returns:
        Names and rows by table, the same as bytes, the rows as dictionaries, primary keys, schema, pages. Nobody may change
        them: task code gets copies.
    """
    image = bytes(db.serialize())
    if not _reset or _reset[0][0] != image:
        tables = {table: _read(db, table) for table in _tables(db)}
        exactly = {table: _exactly(*found) for table, found in tables.items()}
        before = {table: _as_rows(*found) for table, found in tables.items()}
        _reset[:] = [(image, (tables, exactly, before, read_keys(db), read_schema(db), _Pages(db)))]
        _initials.clear()
    return _reset[0][1]


def _initial(source: str, before: Rows) -> Initial:
    """What definitions say of the initial rows that `_at_reset` has read."""
    if source not in _initials:
        while len(_initials) >= MOST_INITIALS:
            del _initials[next(iter(_initials))]
        _initials[source] = Initial(source, before)
    return _initials[source]


def judge_outcomes(before_db: Any, task: dict[str, Any], outcomes: list[Entry]) -> list[Entry]:
    """Judge stated outcomes `{answer, changes}`, each on a copy of the initial rows."""
    _, _, before, keys, _, _ = _at_reset(before_db)
    columns = read_columns(before_db)
    initial = _initial(task["definitions"], before)
    results: list[Entry] = []
    for outcome in outcomes:
        try:
            after = apply_changes(before, keys, columns, outcome["changes"])
        except BrokenVerifierError as error:
            results.append({"checks": [], "broken": str(error)})
            continue
        diff = row_diff(before, after, keys)
        results.append(judge_one(task, outcome["answer"], before, after, diff, initial))
    return results
