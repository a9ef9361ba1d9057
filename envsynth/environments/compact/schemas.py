"""The compact notation of tool documents and answer schemas.

    brin (name? age?: integer colour [red blue] day "YYYY-MM-DD" n: integer minimum = 1) Find rows.

A closed object is written as a signature: `?` marks what may be left out, the type is told
unless it is a text, then the values of an enumeration, the description and other keywords, in the order that they have.
Whatever has another shape is written in full as a JSON value, so nothing is ever lost.
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
_OBJECT = ["type", "properties", "required", "additionalProperties"]
_KEYWORD = re.compile(r" ([A-Za-z_][A-Za-z0-9_]*) = ")
_FUNCTION = ["name", "description", "parameters"]


def compact_schema(schema: Mapping[str, JsonValue]) -> str | None:
    """Write a JSON Schema as a signature.

    Args:
        schema: Any JSON Schema.

    Returns:
        `(name? age?: integer)`, or None when the schema is no closed object in the usual order of keys.
    """
    if list(schema) != _OBJECT or schema["type"] != "object" or schema["additionalProperties"] is not False:
        return None
    properties, required = schema["properties"], schema["required"]
    if not isinstance(properties, dict) or not isinstance(required, list):
        return None
    if required != [name for name in properties if name in required]:
        return None
    parts: list[str] = []
    for name, item in properties.items():
        part = _property(item) if _NAME.fullmatch(name) else None
        if part is None:
            return None
        parts.append(name + ("" if name in required else "?") + part)
    return f"({' '.join(parts)})"


def _property(item: JsonValue) -> str | None:
    """What follows a parameter's name; None when its schema does not begin with the type of one of the usual types."""
    if not isinstance(item, dict) or list(item)[:1] != ["type"] or item["type"] not in _TYPES:
        return None
    written = "" if item["type"] == "string" else f": {item['type']}"
    for key, value in list(item.items())[1:]:
        if key == "description" and isinstance(value, str) and _plain(value):
            written += f' "{value}"'
        elif key == "enum" and isinstance(value, list):
            # A list of objects would be written as a table, which is not told from a keyword's value.
            written += f" [{' '.join(compact(option) for option in value)}]"
        elif _NAME.fullmatch(key) and key not in ("description", "enum"):
            written += f" {key} = {compact(value)}"
        else:
            return None
    return written


def _plain(text: str) -> bool:
    return all(char not in '"\\' and char.isprintable() for char in text)


def read_schema(reader: Reader) -> dict[str, JsonValue]:
    """Read a signature.

    Args:
        reader: Stands at the opening parenthesis.

    Returns:
        The schema.

    Raises:
        SpecError: no signature stands here.
    """
    reader.need("(")
    properties: dict[str, JsonValue] = {}
    required: list[JsonValue] = []
    while not reader.skip(")"):
        if properties:
            reader.need(" ")
        name = reader.match(_NAME, "a parameter")
        if name in properties:
            raise reader.fail(f"another parameter than {name!r} before it")
        if not reader.skip("?"):
            required.append(name)
        properties[name] = _read_property(reader)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


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
        Name, signature and description; or the whole document as a value behind `=` when it has another shape.
    """
    if list(function) == _FUNCTION:
        name, text, schema = function["name"], function["description"], function["parameters"]
        signature = compact_schema(schema) if isinstance(schema, dict) else None
        if signature and isinstance(name, str) and isinstance(text, str) and _NAME.fullmatch(name):
            line = f"{name} {signature} {text}"
            if _one_line(text):
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
    reader = Reader(line)
    name = reader.match(_NAME, "a tool's name")
    reader.need(" ")
    schema = read_schema(reader)
    reader.need(" ")
    found = cast("dict[str, JsonValue]", {"name": name, "description": line[reader.position :], "parameters": schema})
    if compact_tool(found) != line:
        raise SpecError(f"not how a tool document is written: {line[:80]!r}")
    return found
