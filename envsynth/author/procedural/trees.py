"""Walking and rewriting nested values: frozen dataclasses and tuples, as task programs are built of."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, TypeVarTuple, cast

Program = TypeVar("Program")
Given = TypeVarTuple("Given")
R = TypeVar("R")

_FIELDS: dict[type, tuple[str, ...]] = {}
"""Names of the fields of every class that was met, none for a scalar; asking a dataclass is most of the time of a walk."""
_LEAVES = (str, int, bool, type(None))
"""Scalars: nothing is below them."""


def remembered(most: int) -> Callable[[Callable[[*Given], R]], Callable[[*Given], R]]:
    """Keep the last results of a function of immutable arguments, by identity: equal programs are seldom the same one.

    Args:
        most: How many results are kept.

    Returns:
        A decorator.
    """

    def decorate(function: Callable[[*Given], R]) -> Callable[[*Given], R]:
        kept: dict[tuple[int, ...], tuple[Any, R]] = {}

        @functools.wraps(function)
        def known(*given: *Given) -> R:
            key = tuple(map(id, given))
            if key in kept:  # what it was given lives as long as the entry, so that the numbers are nobody else's
                return kept[key][1]
            found = function(*given)
            if len(kept) >= most:
                del kept[next(iter(kept))]
            kept[key] = given, found
            return found

        return known

    return decorate


def walk(value: Any) -> Iterator[Any]:
    """Yield a node and everything below it, parents first."""
    return iter(_below(value))


@remembered(64)
def _below(value: Any) -> list[Any]:
    found: list[Any] = []
    _gather(value, found.append)
    return found


def _gather(value: Any, take: Callable[[Any], None]) -> None:
    take(value)
    kind = cast("type[Any]", type(value))
    below = value if kind is tuple else [getattr(value, name) for name in _fields(kind)]
    for item in below:
        if type(item) in _LEAVES:
            take(item)
        else:
            _gather(item, take)


def _fields(kind: type[Any]) -> tuple[str, ...]:
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
    return names


def subst(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Rebuild a program; where `replace` returns another object than it was given, that object stands instead.

    Rewrites go by identity, never by equality: two equal named rows at different places are different sites.
    """
    new = replace(value)
    if new is not value:
        return new
    kind = cast("type[Any]", type(value))
    if kind is tuple:
        return tuple([subst(item, replace) for item in value])
    names = _fields(kind)
    return kind(*[subst(getattr(value, name), replace) for name in names]) if names else value


def swap(task: Program, old: Any, new: Any) -> Program:
    """Replace the one node that *is* `old`."""
    return subst(task, lambda node: new if node is old else node)


def to_json(value: Any) -> Any:
    """Turn a program into JSON: `[class name, field, ...]`, tuples as `["()", ...]`."""
    if is_dataclass(value):
        return [type(value).__name__, *(to_json(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, tuple):
        return ["()", *(to_json(item) for item in cast("tuple[Any, ...]", value))]
    return value


def digest(value: Any) -> str:
    """Hash a program: BLAKE2b-64 of its canonical JSON, 16 hexadecimal digits."""
    data = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()
