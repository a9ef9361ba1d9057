"""Guesses that look like the right answer, and how often they hit: what an actor gets without looking anything up.

The guesser is strong: it has the answer's schema, knows which column a text belongs to and all values of that column
with how often they occur, and the size of a number up to a factor of two. It does not know the question.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from envsynth.actors.values import zero_value
from envsynth.record import Scalar
from envsynth.spec import World

GUESS_LIMIT = 1 / 64
"""A task is guessable when a guess hits at least this often."""
SMALLEST_RANGE = 20
"""A guessed whole number lies between 0 and this, or twice the right number where that is more."""

Columns = Sequence[tuple[str, Sequence[Scalar]]]
"""Name and cells of every column of a world."""


def columns_of(world: World) -> list[tuple[str, tuple[Scalar, ...]]]:
    """Name and cells of every column, in order of tables and columns.

    Args:
        world: The world.

    Returns:
        Pairs of name and cells; a table without rows gives none.
    """
    return [
        (column.name, cells)
        for table in world.tables
        for column, cells in zip(table.columns, zip(*world.rows.get(table.name, ()), strict=True), strict=False)
    ]


def guess_shares(answer: Mapping[str, JsonValue], columns: Columns, schema: Mapping[str, Any]) -> dict[str, float]:
    """How often a guess hits each field of an answer that alone is right.

    The guesser plays whichever is best for it: a uniform draw from a column, a random cell of it, one of the schema's
    `enum`, and for numbers the range as well. A text is looked for in every column; a number in columns that the field
    is named after, because nothing else tells a guesser of "number_of_orders" where to look.

    Args:
        answer: The right answer.
        columns: Of the world.
        schema: JSON Schema of the answer.

    Returns:
        Probability by field; 0 for a text that stands nowhere. Fields count as independent: the product is the share of
        the whole answer. An actor that reads a table and reports one of its rows at random does better; it has done a
        part of the work.
    """
    fields = _inner(schema, "properties")
    return {name: _share(name, value, columns, _inner(fields, name)) for name, value in answer.items()}


def guess_share(answer: Mapping[str, JsonValue], columns: Columns, schema: Mapping[str, Any]) -> float:
    """How often a guess hits a whole answer: the product of `guess_shares`; 1 when nothing is asked."""
    return math.prod(guess_shares(answer, columns, schema).values())


def _share(name: str, value: JsonValue, columns: Columns, schema: Mapping[str, Any]) -> float:
    if isinstance(value, dict):
        return guess_share(value, columns, schema)
    if isinstance(value, list):
        # The order counts for nothing here: a guesser of a set may name its members in any order.
        each = [_share(name, item, columns, _inner(schema, "items")) for item in value]
        return min(1.0, math.factorial(len(value)) * math.prod(each))
    options = schema.get("enum")
    named = 1 / len(options) if isinstance(options, list) and options else 0.0
    if isinstance(value, bool):
        return max(0.5, named)
    if isinstance(value, int | float):
        exact = [cells for column, cells in columns if name == column]
        ending = exact or [cells for column, cells in columns if name.endswith(f"_{column}")]
        return max(1 / (1 + max(SMALLEST_RANGE, math.floor(2 * abs(value)))), named, _in_columns(value, ending))
    if isinstance(value, str):
        return max(named, _in_columns(value, [cells for _, cells in columns]))
    return 1.0


def _in_columns(value: Scalar, columns: Sequence[Sequence[Scalar]]) -> float:
    """Best hit rate on a value over columns; 0 when none holds it, because then nobody could guess it from the data."""
    best = 0.0
    for cells in columns:
        hits = sum(type(cell) is type(value) and cell == value for cell in cells)
        if hits:
            best = max(best, hits / len(cells), 1 / len(dict.fromkeys(cells)))
    return best


def _inner(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = schema.get(key)
    return found if isinstance(found, dict) else {}


def guess_value(
    rng: random.Random, schema: dict[str, Any], like: JsonValue, column_of: Callable[[Scalar], list[Scalar]]
) -> JsonValue:
    """Draw a value of the schema's type; texts come from the same column as the right answer: a strong guesser.

    Args:
        rng: Source of the draw.
        schema: JSON Schema of the field.
        like: The right value, which tells the column and the length.
        column_of: Values of every column that holds a given value.

    Returns:
        A typed guess.
    """
    if isinstance(like, list):
        if not like:
            return []
        first = like[0]
        if isinstance(first, dict):
            return [guess_value(rng, _inner(schema, "items"), item, column_of) for item in like]
        pool: list[JsonValue] = [*(() if isinstance(first, list) else column_of(first))] or like
        return rng.sample(pool, min(len(like), len(pool)))
    if isinstance(like, dict):
        fields: dict[str, dict[str, Any]] = schema.get("properties") or {}
        return {key: guess_value(rng, fields.get(key, {}), value, column_of) for key, value in like.items()}
    return _random_scalar(rng, schema, like, column_of)


def _random_scalar(
    rng: random.Random, schema: dict[str, Any], like: JsonValue, column_of: Callable[[Scalar], list[Scalar]]
) -> JsonValue:
    if isinstance(like, str):
        return rng.choice(column_of(like) or ["unknown"])
    if isinstance(like, bool):
        return rng.random() < 0.5
    if isinstance(like, int):
        return rng.randint(0, max(SMALLEST_RANGE, 2 * abs(like)))
    return zero_value(schema)
