"""A composed world: schema, words, rows and texts of some mechanisms joined into one, and how its rows are coined."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.lexicon import Pack
from envsynth.author.procedural.mechanism import (
    Action,
    Col,
    Derived,
    EntityAccess,
    InterfaceStyle,
    Norm,
    Row,
    ToolDraft,
)
from envsynth.errors import AuthorError

NOW = "2031-05-02"
"""Virtual day at which every composed world stands; dates of rows lie around it."""

_SYLLABLES = (
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "di",
    "do",
    "du",
    "fa",
    "fe",
    "fi",
    "ga",
    "go",
    "gu",
    "ka",
    "ke",
    "ki",
    "ko",
    "ku",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "mu",
    "na",
    "ne",
    "ni",
    "no",
    "nu",
    "pa",
    "pe",
    "po",
    "ra",
    "re",
    "ri",
    "ro",
    "ru",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
    "to",
    "tu",
    "va",
    "ve",
    "vi",
    "vo",
    "za",
    "ze",
    "zo",
    "sha",
    "chi",
    "lan",
    "mor",
    "tis",
    "ven",
    "dor",
    "kel",
)

_ENDINGS = ("n", "l", "m", "th", "sh")
"""Ends of coined words: a word of two syllables always has one, so that no everyday word such as "Time" arises."""

P_COINED = 0.5
"""Chance that half of a name is coined of syllables. A policy that meets the same few names again and again learns them
by heart and fails on others; only words that it never saw teach it to copy. The other half stays English, because both
kinds occur where it is used."""

_RANGES: dict[str, tuple[int, int, int]] = {
    "credits": (10, 900, 10),
    "people": (2, 60, 1),
    "units": (1, 40, 1),
    "kg": (1, 40, 1),
    "points": (1, 9, 1),
    "percent": (1, 40, 1),
    "oclock": (8, 18, 1),
    "h": (1, 8, 1),
    "min": (5, 120, 5),
    "km": (5, 400, 5),
}
"""Low, high and step of numbers that no generator gave, by unit."""


_UNITS = {
    **dict.fromkeys(("", "version", "level", "worth"), ""),
    "oclock": " on the 24-hour clock",
    "h": " in hours",
    "min": " in minutes",
}
"""How a column's unit reads behind its label, where that is not "in" and the unit."""


def identifier(words: str) -> str:
    """Turn a noun into an identifier: "meeting room" -> "meeting_room"."""
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


@dataclass(kw_only=True)
class Composition:
    """Mechanisms joined into one world. Satisfies `mechanism.Composed` and `ir.Schema`."""

    mechanisms: tuple[str, ...]
    """Names of the mechanisms, in the order of joining."""
    pack: Pack
    """Where words, names and enum values come from."""
    style: InterfaceStyle
    """How the read tools look."""
    words: dict[str, tuple[str, str]]
    """Singular and plural noun by entity key."""
    tables: dict[str, tuple[Col, ...]]
    """Columns by entity key, targets of relations first; `Col.column` and `Col.label` are filled."""
    rules: dict[str, Any]
    """Rule parameters of all mechanisms."""
    rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    """Rows by entity key, cells by physical column."""
    derived: dict[tuple[str, str], Derived] = field(default_factory=dict[tuple[str, str], Derived])
    """Derived attributes by (entity, name), in the order of the mechanisms."""
    actions: dict[str, Action] = field(default_factory=dict[str, Action])
    """Actions by name."""
    norms: list[Norm] = field(default_factory=list[Norm])
    """What order means, by entity, in the order of the mechanisms."""
    tools: list[ToolDraft] = field(default_factory=list[ToolDraft])
    """Read tools, then write tools."""
    access: dict[str, EntityAccess] = field(default_factory=dict[str, EntityAccess])
    """How each entity is read."""
    policy: list[str] = field(default_factory=list[str])
    """Public rules and definitions, each a sentence."""
    now: str = NOW
    """Virtual day, ISO 8601."""
    originals: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Enum values as the mechanisms know them, by column name, where the pack renamed them."""
    salt: str = ""
    """Seed of the coined halves of names; empty: names are made of the pack's parts only."""
    _late: list[tuple[str, Row, Col]] = field(default_factory=list[tuple[str, Row, Col]])

    # ------------------------------------------------------------------------------------------------------ ir.Schema

    def attr_type(self, entity: str, name: str) -> Type | None:
        """Type of a stored or derived attribute, None when the entity lacks it."""
        derived = self.derived.get((entity, name))
        if derived is not None:
            return derived.type
        col = next((col for col in self.tables.get(entity, ()) if col.name == name), None)
        if col is None:
            return None
        if col.kind in ("num", "fk"):
            return Type("num", col.unit) if col.kind == "num" else Type("row", col.ref)
        if col.kind == "date":
            return Type("date", "")
        return Type("str", col.kind if col.kind in ("id", "name") else col.name)

    def attr_params(self, entity: str, name: str) -> tuple[Type, ...]:
        """Parameter types of a derived attribute; empty for stored ones."""
        found = self.derived.get((entity, name))
        return found.params if found else ()

    def action_params(self, op: str) -> tuple[tuple[str, Type], ...] | None:
        """Named parameter types of an action, None when there is no such action."""
        found = self.actions.get(op)
        return found.params if found else None

    # --------------------------------------------------------------------------------------------- mechanism.Composed

    def fk(self, entity: str, relation: str) -> tuple[str, str]:
        """Physical column of a relation and the key of the target that it stores.

        Args:
            entity: Whose relation.
            relation: Its logical name.

        Returns:
            Column and key, such as ("room_id", "id").

        Raises:
            AuthorError: the column is no relation.
        """
        col = self.col(entity, relation)
        if col.kind != "fk":
            raise AuthorError(f"{entity}.{relation} is no relation but {col.kind}")
        return col.column, col.refkey

    def has(self, entity: str, column: str) -> bool:
        """Whether the entity exists with that logical column."""
        return any(col.name == column for col in self.tables.get(entity, ()))

    def col(self, entity: str, column: str) -> Col:
        """Find the logical column.

        Args:
            entity: Entity key.
            column: Logical name.

        Returns:
            The column.

        Raises:
            KeyError: it does not exist, or was dropped.
        """
        for col in self.tables[entity]:
            if col.name == column:
                return col
        raise KeyError(f"{entity}.{column}")

    def word(self, entity: str) -> str:
        """Singular noun of the entity."""
        return self.words[entity][0]

    def plural(self, entity: str) -> str:
        """Plural noun of the entity."""
        return self.words[entity][1]

    def slug(self, entity: str) -> str:
        """Singular noun as an identifier."""
        return identifier(self.word(entity))

    def plural_slug(self, entity: str) -> str:
        """Plural noun as an identifier."""
        return identifier(self.plural(entity))

    def attr_slug(self, entity: str, name: str) -> str:
        """What an attribute is called in prompts, as an identifier: the name of a field that tells it."""
        found = self.derived.get((entity, name))
        label = self.col(entity, name).label if found is None else found.label
        return identifier(re.split(r" \S+ \{", label)[0])  # "charge from {0} to {1}" -> "charge"

    def columns(self, entity: str) -> list[str]:
        """Physical column names in order."""
        return [col.column for col in self.tables[entity]]

    def naming(self, entity: str) -> str:
        """How people refer to a row: `name` where the entity has names, else `id`."""
        return "name" if self.has(entity, "name") else "id"

    def describe(self, col: Col) -> str:
        """What a column holds, with its unit, in this world's words: "hourly rate in credits"."""
        if col.kind == "fk":
            target = self.word(col.ref)
            return f"{col.refkey} of the {target}" + ("" if col.label == target else f" that is the {col.label}")
        if col.kind in ("id", "name"):
            return f"its {col.kind}"
        if col.kind == "enum":
            return f"{col.label}, one of {', '.join(col.values)}"
        if col.kind == "date":
            return f"{col.label}, YYYY-MM-DD"
        if col.label.endswith(" count"):
            return col.label
        return col.label + _UNITS.get(col.unit, f" in {col.unit}")

    def fill(self, rng: random.Random, entity: str, count: int, make: Callable[[int], Mapping[str, Any]]) -> None:
        """Append `count` rows.

        Ids and names are coined (unless `make` gives a `name`). Cells that `make` leaves out are drawn: any row for a
        relation, any value for an enum, a number within the usual range of its unit. Cells of dropped columns are
        ignored.

        Args:
            rng: Source of all choices.
            entity: Entity key.
            count: Rows to append.
            make: `make(i)` gives the logical cells of the i-th new row; a relation's cell is the target row.

        Raises:
            AuthorError: a name is taken, or a cell is missing that has no usual range.
        """
        used = dict.fromkeys(row["name"] for row in self.rows[entity] if "name" in row)
        for index in range(count):
            given = make(index)
            row: Row = {}
            for col in self.tables[entity]:
                if col.kind == "id":
                    row[col.column] = self.coin_id(entity, len(self.rows[entity]))
                elif col.kind == "name":
                    name = given.get("name") or self.coin_name(rng, entity, used)
                    if name in used:
                        raise AuthorError(f"two rows of {entity} would be called {name!r}")
                    used[name] = None
                    row[col.column] = name
                else:
                    row[col.column] = self._cell(rng, entity, row, col, given)
            self.rows[entity].append(row)

    # ----------------------------------------------------------------------------------------------------- row making

    def coin_id(self, entity: str, index: int) -> int | str:
        """Coin the id of the `index`-th row: an integer with gaps of ten, or a code whose order is scattered.

        The ranges of integer ids of different entities do not overlap, so that a mixed-up id is noticed.
        """
        if self.style.ids == "int":
            return 2000 * list(self.tables).index(entity) + 10 * (index + 1)
        prefix = "".join(part[0] for part in self.slug(entity).split("_")).upper()
        return f"{prefix}-{(index * 7919 + 131) % 9000 + 1000}"

    def coin_name(self, rng: random.Random, entity: str, used: Mapping[int | str, None]) -> str:
        """Coin a name that no row of the entity has: the pack's parts, or one of them and a word of syllables.

        Once the parts are exhausted, the whole name is made of syllables.
        """
        first, second = self.pack.names.get(entity, ((), ()))
        for _ in range(40 if first else 0):
            name = (
                f"{rng.choice(first)} {rng.choice(second)}" if second else f"{rng.choice(first)}{rng.randint(10, 99)}"
            )
            name = self._widened(entity, name)
            if name not in used:
                return name
        while True:
            name = " ".join("".join(rng.choice(_SYLLABLES) for _ in range(3)).capitalize() for _ in range(2))
            if name not in used:
                return name

    def _widened(self, entity: str, name: str) -> str:
        """Replace half of a name by a coined word, or leave it.

        A function of world, entity and name, with its own stream of chance: everything else in a world is drawn as if
        names were plain.
        """
        rng = random.Random(f"{self.salt}/{entity}/{name}")
        if not self.salt or rng.random() >= P_COINED:
            return name
        syllables = rng.choice((2, 2, 3))
        word = "".join(rng.choice(_SYLLABLES) for _ in range(syllables))
        word += rng.choice(_ENDINGS if syllables == 2 else ("", *_ENDINGS))
        first, _, second = name.partition(" ")
        if not second:
            return word.upper() + name[-2:]
        return f"{word.capitalize()} {second}" if rng.random() < 0.5 else f"{first} {word.capitalize()}"

    def enum_value(self, column: str, value: str) -> str:
        """Translate an enum value as a mechanism knows it into the one that this world's pack uses."""
        known = self.originals.get(column, ())
        if value not in known:
            return value
        renamed = self.pack.values[column]
        return renamed[known.index(value) % len(renamed)]

    def _cell(self, rng: random.Random, entity: str, row: Row, col: Col, given: Mapping[str, Any]) -> int | str:
        if col.kind == "fk":
            target = given.get(col.name)
            if isinstance(target, str):
                name = self.enum_value(col.name, target)
                target = next((other for other in self.rows[col.ref] if other["name"] == name), None)
                if target is None:
                    raise AuthorError(f"{entity}.{col.name}: no {col.ref} is called {name!r}")
            if target is None:
                if not self.rows[col.ref]:
                    self._late.append((entity, row, col))
                    return 0
                target = rng.choice(self.rows[col.ref])
            return target[col.refkey]
        if col.kind == "enum":
            if col.name in given:
                return self.enum_value(col.name, given[col.name])
            return rng.choice(col.values)
        if col.name in given:
            return given[col.name]
        if col.kind == "num" and col.unit in _RANGES:
            low, high, step = _RANGES[col.unit]
            return rng.randrange(low, high + 1, step)
        raise AuthorError(f"no generator gives {entity}.{col.name} ({col.kind} {col.unit})")

    def resolve_late(self, rng: random.Random) -> None:
        """Give a target to relations whose target entity had no rows yet when their row was made.

        Args:
            rng: Source of the choices.

        Raises:
            AuthorError: the target entity has no rows still.
        """
        for entity, row, col in self._late:
            if not self.rows[col.ref]:
                raise AuthorError(f"{entity}.{col.name} points to {col.ref}, which no mechanism fills")
            row[col.column] = rng.choice(self.rows[col.ref])[col.refkey]
        self._late.clear()
