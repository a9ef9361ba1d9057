"""The compact notation of JSON values: the same content in fewer tokens, with an exact round trip.

    null true false 12 -0.5                 as in JSON
    Kelo  2031-05-02  RR-7969               a text of letters, digits and _.:@/+- stands bare
    "Kelviti Munide"  "5"  "null"           any other text is a JSON text
    (name Kelo rooms [101 102])             an object: keys and values in turn
    {name Kelo rooms [101 102]}             a list of one object: its keys and values in turn
    {name age| Kelo 3| Muni 4}              a list of two or more objects with the same keys: keys, then rows

One space stands between two items and nowhere else, so every value has one notation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from envsynth.errors import SpecError

MAX_DEPTH = 200
"""Nesting that the reader follows; deeper text is refused instead of exhausting the stack."""

_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/+-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ITEM = re.compile(r"[A-Za-z0-9_.:@/+-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_CONSTANTS: Mapping[str, JsonValue] = {"null": None, "true": True, "false": False}


def compact(value: JsonValue) -> str:
    """Write a JSON value.

    Args:
        value: Any JSON value.

    Returns:
        Its one compact notation.

    Raises:
        SpecError: the value holds NaN, an infinity, or something that is not JSON.
    """
    if isinstance(value, str):
        return compact_text(value)
    if isinstance(value, dict):
        return f"({compact_pairs(value)})"
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], dict) and value[0]:
            return "{" + compact_pairs(value[0]) + "}"
        keys = _shared_keys(value)
        if keys is None:
            return f"[{' '.join(compact(item) for item in value)}]"
        rows = cast("list[dict[str, JsonValue]]", value)
        lines = [" ".join(compact(cell) for cell in row.values()) for row in rows]
        return "{" + "| ".join([" ".join(compact_key(key) for key in keys), *lines]) + "}"
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(f"not a JSON value: {error}") from error


def compact_text(text: str) -> str:
    """Write a text: bare where it can be read back as a text, else in quotes."""
    if _BARE.fullmatch(text) and text not in _CONSTANTS and not _NUMBER.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def compact_key(key: str) -> str:
    """Write a key of an object: bare more often than a text, because a key is never a number."""
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def compact_pairs(value: Mapping[str, JsonValue]) -> str:
    """Write the keys and values of an object without its parentheses."""
    return " ".join(f"{compact_key(key)} {compact(item)}" for key, item in value.items())


def _shared_keys(items: list[JsonValue]) -> list[str] | None:
    """The keys that all items have in the same order, when the items are two or more non-empty objects."""
    if len(items) < 2:
        return None
    keys: list[str] | None = None
    for item in items:
        if not isinstance(item, dict) or not item or (keys is not None and list(item) != keys):
            return None
        keys = list(item)
    return keys


def expand(text: str) -> JsonValue:
    """Read a compact notation.

    Args:
        text: What `compact` writes.

    Returns:
        The value.

    Raises:
        SpecError: the text is not the one notation of a value.
    """
    reader = Reader(text)
    value = reader.value()
    reader.finish()
    # One notation per value: whatever is read back is written exactly so again.
    if (written := compact(value)) != text:
        raise SpecError(f"compact text: the value is written {written[:80]!r}, not {text[:80]!r}")
    return value


class Reader:
    """Reads compact notation from left to right.

    Args:
        text: The whole text.
        position: Where to start.
    """

    def __init__(self, text: str, position: int = 0) -> None:
        self.text = text
        self.position = position
        self._depth = 0

    def fail(self, wanted: str) -> SpecError:
        """The error that says what should stand here."""
        near = self.text[self.position : self.position + 24]
        return SpecError(f"compact text: wanted {wanted} at character {self.position}, found {near!r}")

    def finish(self) -> None:
        """Refuse what is left over.

        Raises:
            SpecError: the text goes on.
        """
        if self.position != len(self.text):
            raise self.fail("the end")

    def skip(self, literal: str) -> bool:
        """Step over a literal if it stands here."""
        if not self.text.startswith(literal, self.position):
            return False
        self.position += len(literal)
        return True

    def need(self, literal: str) -> None:
        """Step over a literal.

        Raises:
            SpecError: something else stands here.
        """
        if not self.skip(literal):
            raise self.fail(repr(literal))

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        """Step over what a pattern matches here.

        Raises:
            SpecError: it does not match.
        """
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self.fail(wanted)
        self.position = found.end()
        return found[0]

    def key(self) -> str:
        """Read a key.

        Raises:
            SpecError: no key stands here.
        """
        if self.text.startswith('"', self.position):
            return self.quoted()
        return self.match(_BARE, "a key")

    def quoted(self) -> str:
        """Read a text in quotes.

        Raises:
            SpecError: no such text stands here.
        """
        found = self.match(_QUOTED, "a text in quotes")
        try:
            value = json.loads(found)
        except ValueError as error:
            raise SpecError(f"compact text: {found[:40]} is no JSON text: {error}") from error
        return str(value)

    def value(self) -> JsonValue:
        """Read a value.

        Raises:
            SpecError: no value stands here, or it is nested too deeply.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SpecError(f"compact text is nested deeper than {MAX_DEPTH}")
        try:
            if self.skip("("):
                return {} if self.skip(")") else self.pairs(")")
            if self.skip("["):
                return [] if self.skip("]") else self._list()
            if self.skip("{"):
                return self._table()
            return self._atom()
        finally:
            self._depth -= 1

    def _atom(self) -> JsonValue:
        if self.text.startswith('"', self.position):
            return self.quoted()
        item = self.match(_ITEM, "a value")
        if item in _CONSTANTS:
            return _CONSTANTS[item]
        if not _NUMBER.fullmatch(item):
            return item
        try:
            value: int | float = json.loads(item)
        except ValueError as error:
            raise SpecError(f"compact text: the number {item[:24]}... cannot be read: {error}") from error
        return value

    def pairs(self, end: str) -> dict[str, JsonValue]:
        """Read keys and values in turn up to a closing literal; "" stands for the end of the text.

        Raises:
            SpecError: a key stands twice, or something else than pairs stands here.
        """
        found: dict[str, JsonValue] = {}
        while True:
            key = self.key()
            self.need(" ")
            if key in found:
                raise self.fail(f"another key than {key!r} before it")
            found[key] = self.value()
            if self.skip(end) if end else self.position == len(self.text):
                return found
            self.need(" ")

    def _list(self) -> list[JsonValue]:
        found = [self.value()]
        while not self.skip("]"):
            self.need(" ")
            found.append(self.value())
        return found

    def _columns(self) -> list[str]:
        """Read the head of a table; empty when one object stands here, which only its end tells."""
        keys: list[str] = []
        while not keys or not self.skip("| "):
            if keys and not self.skip(" "):
                return []
            try:
                keys.append(self.key())
            except SpecError:
                return []
        return keys

    def _table(self) -> list[JsonValue]:
        start = self.position
        keys = self._columns()
        if not keys:
            self.position = start
            return [self.pairs("}")]
        if len(dict.fromkeys(keys)) != len(keys):
            raise self.fail("columns with different names before it")
        rows: list[JsonValue] = []
        while True:
            row: dict[str, JsonValue] = {}
            for index, key in enumerate(keys):
                if index:
                    self.need(" ")
                row[key] = self.value()
            rows.append(row)
            if self.skip("}"):
                return rows
            self.need("| ")
