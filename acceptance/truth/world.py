"""The public record of a task, and its tables as rows of attributes under the names that prompts use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

Value = Any
"""An int, a str or, for a reference, a `Handle`."""
Row = dict[str, Value]
"""One row by attribute."""


class NotCoveredError(Exception):
    """This reader does not understand something; the message says what."""


@dataclass(frozen=True)
class Handle:
    """One row: its entity and its place in the table."""

    entity: str
    """Which table, under its public key."""
    index: int
    """Place in the table."""


@dataclass(frozen=True)
class PublicTask:
    """All that the second reader gets: a player's texts and the rows, nothing of the private half."""

    prompt: str
    """What the actor is asked."""
    answer_schema: dict[str, Any]
    """Form of the answer."""
    policy: tuple[str, ...]
    """Rules that every actor reads."""
    docs: dict[str, Any]
    """Words of the prompts."""
    tables: tuple[dict[str, Any], ...]
    """Names, columns with descriptions, primary keys."""
    rows: dict[str, list[dict[str, Any]]]
    """Rows by table, those that the task adds included."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of an entity as prompts name it."""

    entity: str
    """Whose."""
    key: str
    """Public key."""
    label: str
    """Words, with `{0}` and so on for what must be said besides."""
    kind: str
    """`num`, `str`, `date`, `row` or `bool`."""
    unit: str
    """Unit of a number, entity of a row."""
    parameters: tuple[tuple[str, str], ...]
    """Kind and unit of what must be said besides."""


@dataclass
class World:
    """Tables of a task, readable by attribute.

    Raises:
        NotCoveredError: a table or column has no public word.
    """

    task: PublicTask
    """Where all comes from."""
    nouns: dict[str, tuple[str, str]] = field(init=False)
    """Singular and plural by entity."""
    attributes: dict[str, list[Attribute]] = field(init=False)
    """By entity."""
    columns: dict[str, dict[str, str]] = field(init=False)
    """Column by entity and attribute, of those that are stored."""
    tables: dict[str, str] = field(init=False)
    """Table by entity."""
    rows: dict[str, list[Row]] = field(init=False)
    """Rows by entity; references are handles."""

    def __post_init__(self) -> None:
        docs = self.task.docs
        self.nouns = {key: (words[0], words[1]) for key, words in docs["entities"].items()}
        self.attributes = {key: [] for key in self.nouns}
        for entity, key, label, (kind, unit), parameters in docs["attrs"]:
            needed = tuple((item[0], item[1]) for item in parameters)
            self.attributes[entity].append(Attribute(entity, key, label, kind, unit, needed))
        self.tables, self.columns, self.rows = {}, {}, {}
        links: list[tuple[str, str, dict[str, Any]]] = []
        for table in self.task.tables:
            entity = self._entity(table["description"])
            self.tables[entity] = table["name"]
            self.columns[entity] = {}
            for column in table["columns"]:
                attribute = self._attribute(entity, column)
                self.columns[entity][attribute.key] = column["name"]
                if attribute.kind == "row":
                    links.append((entity, attribute.key, column))
            self.rows[entity] = [
                {key: row[name] for key, name in self.columns[entity].items()} for row in self.task.rows[table["name"]]
            ]
        for entity, key, column in links:
            self._link(entity, key, column)

    def _entity(self, description: str) -> str:
        for entity, (noun, _) in self.nouns.items():
            if description == f"one {noun} per row":
                return entity
        raise NotCoveredError(f"a table without a word: {description!r}")

    def _attribute(self, entity: str, column: dict[str, Any]) -> Attribute:
        told = column["description"]
        plain = [item for item in self.attributes[entity] if not item.parameters]
        if column["references"]:
            for item in plain:
                if item.kind == "row":
                    noun = self.nouns[item.unit][0]
                    ways = {f"{what} of the {noun} that is the {item.label}" for what in ("id", "name")}
                    ways |= {f"{what} of the {noun}" for what in ("id", "name") if item.label == noun}
                    if told in ways:
                        return item
        elif told in ("its id", "its name"):
            return next(item for item in plain if item.key == told[4:])
        else:
            ends = ("$", ", one of ", ", YYYY", " in ", " on the 24-hour clock$")
            for item in sorted(plain, key=lambda item: -len(item.label)):
                if item.kind != "row" and re.match(re.escape(item.label) + f"(?:{'|'.join(ends)})", told):
                    return item
        raise NotCoveredError(f"a column without a word: {column['name']!r} {told!r}")

    def _link(self, entity: str, key: str, column: dict[str, Any]) -> None:
        table, _, name = column["references"].partition(".")
        target = next(other for other, known in self.tables.items() if known == table)
        places = {row[name]: place for place, row in enumerate(self.task.rows[table])}
        for row in self.rows[entity]:
            row[key] = Handle(target, places[row[key]])

    def handles(self, entity: str) -> list[Handle]:
        """All rows of an entity."""
        return [Handle(entity, place) for place in range(len(self.rows[entity]))]

    def __getitem__(self, handle: Handle) -> Row:
        return self.rows[handle.entity][handle.index]

    def has(self, entity: str, key: str) -> bool:
        """Whether an attribute is stored in this world."""
        return key in self.columns.get(entity, {})

    def cell(self, entity: str, key: str, value: Value) -> Value:
        """Say a value as the column of an attribute holds it."""
        if not isinstance(value, Handle):
            return value
        table = next(item for item in self.task.tables if item["name"] == self.tables[entity])
        column = next(item for item in table["columns"] if item["name"] == self.columns[entity][key])
        name = column["references"].partition(".")[2]
        return self[value][name]

    def identity(self, handle: Handle) -> dict[str, Value]:
        """The primary key of a row, by column.

        Raises:
            NotCoveredError: rows of the table have no id of their own.
        """
        table = next(item for item in self.task.tables if item["name"] == self.tables[handle.entity])
        if list(table["primary_key"]) != [self.columns[handle.entity]["id"]]:
            raise NotCoveredError(f"rows of {table['name']} have no id of their own")
        return {self.columns[handle.entity]["id"]: self[handle]["id"]}
