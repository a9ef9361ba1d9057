from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.verifiers import check_schema, hostile_problem, schema_problem


def field(**schema):
    return {
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "value", "ok"),
    [
        ({"type": "integer"}, 5, True),
        ({"type": "integer"}, True, False),
        ({"type": "integer"}, 5.0, False),
        ({"type": "number"}, 5.5, True),
        ({"type": "number"}, False, False),
        ({"type": "number"}, float("nan"), False),
        ({"type": "number"}, float("inf"), False),
        ({"type": "boolean"}, True, True),
        ({"type": "boolean"}, 1, False),
        ({"type": "string"}, "é漢", True),
        ({"type": "string"}, "\udc00", False),
        ({"enum": [1, "a"]}, 1, True),
        ({"enum": [1, "a"]}, True, False),
        ({"enum": [1, "a"]}, 1.0, False),
        ({"enum": ["a"]}, "\u0430", False),
        ({"const": 0}, False, False),
        ({"type": "integer"}, 2**63 - 1, True),
        ({"type": "integer"}, 2**63, False),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], True),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 1], False),
        ({"type": "string", "pattern": r"^\d{4}-\d\d$"}, "2025-01", True),
        ({"type": "string", "pattern": r"^\d{4}-\d\d$"}, "2025-1", False),
        ({"type": "string", "pattern": "^a*$"}, "a" * 1001, False),
        ({"$ref": "#/properties/x/$defs/n", "$defs": {"n": {"type": "integer"}}}, 3, True),
    ],
)
def test_types_are_strict(schema, value, ok):
    problem = schema_problem(field(**schema), {"x": value})
    assert (problem is None) == ok
    assert ok or problem.startswith("x")


@pytest.mark.parametrize("value", [{}, {"x": 1, "y": 1}, {"X": 1}, {"\u0445": 1}])
def test_unknown_and_missing_keys_are_named(value):
    assert schema_problem(field(type="integer"), value)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "objekt"}, "malformed"),
        ({"properties": 5}, "malformed"),
        ({"$ref": "http://example.invalid/schema"}, "leaves the schema"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "leaves the schema"),
        ({"items": [{"patternProperties": {"a": {}}}]}, "malformed"),
        ({"anyOf": [{"patternProperties": {"a": {}}}]}, "patternProperties"),
        ({"pattern": "(a+)+$"}, "backtrack"),
        ({"pattern": "a+b+c+$"}, "backtrack"),
        ({"pattern": r"(a)\1"}, "backtrack"),
        ({"pattern": "(unclosed"}, "regular expression|malformed"),
    ],
)
def test_unsafe_schema_is_refused(schema, told):
    with pytest.raises(SpecError, match=told):
        check_schema(schema)


def test_property_names_are_no_keywords():
    schema = {"type": "object", "properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}}
    assert schema_problem(schema, {"pattern": "(a+)+", "$ref": "x"}) is None


@pytest.mark.parametrize("reference", ["#/$defs/none", "#"])
def test_dangling_or_endless_reference_is_a_spec_error(reference):
    schema = {"$ref": reference} if reference != "#" else {"allOf": [{"$ref": "#"}]}
    with pytest.raises(SpecError):
        schema_problem(schema, {"a": 1})


def test_depth_and_size_are_bounded():
    deep = 1
    for _ in range(100):
        deep = [deep]
    assert "deep" in hostile_problem(deep)
    assert "large" in hostile_problem([0] * 30_000)
    assert "long" in hostile_problem({"a": "x" * 200_000})
    assert hostile_problem([{"a": [1, 2.5, None, "é", True]}]) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_honest_json_is_never_hostile_and_const_matches_itself(value):
    assert hostile_problem(value) is None
    assert schema_problem({"const": value}, json.loads(json.dumps(value))) is None
