"""Walking and rewriting nested values: frozen dataclasses and tuples, as task programs are built of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, cast


def walk(value: Any) -> Iterator[Any]:
    """Yield a node and everything below it, parents first."""
    yield value
    if is_dataclass(value):
        for field in fields(value):
            yield from walk(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in cast("tuple[Any, ...]", value):
            yield from walk(item)


def subst(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Rebuild a program; where `replace` returns another object than it was given, that object stands instead.

    Rewrites go by identity, never by equality: two equal named rows at different places are different sites.
    """
    new = replace(value)
    if new is not value:
        return new
    if is_dataclass(value):
        return type(value)(*(subst(getattr(value, field.name), replace) for field in fields(value)))  # type: ignore[call-arg]
    if isinstance(value, tuple):
        return tuple(subst(item, replace) for item in cast("tuple[Any, ...]", value))
    return value
