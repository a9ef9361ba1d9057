"""Action text to tool call or final answer, strictly; and the first observation that explains both to the actor."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

import orjson
from pydantic import JsonValue

from envsynth.environments.tools import Call, compact_json, tool_docs
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.verifiers import hostile_problem

MAX_ACTION_CHARS = 1 << 18
"""Longest action, in characters; a longer one is malformed."""

MAX_QUICK_TEXT = 1_000
"""Longest text within an action that is read the quick way, in characters."""

ACTION_FORMAT = (
    "Act with exactly one JSON object per turn and nothing else: "
    '{"tool": NAME, "arguments": {...}} calls a tool; '
    '{"answer": {...}} gives the final answer and ends the episode. '
    'The reply to a call is {"result": ...} with what the tool returns, or {"error": ...} if the tool refuses.'
)
"""How to act; part of the first observation."""

_CALL_KEYS = {"tool", "arguments"}


class Action(NamedTuple):
    """A parsed action: a call, an answer, or a problem; exactly one is set."""

    call: Call | None = None
    """The tool call."""
    answer: dict[str, JsonValue] | None = None
    """The final answer."""
    problem: str | None = None
    """Why the text is neither."""


class _MalformedError(ValueError):
    """The text is JSON that Python reads but the standard does not allow, or that is ambiguous."""


def _constant(name: str) -> Any:
    raise _MalformedError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _MalformedError("an object has the same key twice")
    return found


_decode = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object).decode


def parse_action(text: str) -> Action:
    """Parse the text of an action; never raises.

    Args:
        text: Anything an actor may say.

    Returns:
        The call, the answer, or the problem in one sentence.
    """
    if len(text) > MAX_ACTION_CHARS:
        return Action(problem=f"the action has {len(text)} characters, at most {MAX_ACTION_CHARS} are read")
    quick = _quickly(text)
    if quick is not None:
        return _read(quick)
    try:
        value = _decode(text)
    except RecursionError:
        return Action(problem="the action is nested too deeply")
    except ValueError as error:
        return Action(problem=f"the action is not JSON: {str(error)[:200]}. {ACTION_FORMAT}")
    hostile = hostile_problem(value)
    return _read(value) if hostile is None else Action(problem=f"the action is refused: {hostile}")


def _quickly(text: str) -> Any:
    """Decode the usual action with the fast library; None for all that might be read in another way or refused.

    That library takes the last of equal keys and makes floats of very large integers. So keys are counted, in the text and in
    what was read, and floats are left to the slow way.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if _count_keys(value) == text.count('":') else None


_SMALL, _DEEP = 100, 4
_ODD = 1 << 30
_MOST = 2**63 - 1
"""Largest integer that is no odd one: the library reads twice as large ones as integers, too."""


def _count_keys(value: Any, depth: int = 0) -> int:
    """Keys in small nested data without floats or long texts; a very large number when it is anything else."""
    kind = value.__class__
    if kind is dict:
        items, found = value.values(), len(value)
    elif kind is list:
        items, found = value, 0
    else:
        return 0 if _is_small(value) else _ODD
    if depth > _DEEP or len(value) > _SMALL:
        return _ODD
    for item in items:
        kind = item.__class__
        if (kind is int and item <= _MOST) or (kind is str and len(item) <= MAX_QUICK_TEXT):
            continue  # most of them
        found += _count_keys(item, depth + 1)
    return found


def _is_small(value: Any) -> bool:
    if value.__class__ is str:
        return len(value) <= MAX_QUICK_TEXT
    return value is None or value.__class__ is bool or (value.__class__ is int and value <= _MOST)


def _read(value: Any) -> Action:
    if value.__class__ is dict and len(value) == 2:  # the usual call
        name, given = value.get("tool"), value.get("arguments")
        if name.__class__ is str and given.__class__ is dict:
            return Action(Call(name, given))
    if not isinstance(value, dict):
        return Action(problem=f"the action is no JSON object. {ACTION_FORMAT}")
    action = cast("dict[str, Any]", value)
    tool, arguments = action.get("tool"), action.get("arguments", {})
    if isinstance(tool, str) and isinstance(arguments, dict) and action.keys() <= _CALL_KEYS:
        return Action(Call(tool, cast("dict[str, JsonValue]", arguments)))
    if list(action) == ["answer"] and isinstance(action["answer"], dict):
        return Action(answer=cast("dict[str, JsonValue]", action["answer"]))
    return Action(problem=f"the action is neither a call nor an answer. {ACTION_FORMAT}")


def first_observation(spec: EnvironmentSpec, task: TaskVersion) -> str:
    """Write what the actor reads at reset: task, rules, date, tools, answer schema, action format.

    Args:
        spec: The environment.
        task: The task; only its public half is used.

    Returns:
        Plain text with JSON parts.
    """
    lines = ["# Task", task.prompt.strip(), "", "# Today", spec.world.now]
    if spec.policy:
        lines += ["", "# Rules", *(f"- {rule}" for rule in spec.policy)]
    lines += ["", "# Tools", *(compact_json(doc["function"]) for doc in tool_docs(spec, task.delivery))]
    lines += ["", "# Final answer", "JSON Schema of the answer:", compact_json(task.answer_schema)]
    lines += ["", "# How to act", ACTION_FORMAT, f"You have {task.max_turns} turns."]
    if task.delivery.max_calls is not None:
        lines.append(f"You may call tools at most {task.delivery.max_calls} times; refused calls count as well.")
    return "\n".join(lines)
