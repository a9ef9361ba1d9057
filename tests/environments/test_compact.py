"""Compact text: the same content as JSON, exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.environments import tool_docs
from envsynth.environments.actions import ACTION_FORMAT
from envsynth.environments.compact import (
    compact,
    compact_action,
    compact_first,
    compact_observation,
    compact_tool,
    expand,
    expand_action,
    expand_first,
    expand_observation,
    expand_tool,
)
from envsynth.environments.tools import compact_json
from envsynth.errors import SpecError
from envsynth.record import canonical_json
from envsynth.spec import EnvironmentSpec

words = st.sampled_from(
    ["Kelo", "RR-7969", "2031-05-02", "null", "true", "12", "-3", "1e5", "a b", "", '"', "?", "! x", "="]
)
texts = words | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts, inner, max_size=4)
        | st.tuples(st.lists(texts, min_size=1, max_size=3, unique=True), st.integers(2, 3), inner).map(
            lambda drawn: [dict.fromkeys(drawn[0], drawn[2]) for _ in range(drawn[1])]
        )
    ),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=4)


@settings(max_examples=120, deadline=None)
@given(values)
def test_json_to_compact_to_json(value: JsonValue) -> None:
    assert compact_json(expand(compact(value))) == compact_json(value)


@settings(max_examples=120, deadline=None)
@given(st.text(alphabet='ab1-.,()[]{}| "\\ntrue', max_size=14) | values.map(compact))
def test_what_expands_is_written_so_again(text: str) -> None:
    try:
        value = expand(text)
    except SpecError:
        return
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"name": "Kelo", "age": 3}, "(name Kelo age 3)"),
        ([{"a": 1, "b": "x"}, {"a": 2, "b": "y z"}], '{a b| 1 x| 2 "y z"}'),
        ([{"a": 1}], "{a 1}"),
        ([{}], "[()]"),
        (["5", 5, "null", None, "2031-05-02"], '["5" 5 "null" null 2031-05-02]'),
        ({"5": {}, "x y": []}, '(5 () "x y" [])'),
    ],
)
def test_compact_is_short(value: JsonValue, text: str) -> None:
    assert compact(value) == text
    assert expand(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "(a)",
        "(a 1",
        "(a 1 a 2)",
        "[a  b]",
        '"a"',
        "1e5",
        "{a| 1}",
        "{a a| 1 2| 3 4}",
        "{a| 1| 2",
        "-x",
        "(" * 999,
        "[(a 1) (a 2)]",
        '("a" 1)',
        '"\\x"',
        "1e999",
        "9" * 5000,
    ],
)
def test_expand_refuses_what_compact_does_not_write(text: str) -> None:
    with pytest.raises(SpecError, match=r"compact text|not a JSON value"):
        expand(text)


def test_compact_refuses_what_json_has_not() -> None:
    with pytest.raises(SpecError, match="not a JSON value"):
        compact(float("nan"))


# ------------------------------------------------------------------------------------------------------------- actions

actions = (
    st.text()
    | st.builds(lambda tool, arguments: compact_json({"tool": tool, "arguments": arguments}), texts, objects)
    | st.builds(lambda answer: compact_json({"answer": answer}), objects | values)
    | values.map(json.dumps)
)


@settings(max_examples=80, deadline=None)
@given(actions)
def test_actions_round_trip(text: str) -> None:
    short = compact_action(text)
    assert expand_action(short) == text
    assert compact_action(expand_action(short)) == short


def test_actions_are_short() -> None:
    assert compact_action('{"tool":"vok","arguments":{"name":"Kelo","n":2}}') == "vok name Kelo n 2"
    assert compact_action('{"tool":"vok","arguments":{}}') == "vok"
    assert compact_action('{"answer":{"colour":"red"}}') == "= colour red"
    assert compact_action('{"answer":{}}') == "="
    assert compact_action('{"tool": "vok", "arguments": {}}').startswith("? ")


@pytest.mark.parametrize(
    "text", ["vok name", "vok  name x", "= ", "vok ", "=x", "vok a 1 a 2", '= "a" 1', "", "vok (a 1)"]
)
def test_expand_action_refuses_what_is_no_action(text: str) -> None:
    with pytest.raises(SpecError, match="compact text"):
        expand_action(text)


# -------------------------------------------------------------------------------------------------------- observations

observations = (
    st.text()
    | values.map(lambda value: compact_json({"result": value}))
    | values.map(lambda value: compact_json({"error": value}))
    | values.map(compact_json)
)


@settings(max_examples=80, deadline=None)
@given(observations)
def test_observations_round_trip(text: str) -> None:
    short = compact_observation(text)
    assert expand_observation(short) == text
    assert compact_observation(expand_observation(short)) == short


def test_observations_are_short() -> None:
    assert compact_observation('{"result":{"ok":true}}') == "(ok true)"
    assert compact_observation('{"error":{"code":"not_found"}}') == "! (code not_found)"
    deep = '{"result":' + "[" * 500 + "]" * 500 + "}"
    assert expand_observation(compact_observation(deep)) == deep


# ----------------------------------------------------------------------------------------------------------- documents

properties = (
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "number", "boolean", "array"])},
        optional={
            "description": texts,
            "enum": st.lists(scalars | objects, max_size=3),
            "pattern": texts,
            "min x": texts,
        },
    )
    | values
)
names = st.sampled_from(["name", "age", "day_1", "X"]) | texts


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, JsonValue]:
    found = draw(st.dictionaries(names, properties, max_size=3))
    required = [name for name in found if draw(st.booleans())]
    schema = {"type": "object", "properties": found, "required": required, "additionalProperties": False}
    return draw(
        st.just(schema) | objects.map(lambda more: {**schema, **more}) | st.just(dict(reversed(schema.items())))
    )


@settings(max_examples=80, deadline=None)
@given(names, texts | st.just("Find rows. Errors: x."), schemas() | objects)
def test_tool_documents_round_trip(name: str, description: str, parameters: dict[str, JsonValue]) -> None:
    document: dict[str, JsonValue] = {"name": name, "description": description, "parameters": parameters}
    line = compact_tool(document)
    assert compact_json(expand_tool(line)) == compact_json(document)
    assert compact_tool(expand_tool(line)) == line
    assert "\n" not in line


def test_tool_documents_are_short() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "description": "in years"},
            "colour": {"type": "string", "enum": ["red", "blue"]},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    document: dict[str, JsonValue] = {"name": "vok", "description": "Find rows.", "parameters": schema}
    line = compact_tool(document)
    assert line == 'Find rows. vok ~[name! age: integer "in years" colour [red blue]]'
    assert expand_tool(line) == document
    stored = json.loads(canonical_json(document))
    shown = {key: stored[key] for key in document}
    line = compact_tool(shown)
    assert line == 'Find rows. vok [name! age: integer "in years" colour [red blue]]'
    assert compact_json(expand_tool(line)) == compact_json(shown)


@settings(max_examples=80, deadline=None)
@given(schemas())
def test_schemas_of_stored_records_round_trip(schema: dict[str, JsonValue]) -> None:
    document = {"name": "vok", "description": "x", "parameters": json.loads(canonical_json(schema))}
    assert compact_json(expand_tool(compact_tool(document))) == compact_json(document)


@pytest.mark.parametrize(
    "line", ["vok", "vok (a)", "vok (a b", "vok (a a) x", "= 5", "= (a", "vok (a: none) x", "vok (a)  x"]
)
def test_expand_tool_refuses_what_is_no_document(line: str) -> None:
    with pytest.raises(SpecError):
        expand_tool(line)


# --------------------------------------------------------------------------------------------------- first observation


@settings(max_examples=120, deadline=None)
@given(st.text())
def test_any_first_text_round_trips(text: str) -> None:
    assert expand_first(*compact_first(text)) == text


def full_first(index: int, *, stored: bool) -> str:
    environment = ProceduralAuthor("a laboratory and its orders", 5).draft(index).environment
    if stored:
        environment = EnvironmentSpec.from_json(environment.to_json())
    lines = ["# Task", "Do it.\n\n# Rules\nnone", "", "# Today", environment.world.now, "", "# Rules"]
    lines += [f"- {rule}" for rule in environment.policy]
    lines += ["", "# Tools", *(compact_json(doc["function"]) for doc in tool_docs(environment))]
    lines += ["", "# Final answer", "JSON Schema of the answer:", '{"type":"object"}', "", "# How to act"]
    return "\n".join(lines)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("index", range(3))
def test_first_observations_of_full_worlds_are_structured_and_exact(index: int, stored: bool) -> None:
    text = f"{full_first(index, stored=stored)}\n{ACTION_FORMAT}\nYou have 20 turns."
    system, prompt = compact_first(text)
    assert expand_first(system, prompt) == text
    assert prompt == "Do it.\n\n# Rules\nnone"
    assert system.startswith("turns 20 today 2031-05-02\n")
    assert system.endswith("\nanswer = (type object)")
    assert "\n= " not in system
    assert len(system) < 0.8 * len(text)


@pytest.mark.parametrize(
    "system", ["hello", "today 2031-05-02", "today x\nanswer ()", "today x turns 3\nanswer ()\nnonsense"]
)
def test_expand_first_refuses_lines_that_it_does_not_know(system: str) -> None:
    with pytest.raises(SpecError, match="compact text"):
        expand_first(system, "x")


@settings(max_examples=80, deadline=None)
@given(
    st.text(alphabet='ab ()?:="[]1{|', max_size=14).map("vok ({}".format) | st.just("vok (b: integer minimum = 1 a?) x")
)
def test_what_expands_to_a_tool_is_written_so_again(line: str) -> None:
    try:
        document = expand_tool(line)
    except SpecError:
        return
    assert compact_tool(document) == line
