"""The quick validator never accepts what the strict check refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.verifiers import SchemaCheck, schema_problem
from envsynth.verifiers.quick import quick_validator

NAMES = st.sampled_from(["a", "b", "c", "é"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, -(2**63) - 1, 7.0, 1.0, 0.5, float("inf"), float("nan")]),
    st.sampled_from(["", "x", "y", "1", "\ud800", "z" * 1_001, "z" * 100_001, "ü"]),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null", ["string", "null"],
                         ["null", "integer"], ["integer", "string"], ["null"]])  # fmt: skip
RULES = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "enum": st.lists(st.sampled_from(["x", "y", 1, True, None]), min_size=1, max_size=3, unique_by=repr),
        "minimum": st.sampled_from([0, -5, 0.5]),
        "maximum": st.sampled_from([3, 2**70]),
        "minLength": st.just(1),
        "pattern": st.just("^x"),
        "items": st.fixed_dictionaries({"type": TYPES}, optional={"enum": st.just(["x", "y"])}),
        "minItems": st.sampled_from([0, 1, 2, 1.0]),
        "maxItems": st.sampled_from([0, 1, 2, 1_000]),
        "uniqueItems": st.booleans(),
        "description": st.just("words"),
        "default": st.just(1),
    },
)
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAMES, RULES, max_size=3)},
    optional={
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": st.sampled_from([False, False, True]),
        "minProperties": st.just(1),
    },
)


@given(SCHEMAS, st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=3)))
def test_quick_accepts_only_what_the_full_check_accepts(schema: dict[str, Any], value: Any) -> None:
    quick = quick_validator(schema)
    if quick is not None and quick.isinstance_python(value):
        assert schema_problem(schema, value) is None
    assert SchemaCheck(schema).problem(value) == schema_problem(schema, value)
    assert SchemaCheck(schema).fits(value) == (schema_problem(schema, value) is None)


OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": False, "required": ["n"]}


@pytest.mark.parametrize(
    ("rules", "accepted", "refused"),
    [
        ({"type": "integer", "minimum": 1}, [1, 2**63 - 1], [0, True, 1.0, "1", None, 2**63]),
        ({"type": "string", "enum": ["x", "y"]}, ["x"], ["z", 1, None]),
        ({"type": ["string", "null"]}, ["x", None], [1]),
        ({"type": "array", "items": {"type": "boolean"}}, [[], [True]], [[1], "x"]),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
            [[1], [1, 2]],
            [[], [1, 1], [1, 2, 3], [1.0], [True, 1]],
        ),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, [[], ["x", "y"]], [["x", "x"]]),
    ],
)
def test_quick_decides_the_usual_schemas(rules: Any, accepted: list[Any], refused: list[Any]) -> None:
    quick = quick_validator({**OBJECT, "properties": {"n": rules}})
    assert quick is not None
    assert all(quick.isinstance_python({"n": value}) for value in accepted)
    assert not any(quick.isinstance_python({"n": value}) for value in refused)
    assert not quick.isinstance_python({})
    assert not quick.isinstance_python({"n": accepted[0], "other": 1})
    check = SchemaCheck({**OBJECT, "properties": {"n": rules}})
    for value in ([], {}, {"n": accepted[0], "other": 1}, *({"n": item} for item in (*accepted, *refused))):
        assert check.fits(value) == (check.problem(value) is None), value


@pytest.mark.parametrize(
    "rules",
    [{"type": "number"}, {"type": "string", "pattern": "^x$"}, {"type": "integer", "enum": [1]}, {"type": "object"}],
)
def test_schemas_that_say_more_have_no_quick_validator(rules: Any) -> None:
    assert quick_validator({**OBJECT, "properties": {"n": rules}}) is None


@pytest.mark.parametrize(
    ("rules", "value", "right"),
    [
        ({"type": ["string", "null"]}, None, True),
        ({"type": ["integer", "null"]}, None, True),
        ({"type": ["integer", "null"]}, "1", False),
        ({"type": "boolean"}, True, True),
        ({"type": "integer"}, True, False),
        ({"type": "string", "enum": ["x", "y"]}, "y", True),
        ({"type": "string", "enum": ["x", "y"]}, "z", False),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, ["x", "y"], True),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, ["x", "y", "z"], False),
    ],
)
def test_a_long_text_beside_leaves_the_rest_to_both(rules: Any, value: Any, right: bool) -> None:
    """No value with a long text is accepted quickly, so that what is refused quickly decides here."""
    schema = {**OBJECT, "properties": {"n": rules, "text": {"type": "string"}}}
    given = {"n": value, "text": "x" * 2_000}
    quick = quick_validator(schema)
    assert quick is not None
    assert not quick.isinstance_python(given)
    assert SchemaCheck(schema).fits(given) is right is (schema_problem(schema, given) is None)
