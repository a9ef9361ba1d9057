"""The compact notation of tool documents and answer schemas.

    Find rows. vok (name age?: integer colour? [red blue] day? "YYYY-MM-DD" n?: integer minimum = 1)
    Find rows. vok [name! age: integer]

The description comes first, so that the words which tell tools apart stand before the name that is to be said.

A closed object is written as a signature: the name of each property, its type unless it is a text, then the description,
the values of an enumeration and other keywords. In parentheses `?` marks what may be left out, in brackets `!` marks what
must be given; a signature takes the form that needs fewer marks. Whatever has another shape is written in full as a JSON
value, so nothing is ever lost.

Records that were stored have their keys sorted, records that were just made have them as their author wrote them, and
the text that an actor gets shows which. `~` before a signature says that its keys are not sorted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from envsynth.environments.compact.values import Reader, compact, expand
from envsynth.errors import SpecError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"[a-z]+")
_TYPES = ("string", "integer", "number", "boolean", "array")
_TOOL = re.compile(r" ([A-Za-z_][A-Za-z0-9_]*) (?=~?[(\[])")
_OBJECT = ["type", "properties", "required", "additionalProperties"]
_KEYWORD = re.compile(r" ([A-Za-z_][A-Za-z0-9_]*) = ")
_FUNCTION = ["name", "description", "parameters"]


def compact_schema(schema: Mapping[str, JsonValue]) -> str | None:
    """Write a JSON Schema as a signature.

    Args:
        schema: Any JSON Schema.

    Returns:
        `(name age?: integer)`, or None when the schema is no closed object in one of the usual orders of keys.
    """
    if sorted(schema) != sorted(_OBJECT) or schema["type"] != "object" or schema["additionalProperties"] is not False:
        return None
    properties, required = schema["properties"], schema["required"]
    if not isinstance(properties, dict) or not isinstance(required, list):
        return None
    names = [name for name in required if isinstance(name, str) and name in properties]
    if names != required or len(dict.fromkeys(names)) != len(names) or not all(map(_NAME.fullmatch, properties)):
        return None
    parts = {name: _property(item) for name, item in properties.items()}
    if None in parts.values():
        return None
    # With sorted keys the order of the text is free to tell the order of what is required.
    in_order = _is_sorted(schema)
    order = [*names, *(name for name in properties if name not in names)] if in_order else list(properties)
    is_mostly_optional = len(names) < len(order) - len(names)
    marks = ("!", "") if is_mostly_optional else ("", "?")
    written = " ".join(f"{name}{marks[name not in names]}{parts[name]}" for name in order)
    signature = (
        f"{'' if in_order else '~'}{'[' if is_mostly_optional else '('}{written}{']' if is_mostly_optional else ')'}"
    )
    return signature if _same(read_schema(Reader(signature)), schema) else None


def _is_sorted(schema: Mapping[str, JsonValue]) -> bool:
    properties = cast("dict[str, dict[str, JsonValue]]", schema["properties"])
    return all(list(keys) == sorted(keys) for keys in (schema, properties, *properties.values()))


def _same(left: JsonValue, right: JsonValue | Mapping[str, JsonValue]) -> bool:
    """Equal, and with all keys in the same order."""
    return compact(left) == compact(cast("JsonValue", right))


def _property(item: JsonValue) -> str | None:
    """What follows a parameter's name; None when its schema has not the type of a scalar or a list."""
    if not isinstance(item, dict) or item.get("type") not in _TYPES:
        return None
    written = "" if item["type"] == "string" else f": {item['type']}"
    for key, value in item.items():
        if key == "description" and isinstance(value, str) and _plain(value):
            written += f' "{value}"'
        elif key == "enum" and isinstance(value, list):
            # A list of objects would be written as a table, which is not told from a keyword's value.
            written += f" [{' '.join(compact(option) for option in value)}]"
        elif _NAME.fullmatch(key) and key not in ("description", "enum", "type"):
            written += f" {key} = {compact(value)}"
        elif key != "type":
            return None
    return written


def _plain(text: str) -> bool:
    return all(char not in '"\\' and char.isprintable() for char in text)


def read_schema(reader: Reader) -> dict[str, JsonValue]:
    """Read a signature.

    Args:
        reader: Stands at the signature.

    Returns:
        The schema.

    Raises:
        SpecError: no signature stands here.
    """
    as_written = reader.skip("~")
    is_mostly_optional = reader.skip("[")
    if not is_mostly_optional:
        reader.need("(")
    properties: dict[str, dict[str, JsonValue]] = {}
    required: list[JsonValue] = []
    while not reader.skip("]" if is_mostly_optional else ")"):
        if properties:
            reader.need(" ")
        name = reader.match(_NAME, "a parameter")
        if name in properties:
            raise reader.fail(f"another parameter than {name!r} before it")
        if reader.skip("!" if is_mostly_optional else "?") == is_mostly_optional:
            required.append(name)
        properties[name] = _read_property(reader)
    found: dict[str, JsonValue] = {
        "type": "object",
        "properties": {name: dict(item) for name, item in properties.items()},
        "required": required,
        "additionalProperties": False,
    }
    if as_written:
        return found
    ordered = {name: _sorted(properties[name]) for name in sorted(properties)}
    return _sorted({**found, "properties": cast("JsonValue", ordered)})


def _sorted(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value[key] for key in sorted(value)}


def _read_property(reader: Reader) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {"type": "string"}
    if reader.skip(": "):
        found["type"] = reader.match(_TYPE, "a type")
    while True:
        if reader.text.startswith(' "', reader.position):
            reader.need(" ")
            found["description"] = reader.quoted()
        elif reader.text.startswith(" [", reader.position):
            reader.need(" ")
            found["enum"] = reader.value()
        elif keyword := _KEYWORD.match(reader.text, reader.position):
            reader.position = keyword.end()
            found[keyword[1]] = reader.value()
        else:
            return found


def compact_schema_or_value(schema: Mapping[str, JsonValue]) -> str:
    """Write a JSON Schema as a signature if it has that shape, else as a value behind `=`."""
    return compact_schema(schema) or f"= {compact(dict(schema))}"


def expand_schema_or_value(text: str) -> dict[str, JsonValue]:
    """Read what `compact_schema_or_value` wrote.

    Args:
        text: The whole text.

    Returns:
        The schema.

    Raises:
        SpecError: it is neither.
    """
    if text.startswith("= "):
        value = expand(text.removeprefix("= "))
        if not isinstance(value, dict):
            raise SpecError(f"a schema is an object, not {text[2:60]!r}")
        return value
    reader = Reader(text)
    schema = read_schema(reader)
    reader.finish()
    return schema


def compact_tool(function: Mapping[str, JsonValue]) -> str:
    """Write a tool document on one line.

    Args:
        function: `{"name", "description", "parameters"}`, as in OpenAI's function format.

    Returns:
        Description, name and signature; or the whole document as a value behind `=` when it has another shape.
    """
    if list(function) == _FUNCTION:
        name, text, schema = function["name"], function["description"], function["parameters"]
        signature = compact_schema(schema) if isinstance(schema, dict) else None
        if signature and isinstance(name, str) and isinstance(text, str) and _NAME.fullmatch(name):
            line = f"{text} {name} {signature}"
            if _one_line(text) and not line.startswith("= ") and _read_tool(line) == (text, name, signature):
                return line
    return f"= {compact(dict(function))}"


def _one_line(text: str) -> bool:
    return bool(text) and text == text.strip() and len(text.splitlines()) == 1


def expand_tool(line: str) -> dict[str, JsonValue]:
    """Read what `compact_tool` wrote.

    Args:
        line: The line.

    Returns:
        The document.

    Raises:
        SpecError: the line is no tool document.
    """
    if line.startswith("= "):
        value = expand(line.removeprefix("= "))
        if not isinstance(value, dict):
            raise SpecError(f"a tool document is an object, not {line[2:60]!r}")
        return value
    text, name, signature = _read_tool(line)
    schema = cast("JsonValue", read_schema(Reader(signature)))
    found: dict[str, JsonValue] = {"name": name, "description": text, "parameters": schema}
    if compact_tool(found) != line:
        raise SpecError(f"not how a tool document is written: {line[:80]!r}")
    return found


def _read_tool(line: str) -> tuple[str, str, str]:
    """Split a line into description, name and signature: the signature is the shortest one that ends the line.

    Raises:
        SpecError: it has no such parts.
    """
    for found in reversed(list(_TOOL.finditer(line))):
        reader = Reader(line, found.end())
        try:
            read_schema(reader)
            reader.finish()
        except SpecError:
            continue  # a parenthesis inside the signature, or in a text
        return line[: found.start()], found[1], line[found.end() :]
    raise SpecError(f"no tool document: {line[:80]!r}")
