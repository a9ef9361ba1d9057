"""Walking and rewriting nested values: frozen dataclasses and tuples, as task programs are built of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

Program = TypeVar("Program")

_FIELDS: dict[type, tuple[str, ...]] = {}
"""Names of the fields of every class that was met, none for a scalar; asking a dataclass is most of the time of a walk."""
_LEAVES = (str, int, bool, type(None))
"""Scalars: nothing is below them."""


_MOST_WALKED, _WORTH_KEEPING = 64, 8
_walked: dict[int, tuple[Any, list[Any]]] = {}
"""The last programs that were walked, by identity, with what is below them: each is walked by dozens of rules in a row."""


def walk(value: Any) -> Iterator[Any]:
    """Yield a node and everything below it, parents first."""
    known = _walked.get(id(value))
    if known is not None and known[0] is value:
        return iter(known[1])
    found: list[Any] = []
    _gather(value, found.append)
    if len(found) > _WORTH_KEEPING:
        if len(_walked) >= _MOST_WALKED:
            del _walked[next(iter(_walked))]
        _walked[id(value)] = value, found
    return iter(found)


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
