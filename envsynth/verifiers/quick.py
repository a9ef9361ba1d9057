"""Quick acceptance of values by simple JSON Schemas, compiled for pydantic's validator, and quick refusal.

Accepting means: the strict check of `strict` accepts as well; refusing, that it refuses as well. Schemas that use more than
a few keywords have neither, and a value that is neither accepted nor refused has no verdict yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pydantic import JsonValue
from pydantic_core import CoreSchema, SchemaValidator, core_schema

_MAX_TEXT, _MAX_ITEMS, _MAX_FIELDS = 1_000, 100, 100
_LOW, _HIGH = -(2**63), 2**63 - 1
_NOTES = {"description", "title", "examples", "default"}
_STRICT = core_schema.CoreConfig(strict=True, allow_inf_nan=False)


def quick_validator(schema: dict[str, JsonValue]) -> SchemaValidator | None:
    """Compile a schema.

    Args:
        schema: JSON Schema, draft 2020-12, already checked.

    Returns:
        A validator whose `isinstance_python` is true only for values that conform strictly and are small; None when the
        schema says more than it can tell.
    """
    found = _object(schema)
    return None if found is None else SchemaValidator(found, _STRICT)


def quick_refusal(schema: dict[str, JsonValue]) -> Callable[[JsonValue], bool]:
    """Compile what no value of a schema may be: of another type, short of a field, a word not listed, too many items.

    Args:
        schema: JSON Schema, draft 2020-12, for which there is a quick validator.

    Returns:
        A function that is true only for values that do not conform.
    """
    properties = cast("dict[str, dict[str, Any]]", schema.get("properties", {}))
    required = frozenset(cast("list[str]", schema.get("required", [])))
    kinds = {name: _classes(item["type"]) for name, item in properties.items()}
    words = {name: frozenset(item["enum"]) for name, item in properties.items() if "enum" in item}
    most = {name: item["maxItems"] for name, item in properties.items() if "maxItems" in item}

    def refuses(value: JsonValue) -> bool:
        return (
            not isinstance(value, dict)
            or not required <= value.keys()
            or any(
                name not in kinds
                or item.__class__ not in kinds[name]
                or (name in words and item not in words[name])
                or (name in most and isinstance(item, list) and len(item) > most[name])
                for name, item in value.items()
            )
        )

    return refuses


def _classes(kind: Any) -> frozenset[type]:
    """What a JSON type may be in Python; the strict check takes no float for an integer."""
    kinds = cast("list[str]", kind if isinstance(kind, list) else [kind])
    return frozenset(found for name in kinds for found in _PYTHON[name])


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "null": (type(None),),
}


def _object(schema: dict[str, Any]) -> CoreSchema | None:
    known = {"type", "properties", "required", "additionalProperties", *_NOTES}
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if (
        schema.get("type") != "object"
        or not schema.keys() <= known
        or schema.get("additionalProperties") is not False
        or len(properties) > _MAX_FIELDS
        or not set(required) <= set(properties)
    ):
        return None
    fields: dict[str, core_schema.TypedDictField] = {}
    for name, item in cast("dict[str, Any]", properties).items():
        inner = _value(item)
        if inner is None:
            return None
        fields[name] = core_schema.typed_dict_field(inner, required=name in required)
    return core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid", total=False)


def _value(schema: Any) -> CoreSchema | None:
    if not isinstance(schema, dict):
        return None
    rules = {key: value for key, value in cast("dict[str, Any]", schema).items() if key not in _NOTES}
    kind = rules.pop("type", None)
    if isinstance(kind, list) and len(cast("list[Any]", kind)) == 2 and "null" in kind:
        (other,) = (item for item in cast("list[Any]", kind) if item != "null")
        inner = _value({**rules, "type": other})
        return None if inner is None or "enum" in rules else core_schema.nullable_schema(inner)
    if kind == "array":
        return _array(rules)
    return _scalar(kind, rules)


def _array(rules: dict[str, Any]) -> CoreSchema | None:
    inner = _value(rules.pop("items", None))
    low, high, unique = rules.pop("minItems", 0), rules.pop("maxItems", _MAX_ITEMS), rules.pop("uniqueItems", False)
    if inner is None or rules or type(low) is not int or type(high) is not int or type(unique) is not bool:
        return None
    found = core_schema.list_schema(inner, strict=True, min_length=low, max_length=min(high, _MAX_ITEMS))
    if not unique:
        return found
    # Of texts, or of integers, those that Python takes for equal are the ones that JSON Schema takes for equal.
    plain = inner["type"] in ("str", "int", "literal")
    return core_schema.no_info_after_validator_function(_all_different, found) if plain else None


def _all_different(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("two items are equal")
    return items


def _scalar(kind: Any, rules: dict[str, Any]) -> CoreSchema | None:
    if kind == "string" and list(rules) == ["enum"]:
        texts = rules["enum"]
        return core_schema.literal_schema(texts) if texts and all(type(text) is str for text in texts) else None
    if kind == "string" and not rules:
        return core_schema.str_schema(strict=True, max_length=_MAX_TEXT)
    if kind == "integer" and rules.keys() <= {"minimum", "maximum"}:
        low, high = rules.get("minimum", _LOW), rules.get("maximum", _HIGH)
        if type(low) is not int or type(high) is not int:
            return None
        return core_schema.int_schema(strict=True, ge=max(low, _LOW), le=min(high, _HIGH))
    if kind == "boolean" and not rules:
        return core_schema.bool_schema(strict=True)
    return None
