"""SQL of attributes, conditions and operands: how the oracle asks the tables."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from envsynth.author.procedural.ir import (
    Asked,
    Atom,
    Attr,
    Const,
    Named,
    Of,
    Operand,
    Ref,
    Schema,
    Type,
)
from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived
from envsynth.author.procedural.oracle.outcome import Cell, Change, Key, Reject, Value, write_changes
from envsynth.errors import AuthorError
from envsynth.record import content_hash

_T = TypeVar("_T")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class OracleWorld(Composed, Schema, Protocol):
    """What the oracle must know of a composition."""

    @property
    def tables(self) -> Mapping[str, tuple[Col, ...]]:
        """Columns by entity."""
        ...

    @property
    def derived(self) -> Mapping[tuple[str, str], Derived]:
        """Derived attributes by entity and name."""
        ...

    @property
    def actions(self) -> Mapping[str, Action]:
        """Actions by name."""
        ...


def literal(value: Cell) -> str:
    """Write a value as SQL; negative numbers in brackets, so that `x-{0}` never becomes a comment."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return f"({int(value)})" if value < 0 else str(int(value))
    return "'" + str(value).replace("'", "''") + "'"


def need(value: _T | None, what: str) -> _T:
    """Refuse NULL.

    Args:
        value: What a query gave.
        what: The attribute, for the message.

    Returns:
        The value.

    Raises:
        Reject: `null_value`.
    """
    if value is None:
        raise Reject("null_value", what)
    return value


_STATES, _MOST_STATES = "after changes", 100
"""Under what name answers about changed rows are kept, and after how many different changes at most."""

OFTEN = 1
"""Uses of a derived attribute over the same rows after which its values are kept."""


class Relations:
    """Questions about rows, in SQL.

    Args:
        world: Columns, derived attributes and actions.
        connection: The rows; tables are named by entity, columns by `Col.column`.
        asked: Rows by SQL text, of rows that never change, kept for the next time; None for rows that may change.
    """

    def __init__(self, world: OracleWorld, connection: sqlite3.Connection, asked: dict[Any, Any] | None = None) -> None:
        self.world = world
        self._asked = asked
        self._connection = connection
        self.copy: sqlite3.Connection | None = None
        """An empty database, where changes shall take effect on a copy of the rows."""
        self._states: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
        self._so_far = ""
        self.cursor = connection.cursor()
        self.cursor.row_factory = None
        self.types: dict[str, Type] = {}
        """Types of the variables."""
        self.bindings: dict[str, Value] = {}
        """What each variable denotes."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one SELECT.

        Args:
            sql: The text.

        Returns:
            All rows; the caller does not change the list, as it may be kept.

        Raises:
            AuthorError: SQLite refuses the text (a defect of a mechanism).
        """
        kept = self._states.get(self._so_far) if self._asked is None else self._asked
        if kept is not None and sql in kept:
            return kept[sql]
        try:
            found = self.cursor.execute(sql).fetchall()
        except sqlite3.Error as error:
            raise AuthorError(f"SQL of a mechanism failed ({error}): {sql[:400]}") from error
        if kept is not None:
            kept[sql] = found
        return found

    def take_effect(self, changes: Sequence[Change]) -> None:
        """Write changes, into a copy of the rows if one is to be made; variables denote what they did.

        What is asked of equal rows after equal changes has equal answers: they are kept as long as those about the rows.

        Args:
            changes: What changes.

        Raises:
            AuthorError: a change does not fit the schema (a defect of a mechanism).
        """
        if self.copy is not None:
            self._connection.backup(self.copy)
            self.cursor = self.copy.cursor()
            self.cursor.row_factory = None
            self._states = {} if self._asked is None else self._asked.setdefault(_STATES, {})
            self._asked = self.copy = None
            if len(self._states) > _MOST_STATES:
                self._states.clear()
        write_changes(self.cursor, changes)
        self._so_far += repr(changes)
        self._states.setdefault(self._so_far, {})

    def fill(self, sql: str, values: Mapping[str, str], what: str) -> str:
        """Put values into the placeholders of a mechanism's text.

        Args:
            sql: Text with `{name}` placeholders.
            values: SQL by placeholder.
            what: Whose text it is, for the message.

        Returns:
            The SQL.

        Raises:
            AuthorError: the text has a placeholder that nothing fills.
        """
        missing = [name for name in _PLACEHOLDER.findall(sql) if name not in values]
        if missing:
            raise AuthorError(f"SQL of {what} has placeholders {missing}; it may use {list(values)}")
        return _PLACEHOLDER.sub(lambda match: values[match[1]], sql)

    def rows(
        self, entity: str, atoms: Sequence[Atom], attrs: Sequence[Attr] = (), order: str = "1"
    ) -> list[tuple[Any, ...]]:
        """Select id and attributes of the rows that meet the atoms, in the given order."""
        columns = ", ".join(['t."id"', *(self.attribute(entity, attr) for attr in attrs)])
        conditions = " AND ".join(["1", *(self.condition(entity, atom) for atom in atoms)])
        return self.query(f'SELECT {columns} FROM "{entity}" t WHERE {conditions} ORDER BY {order}')

    def groups(
        self, entity: str, atoms: Sequence[Atom], rel: Attr, measure: Attr | None, *, downward: bool
    ) -> list[tuple[Key, int]]:
        """Count the rows that meet the atoms by the row that they are related to, or total them.

        Args:
            entity: Whose rows.
            atoms: Conditions on them.
            rel: Relation to one row.
            measure: Attribute to total; None to count.
            downward: Whether the largest comes first.

        Returns:
            Ids of related rows with count or total, in that order; a row that no member is related to is left out.

        Raises:
            Reject: `null_value` when a member has no related row or no value.
        """
        conditions = " AND ".join(["1", *(self.condition(entity, atom) for atom in atoms)])
        value = "1" if measure is None else self.attribute(entity, measure)
        members = f'SELECT {self.attribute(entity, rel)} AS k, {value} AS v FROM "{entity}" t WHERE {conditions}'
        order = "DESC" if downward else "ASC"
        found = self.query(f"SELECT k, SUM(v), COUNT(*) - COUNT(v) FROM ({members}) GROUP BY k ORDER BY 2 {order}, 1")
        for key, total, missing in found:
            need(key, rel.name)
            need(None if missing else total, (measure or rel).name)
        return [(key, total) for key, total, _ in found]

    def size(self, entity: str) -> int:
        """Count all rows of a table."""
        return self.query(f'SELECT COUNT(*) FROM "{entity}"')[0][0]

    def condition(self, entity: str, atom: Atom) -> str:
        """SQL of one condition on alias t."""
        left = self.attribute(entity, atom.attr)
        if atom.value is None:
            return f"({left})"
        return f"({left} {atom.op} {literal(self.scalar(atom.value))})"

    def attribute(self, entity: str, attr: Attr) -> str:
        """SQL of an attribute of alias t; a relation gives the target's id."""
        derived = self.world.derived.get((entity, attr.name))
        if derived is not None:
            values = {str(index): literal(self.scalar(arg)) for index, arg in enumerate(attr.args)}
            return self._kept(entity, self.fill(derived.sql, {"t": "t", **values}, attr.name))
        col = self.world.col(entity, attr.name)
        if col.kind != "fk":
            return f't."{col.column}"'
        column, key = self.world.fk(entity, attr.name)
        if key == "id":
            return f't."{column}"'
        return f'(SELECT o."id" FROM "{col.ref}" o WHERE o."{key}" = t."{column}")'

    def _kept(self, entity: str, sql: str) -> str:
        """SQL of a derived attribute of alias t: its own, or where it is asked for often, a look at its values.

        Of rows that never change, each value is worked out once then; a search of connections costs milliseconds per row.
        """
        if self._asked is None:
            return sql
        key = ("uses", entity, sql)
        uses = self._asked[key] = self._asked.get(key, 0) + 1
        if uses <= OFTEN:
            return sql
        name = f'temp."values_{content_hash([entity, sql])}"'
        if uses == OFTEN + 1:
            text = f'CREATE TABLE IF NOT EXISTS {name} AS SELECT t."id" AS "id", ({sql}) AS "value" FROM "{entity}" t'
            index = name.replace("values_", "index_")
            self._build(text, f'CREATE INDEX IF NOT EXISTS {index} ON {name.removeprefix("temp.")} ("id")')
        return f'(SELECT k."value" FROM {name} k WHERE k."id" = t."id")'

    def _build(self, *texts: str) -> None:
        """Run what makes temporary tables, which leaves the rows alone.

        Raises:
            AuthorError: SQLite refuses one (a defect of a mechanism).
        """
        (frozen,) = self.cursor.execute("PRAGMA query_only").fetchone()
        self.cursor.execute("PRAGMA query_only = OFF")
        try:
            for text in texts:
                self.cursor.execute(text)
        except sqlite3.Error as error:
            raise AuthorError(f"SQL of a mechanism failed ({error}): {texts[0][:400]}") from error
        finally:
            self.cursor.execute(f"PRAGMA query_only = {frozen}")

    def value(self, entity: str, row_id: Key, attr: Attr) -> Cell:
        """Return an attribute of one row: a scalar, a row as its id, a boolean as bool.

        Args:
            entity: Whose attribute.
            row_id: Which row.
            attr: Attribute; variables in its arguments must be bound.

        Returns:
            The value, None when the row does not exist or the attribute is NULL.
        """
        sql = f'SELECT {self.attribute(entity, attr)} FROM "{entity}" t WHERE t."id" = {literal(row_id)}'
        found = self.query(sql)
        value = found[0][0] if found else None
        type_ = self.world.attr_type(entity, attr.name)
        is_bool = value is not None and type_ is not None and type_.kind == "bool"
        return bool(value) if is_bool else value

    def entity(self, operand: Operand) -> str:
        """Name the entity of a row operand."""
        match operand:
            case Named(entity, _, _):
                return entity
            case Ref(var):
                return self.types[var].detail
            case Of(var, attr):
                type_ = self.world.attr_type(self.types[var].detail, attr.name)
                return type_.detail if type_ else ""
            case Const():
                return ""

    def scalar(self, operand: Operand) -> Key:
        """Evaluate an operand: a number, text, or the id of a row.

        Args:
            operand: A leaf; its variable must be bound.

        Returns:
            The value.

        Raises:
            Reject: an unknown or ambiguous name, a set where one row is needed, or NULL.
        """
        match operand:
            case Const(value, _, _):
                return value
            case Named(entity, by, value):
                found = self.query(f'SELECT t."id" FROM "{entity}" t WHERE t."{by}" = {literal(value)}')
                if len(found) != 1:
                    code = "name_ambiguous" if found else "name_unknown"
                    raise Reject(code, f"{entity} {by} {value!r}")
                return found[0][0]
            case Ref(var):
                return self._single(var)
            case Of(var, attr):
                value = self.value(self.types[var].detail, self._single(var), attr)
                return need(value, attr.name)

    def told(self, node: Asked) -> Key:
        """What the user means: a number, a date, or the id of the row with the name that is told.

        Raises:
            Reject: `untold` when the program was read without the user's words; an unknown or ambiguous name.
        """
        if node.value is None:
            raise Reject("untold", node.topic)
        return self.scalar(Named(node.detail, "name", node.value)) if node.kind == "row" else node.value

    def report(self, operand: Operand) -> Value:
        """Evaluate an operand of the report: like `scalar`, and an attribute of a chosen set as a list."""
        bound = self.bindings.get(operand.var) if isinstance(operand, (Ref, Of)) else None
        if not isinstance(operand, (Ref, Of)) or not isinstance(bound, list):
            return self.scalar(operand)
        attr = operand.attr if isinstance(operand, Of) else Attr("id")
        entity = self.types[operand.var].detail
        return [need(self.value(entity, key, attr), attr.name) for key in bound]

    def is_initial(self, operand: Operand) -> bool:
        """Whether the words for it say that it is about the state before any change."""
        if not isinstance(operand, Of):
            return False
        derived = self.world.derived.get((self.types[operand.var].detail, operand.attr.name))
        return derived is not None and derived.norm

    def _single(self, var: str) -> Key:
        value = self.bindings[var]
        if isinstance(value, list):
            raise Reject("plural_operand", f"{var} is a set, one row is needed")
        return value
