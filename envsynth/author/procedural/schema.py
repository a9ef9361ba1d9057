"""Types of values, and what the type checker of task programs must know of a world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from envsynth.errors import SpecError


class Type(NamedTuple):
    """Type of a value: kind `row`, `rows`, `num`, `date`, `str`, `bool`; detail is the entity, unit or domain."""

    kind: str
    detail: str = ""


class Schema(Protocol):
    """What the type checker must know of a world."""

    def attr_type(self, entity: str, name: str) -> Type | None:
        """Type of an attribute, None when the entity lacks it."""
        ...

    def attr_params(self, entity: str, name: str) -> tuple[Type, ...]:
        """Parameter types of a derived attribute; empty for stored ones."""
        ...

    def action_params(self, op: str) -> tuple[tuple[str, Type], ...] | None:
        """Named parameter types of an action, None when there is no such action."""
        ...


class IRTypeError(SpecError):
    """A task program is ill-typed; the message says where."""


WIDEST: Mapping[str, tuple[int | str, int | str]] = {
    "num": (-1_000_000_000_000, 1_000_000_000_000),
    "date": ("0001-01-01", "9999-12-31"),
}
"""Bounds from below and from above that every value meets, by kind."""


def told_type(schema: Schema, topics: list[str], topic: str, type_: Type) -> Type:
    """Check what a user is asked for.

    Args:
        schema: Which rows have names.
        topics: What the user was asked about before; the topic is added.
        topic: What the user is asked about.
        type_: The type of what is asked for.

    Returns:
        The type.

    Raises:
        IRTypeError: it is no number, date or row with a name, or the user was asked about it before.
    """
    if type_.kind not in ("num", "date", "row"):
        raise IRTypeError(f"{topic}: a user tells no {type_.kind}")
    if type_.kind == "row" and schema.attr_type(type_.detail, "name") is None:
        raise IRTypeError(f"{topic}: no {type_.detail} has a name")
    if topic in topics:
        raise IRTypeError(f"the user is asked about {topic} twice")
    topics.append(topic)
    return type_
