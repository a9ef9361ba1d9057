"""Guesses that look like the right answer: typed by JSON Schema, texts from the right column."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

from envsynth.actors import zero_value
from envsynth.spec import Scalar


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
        pool: list[JsonValue] = [*(() if isinstance(first, list | dict) else column_of(first))] or like
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
        return rng.randint(0, max(20, 2 * abs(like)))
    return zero_value(schema)
