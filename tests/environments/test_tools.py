from __future__ import annotations

import json
import sqlite3

import pytest

from envsynth.environments import ToolRuntime, build_image, check_arguments, tool_docs
from envsynth.environments.hosts import WorldHosts
from envsynth.environments.plays import run
from envsynth.environments.tools import Call
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.spec import Tool


def rows(image):
    db = sqlite3.connect(":memory:")
    try:
        db.deserialize(image)
        return [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("items", "orders")]
    finally:
        db.close()


def test_tool_docs_are_openai_functions(spec):
    docs = tool_docs(spec)
    assert [doc["function"]["name"] for doc in docs] == ["stock", "buy", "misbehave"]
    assert docs[0]["type"] == "function"
    assert docs[0]["function"]["parameters"] == spec.tools[0].parameters
    assert docs[0]["function"]["description"] == "stock something. Returns: an object Errors: not_found."


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"item": "nut", "count": 1}, None),
        ({"item": "nut"}, "count"),
        ({"item": 1, "count": 1}, "item"),
        ({"item": "nut", "count": "1"}, "count"),
        ({"item": "nut", "count": True}, "count"),
        ({"item": "nut", "count": 1.0}, "count"),
        ({"item": "nut", "count": 1, "note": None}, "note"),
        ({"item": "nut", "count": 2**63}, "count"),
        ({"item": "\ud800", "count": 1}, "item"),
    ],
)
def test_check_arguments_is_strict_and_names_the_argument(spec, arguments, named):
    problem = check_arguments(spec.tool("buy"), arguments)
    assert problem is None if named is None else named in problem


def test_wrong_parameter_schema_is_a_spec_error(spec):
    tool = Tool.parse({**spec.tools[0].model_dump(mode="json"), "parameters": {"type": "objekt"}})
    with pytest.raises(SpecError, match="JSON Schema"):
        check_arguments(tool, {})


def called(runtime, name, **arguments):
    return run(runtime.call(Call(tool=name, arguments=arguments)))[0]


def test_equal_helper_names_of_two_tools_do_not_collide(jail, make_spec, tool_entry):
    sources = [
        "def helper():\n    return 1\n\ndef one(db):\n    return helper()\n",
        "def helper():\n    return 2\n\ndef two(db):\n    return helper()\n",
    ]
    spec = make_spec(tools=[tool_entry(n, s, "read") for n, s in zip(("one", "two"), sources, strict=True)])
    runtime = ToolRuntime(WorldHosts(jail, spec), spec)
    run(runtime.reset("world", build_image(jail, spec.world)))
    found = [json.loads(called(runtime, name).text) for name in ("one", "two")]
    assert found == [{"result": 1}, {"result": 2}]
    runtime.close()


def test_foreign_keys_hold_after_every_reset(jail, spec):
    runtime = ToolRuntime(WorldHosts(jail, spec), spec)
    image = build_image(jail, spec.world)
    for _ in range(2):
        run(runtime.reset("world", image))
        result = called(runtime, "misbehave", how="dangle")
        assert result.error == "internal"
        assert "FOREIGN KEY" in (result.defect or "")
        assert rows(run(runtime.image())) == rows(image)
    runtime.close()


def test_call_before_reset_is_void(jail, spec):
    runtime = ToolRuntime(WorldHosts(jail, spec), spec)
    with pytest.raises(EnvironmentVoid):
        called(runtime, "stock", item="nut")
    with pytest.raises(EnvironmentVoid):
        run(runtime.image())


def test_damaged_image_is_a_void_reset(jail, spec):
    runtime = ToolRuntime(WorldHosts(jail, spec), spec)
    with pytest.raises(EnvironmentVoid):
        run(runtime.reset("damaged", b"no database at all" * 100))
    run(runtime.reset("world", build_image(jail, spec.world)))
    assert called(runtime, "stock", item="nut").error is None
    runtime.close()
