"""Types of values, and what the type checker of task programs must know of a world."""

from __future__ import annotations

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
