"""Values that fit a JSON Schema: all zero, all echo, or random. For actors that know types and nothing else."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from pydantic import JsonValue

Schema = Mapping[str, JsonValue]

_MAX_DEPTH = 16
_SAMPLES = ("", "a", "0", "1970-01-01", "1970-01-01T00:00:00", "A-1", "00:00", "a@example.org")


class _Leaves(Protocol):
    """How a kind of value fills the places that a schema leaves open."""

    def choose(self, options: Sequence[JsonValue]) -> JsonValue: ...
    def text(self, name: str) -> str: ...
    def integer(self, name: str, low: int | None, high: int | None) -> int: ...
    def flag(self) -> bool: ...
    def count(self, low: int, high: int) -> int: ...
    def optional(self) -> bool: ...


def zero_value(schema: Schema) -> JsonValue:
    """Return the emptiest value of the schema's type: 0, "", [], false, the first of an enumeration.

    Args:
        schema: JSON Schema. Bounds, lengths and simple patterns are obeyed.

    Returns:
        The value.
    """
    return _Builder(schema, _Zero()).value(schema, "", 0)


def echo_value(schema: Schema, text: str) -> JsonValue:
    """Return a value of the schema's type that repeats a text: every string is the text, every number its first one.

    Args:
        schema: JSON Schema.
        text: What is repeated.

    Returns:
        The value.
    """
    return _Builder(schema, _Echo(text)).value(schema, "", 0)


def random_value(schema: Schema, rng: random.Random, seen: Mapping[str, Sequence[JsonValue]]) -> JsonValue:
    """Return a random value of the schema's type.

    Args:
        schema: JSON Schema.
        rng: The source of randomness.
        seen: Scalars that came up earlier, by key; half of all scalars are taken from here when a type fits, and those
            of the same key come first.

    Returns:
        The value.
    """
    return _Builder(schema, _Random(rng, seen)).value(schema, "", 0)


class _Zero:
    def choose(self, options: Sequence[JsonValue]) -> JsonValue:
        return options[0]

    def text(self, name: str) -> str:
        return ""

    def integer(self, name: str, low: int | None, high: int | None) -> int:
        return 0

    def flag(self) -> bool:
        return False

    def count(self, low: int, high: int) -> int:
        return low

    def optional(self) -> bool:
        return False


class _Echo(_Zero):
    def __init__(self, text: str) -> None:
        self._text = text
        found = re.search(r"\d{1,15}", text)
        self._number = int(found.group()) if found else 0

    def text(self, name: str) -> str:
        return self._text

    def integer(self, name: str, low: int | None, high: int | None) -> int:
        return self._number

    def count(self, low: int, high: int) -> int:
        return max(low, min(1, high))

    def optional(self) -> bool:
        return True


class _Random:
    def __init__(self, rng: random.Random, seen: Mapping[str, Sequence[JsonValue]]) -> None:
        self._rng = rng
        self._seen = seen

    def choose(self, options: Sequence[JsonValue]) -> JsonValue:
        return self._rng.choice(options)

    def text(self, name: str) -> str:
        found = self._known(str, name)
        if isinstance(found, str):
            return found
        return "".join(self._rng.choice("abcdefghij") for _ in range(self._rng.randint(1, 8)))

    def integer(self, name: str, low: int | None, high: int | None) -> int:
        found = self._known(int, name)
        if type(found) is int:
            return found
        start = low if low is not None else min(0, high or 0)
        end = high if high is not None else start + self._rng.choice((3, 30, 300))
        return self._rng.randint(min(start, end), end)

    def flag(self) -> bool:
        return self._rng.random() < 0.5

    def count(self, low: int, high: int) -> int:
        return self._rng.randint(low, max(low, min(high, low + 3)))

    def optional(self) -> bool:
        return self._rng.random() < 0.5

    def _known(self, kind: type, name: str) -> JsonValue:
        if self._rng.random() < 0.5:
            return None
        named = [value for value in self._seen.get(name, ()) if type(value) is kind]
        every = [value for values in self._seen.values() for value in values if type(value) is kind]
        pool = named if named and self._rng.random() < 0.7 else every
        return self._rng.choice(pool) if pool else None


class _Builder:
    """Walks a schema; `leaves` fills it."""

    def __init__(self, root: Schema, leaves: _Leaves) -> None:
        self._root = root
        self._leaves = leaves

    def value(self, schema: Schema, name: str, depth: int) -> JsonValue:
        if depth > _MAX_DEPTH:  # a schema that refers to itself
            return None
        if "$ref" in schema:
            return self.value(self._resolve(str(schema["$ref"])), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if isinstance(options := schema.get("enum"), list) and options:
            return self._leaves.choose(options)
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(branches := schema.get(key), list) and branches:
                branch = self._leaves.choose(branches) if key != "allOf" else branches[0]
                return self.value({**schema, key: None, **_schema(branch)}, name, depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = self._leaves.choose(kind)
        return self._typed(str(kind), schema, name, depth)

    def _typed(self, kind: str, schema: Schema, name: str, depth: int) -> JsonValue:
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            low, high = _bounds(schema)
            return _clip(self._leaves.integer(name, low, high), low, high)
        if kind == "boolean":
            return self._leaves.flag()
        if kind == "null":
            return None
        return self._text(schema, name)

    def _object(self, schema: Schema, depth: int) -> JsonValue:
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        built: dict[str, JsonValue] = {}
        for key, inner in _schema(schema.get("properties")).items():
            if key in names or self._leaves.optional():
                built[key] = self.value(_schema(inner), key, depth + 1)
        return built

    def _array(self, schema: Schema, name: str, depth: int) -> JsonValue:
        first = schema.get("prefixItems")
        fixed = [_schema(item) for item in first] if isinstance(first, list) else []
        low = max(_whole(schema.get("minItems"), 0), len(fixed))
        n = self._leaves.count(low, _whole(schema.get("maxItems"), low + 8))
        rest = _schema(schema.get("items"))
        found: list[JsonValue] = []
        for position in range(n):
            item = fixed[position] if position < len(fixed) else rest
            value = self.value(item, name, depth + 1)
            # A set can be smaller than asked when the leaves have nothing else to offer.
            if not (schema.get("uniqueItems") is True and value in found):
                found.append(value)
        return found

    def _text(self, schema: Schema, name: str) -> str:
        text = self._leaves.text(name)
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not re.search(pattern, text):
            text = next((sample for sample in _SAMPLES if re.search(pattern, sample)), text)
        elif schema.get("format") == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            text = "1970-01-01"
        low, high = _whole(schema.get("minLength"), 0), schema.get("maxLength")
        text = text + "a" * (low - len(text))
        return text[:high] if isinstance(high, int) else text

    def _resolve(self, reference: str) -> Schema:
        found: JsonValue = cast("JsonValue", dict(self._root))
        for part in reference.removeprefix("#").strip("/").split("/"):
            found = _schema(found).get(part) if part else found
        return _schema(found)


def _schema(value: JsonValue | Schema) -> dict[str, JsonValue]:
    return dict(value) if isinstance(value, Mapping) else {}


def _whole(value: JsonValue, otherwise: int) -> int:
    return value if type(value) is int else otherwise


def _bounds(schema: Schema) -> tuple[int | None, int | None]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    lows = [_whole(low, 0)] if type(low) is int else []
    highs = [_whole(high, 0)] if type(high) is int else []
    lows += [_whole(above, 0) + 1] if type(above) is int else []
    highs += [_whole(below, 0) - 1] if type(below) is int else []
    return max(lows, default=None), min(highs, default=None)


def _clip(value: int, low: int | None, high: int | None) -> int:
    if low is not None and value < low:
        return low
    return high if high is not None and value > high else value
