"""Strict JSON Schema on the host: what an actor sends is checked before any worker sees it.

Stricter than the standard: True is no integer, 1.0 is no integer, NaN and infinities are nothing, integers fit into 64
bits, text has no lone surrogates. Schemas come from authors that nobody trusts, so references outside the schema and
patterns that can backtrack for ever are refused.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import jsonschema
import jsonschema.exceptions
import jsonschema.validators
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable

from envsynth.errors import SpecError
from envsynth.record import canonical_json
from envsynth.verifiers.quick import quick_refusal, quick_validator

MAX_DEPTH = 32
"""Deepest nesting of arguments and answers."""
MAX_NODES = 20_000
"""Most values within arguments or an answer."""
MAX_TEXT = 100_000
"""Longest text within arguments or an answer, in characters."""
MAX_PATTERN_TEXT = 1_000
"""Longest text that a `pattern` is matched against, in characters."""

_SHOWN = 80


def _is_integer(_checker: Any, value: Any) -> bool:
    return type(value) is int


def _is_number(_checker: Any, value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


_CHECKER = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})


def _same(left: Any, right: Any) -> bool:
    """Equality with equal types at every level: 1, 1.0 and True are three different values."""
    return canonical_json(left) == canonical_json(right)


def _enum(_validator: Any, allowed: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not any(_same(value, item) for item in allowed):
        yield jsonschema.ValidationError(f"{_show(value)} is not one of {_show(allowed, 400)}")


def _const(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not _same(value, wanted):
        yield jsonschema.ValidationError(f"{_show(value)} is not {_show(wanted)}")


def _pattern(_validator: Any, pattern: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not isinstance(value, str):
        return
    if len(value) > MAX_PATTERN_TEXT or not re.search(pattern, value):
        yield jsonschema.ValidationError(f"{_show(value)} does not match {pattern!r}")


# The library has no types for these three; as Any they stay usable under strict checking.
_extend: Any = cast("Any", jsonschema.validators).extend
_best_match: Any = cast("Any", jsonschema.exceptions).best_match
_NOWHERE: Any = cast("Any", Registry)()
"""Finds no schema but the one at hand: nothing is ever fetched."""

_StrictValidator: Any = _extend(
    jsonschema.Draft202012Validator,
    {"enum": _enum, "const": _const, "pattern": _pattern},
    type_checker=_CHECKER,
)

_SURROGATE = re.compile("[\ud800-\udfff]")
_BACKTRACKING = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")
_UNBOUNDED = re.compile(r"(?<!\\)[*+]|\{\d+,\}")


def _show(value: Any, limit: int = _SHOWN) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def check_schema(schema: dict[str, JsonValue]) -> None:
    """Refuse a JSON Schema that is malformed or unsafe to evaluate on the host.

    Args:
        schema: JSON Schema, draft 2020-12.

    Raises:
        SpecError: malformed; refers outside itself; or has a pattern that may backtrack without end.
    """
    _compiled(canonical_json(schema))


def malformed(schema: dict[str, JsonValue]) -> str | None:
    """Say why a schema is no JSON Schema, draft 2020-12, or None; by the schema of schemas, where a look does not do."""
    return None if _plainly_sound(schema) else _malformed(canonical_json(schema))


@functools.lru_cache(maxsize=4096)
def _malformed(text: str) -> str | None:
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(text))
    except jsonschema.SchemaError as error:
        path = ".".join(str(part) for part in error.absolute_path) or "schema"
        return f"{path}: {error.message}"
    return None


_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def _plainly_sound(schema: Any) -> bool:
    """Whether a schema uses few keywords, and each as it must be; the schema of schemas takes milliseconds to say so."""
    if not isinstance(schema, dict):
        return False
    words = cast("dict[str, Any]", schema)
    return all(word in _SOUND and _SOUND[word](value) for word, value in words.items())


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_names(value: Any) -> bool:
    names = cast("list[Any]", value)
    return type(value) is list and all(map(_is_text, names)) and len(set(names)) == len(names)


def _are_sound(value: Any) -> bool:
    return type(value) is dict and all(map(_plainly_sound, cast("dict[str, Any]", value).values()))


_SOUND: dict[str, Callable[[Any], bool]] = {
    "type": lambda value: _is_text(value) and value in _TYPES,
    "description": _is_text,
    "title": _is_text,
    "properties": _are_sound,
    "required": _are_names,
    "items": _plainly_sound,
    "enum": lambda value: type(value) is list,
    "additionalProperties": _is_flag,
    "uniqueItems": _is_flag,
    "minimum": _is_whole,
    "maximum": _is_whole,
    "minLength": _is_count,
    "maxLength": _is_count,
    "minItems": _is_count,
    "maxItems": _is_count,
}
"""What the values of some keywords must be, as draft 2020-12 has it or narrower."""


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> Any:
    schema = json.loads(text)
    problem = malformed(schema)
    if problem is not None:
        raise SpecError(f"malformed JSON Schema at {problem}")
    _check_keywords(schema, "schema")
    return _StrictValidator(schema, registry=_NOWHERE)


_NAME_MAPS = ("properties", "$defs", "definitions", "dependentSchemas")
_DATA = ("enum", "const", "default", "examples", "description", "title", "required")


def _check_keywords(schema: Any, path: str) -> None:
    if isinstance(schema, list):
        for index, item in enumerate(cast("list[Any]", schema)):
            _check_keywords(item, f"{path}[{index}]")
    elif isinstance(schema, dict):
        for key, value in cast("dict[str, Any]", schema).items():
            _check_keyword(key, value, path)


def _check_keyword(key: str, value: Any, path: str) -> None:
    if key in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
        raise SpecError(f"{path}.{key}: {value!r} leaves the schema; only '#...' is allowed")
    if key == "patternProperties":
        raise SpecError(f"{path}.{key} is not supported; list the properties")
    if key == "pattern":
        _check_pattern(str(value), path)
    elif key in _NAME_MAPS and isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            _check_keywords(item, f"{path}.{key}.{name}")
    elif key not in _DATA:
        _check_keywords(value, f"{path}.{key}")


def _check_pattern(pattern: str, path: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SpecError(f"{path}.pattern {pattern!r} is no regular expression: {error}") from error
    if _BACKTRACKING.search(pattern) or len(_UNBOUNDED.findall(pattern)) > 1:
        raise SpecError(
            f"{path}.pattern {pattern!r} may backtrack without end: repeat no group and use at most one of '*' and '+'"
        )


class SchemaCheck:
    """One schema, ready to check many values.

    Most values are right. Whether one is, a compiled validator says in a microsecond, where the schema is simple enough
    for it; it never accepts what the full check refuses, and whatever it does not accept, the full check decides.

    Args:
        schema: JSON Schema, draft 2020-12.

    Raises:
        SpecError: the schema is malformed or unsafe.
    """

    def __init__(self, schema: dict[str, JsonValue]) -> None:
        self._validator = _compiled(canonical_json(schema))
        self._quick = quick_validator(schema)
        self._refuses = None if self._quick is None else quick_refusal(schema)

    def fits(self, value: JsonValue) -> bool:
        """Whether nothing is wrong with a value, for those who need no words: finding them costs most of the check.

        Raises:
            SpecError: the schema cannot be evaluated.
        """
        if self._quick is not None and self._quick.isinstance_python(value):
            return True
        if self._refuses is not None and self._refuses(value):
            return False
        if hostile_problem(value) is not None:
            return False
        try:
            return next(self._validator.iter_errors(value), None) is None
        except (RecursionError, Unresolvable) as failure:
            raise SpecError(f"the JSON Schema cannot be evaluated: {type(failure).__name__}") from failure

    def problem(self, value: JsonValue) -> str | None:
        """Say what is wrong with a value, or that nothing is; see `schema_problem`."""
        if self._quick is not None and self._quick.isinstance_python(value):
            return None
        return _problem(self._validator, value)


def schema_problem(schema: dict[str, JsonValue], value: JsonValue) -> str | None:
    """Say what is wrong with a value, or that nothing is.

    Args:
        schema: JSON Schema, draft 2020-12.
        value: What an actor sent, as `json.loads` gives it.

    Returns:
        None when the value conforms; else one sentence that names the path. It quotes the value and the (public)
        schema, nothing else.

    Raises:
        SpecError: the schema itself is malformed or unsafe.
    """
    return _problem(_compiled(canonical_json(schema)), value)


def _problem(validator: Any, value: JsonValue) -> str | None:
    problem = hostile_problem(value)
    if problem is not None:
        return problem
    try:
        error: Any = _best_match(validator.iter_errors(value))
    except (RecursionError, Unresolvable) as failure:
        raise SpecError(f"the JSON Schema cannot be evaluated: {type(failure).__name__}") from failure
    if error is None:
        return None
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    return f"{where.lstrip('.') or 'value'}: {error.message[:400]}"


def hostile_problem(value: Any) -> str | None:
    """Say why parsed JSON is refused whatever its schema, or None: depth, size, range of numbers, broken text."""
    return None if _is_harmless(value) else _hostile(value, "", 0, [0])


_INTEGERS = range(-(2**63), 2**63)
_FEW, _SHALLOW = 200, 4


def _is_harmless(value: Any, depth: int = 0) -> bool:
    """Whether a small value is surely not refused; a quick look that spares most values the walk below."""
    kind = value.__class__
    if kind is str:
        return len(value) <= MAX_PATTERN_TEXT and (value.isascii() or _SURROGATE.search(value) is None)
    if kind is int:
        return value in _INTEGERS
    if kind is dict or kind is list:
        if depth > _SHALLOW or len(value) > _FEW or (kind is dict and not all(map(_is_harmless, value))):
            return False
        return all(_is_harmless(item, depth + 1) for item in (value.values() if kind is dict else value))
    return value is None or kind is bool or (kind is float and math.isfinite(value))


def _hostile(value: Any, path: str, depth: int, count: list[int]) -> str | None:
    """Refuse what JSON text can carry but no honest value needs; walks at most MAX_NODES values."""
    count[0] += 1
    if depth > MAX_DEPTH or count[0] > MAX_NODES:
        return f"{path or 'value'}: nested too deeply or too large"
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            problem = _hostile_scalar(key, f"{path}.key") or _hostile(item, f"{path}.{key[:_SHOWN]}", depth + 1, count)
            if problem is not None:
                return problem
        return None
    if isinstance(value, list):
        items = enumerate(cast("list[Any]", value))
        found = (_hostile(item, f"{path}[{i}]", depth + 1, count) for i, item in items)
        return next((problem for problem in found if problem is not None), None)
    return _hostile_scalar(value, path.lstrip(".") or "value")


def _hostile_scalar(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            return f"{path}: text of {len(value)} characters is too long"
        if _SURROGATE.search(value):
            return f"{path}: text holds half a surrogate pair"
    elif type(value) is int and not -(2**63) <= value < 2**63:
        return f"{path}: integer does not fit into 64 bits"
    elif type(value) is float and not math.isfinite(value):
        return f"{path}: number is not finite"
    elif value is not None and type(value) not in (bool, int, float):
        return f"{path}: {type(value).__name__} is not JSON"
    return None
