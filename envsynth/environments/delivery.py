"""What a task takes away from its actor, or adds: offered tools, the user who answers, the number of calls.

The host sees to it before a tool runs; tools know nothing of it. `NO_CALLS` and `ASK_USER` are read by rehearsals as well.
"""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.delivery import Delivery
from envsynth.errors import SpecError
from envsynth.spec import EnvironmentSpec, Tool

ASK_USER = "ask_user"
"""The tool that asks the user; where it exists no tool of the environment may be called so."""
NO_CALLS = ("no_calls_left", "the number of tool calls is used up: give the final answer")
"""Code and message of every call beyond the limit."""


def user_schema(delivery: Delivery) -> dict[str, JsonValue]:
    """Return the JSON Schema of the arguments of `ask_user`: one topic."""
    topics: list[JsonValue] = [fact.topic for fact in delivery.user]
    about: dict[str, JsonValue] = {"type": "string", "enum": topics, "description": "What to ask about."}
    return {"type": "object", "properties": {"about": about}, "required": ["about"], "additionalProperties": False}


def offered_tools(spec: EnvironmentSpec, delivery: Delivery) -> tuple[Tool, ...]:
    """Return the tools that a task's actor has: the environment's less those withheld, and `ask_user` if a user answers.

    Args:
        spec: The environment.
        delivery: The task's.

    Returns:
        Tools in the order of the environment.

    Raises:
        SpecError: a withheld tool does not exist, or `ask_user` exists already.
    """
    problem = delivery_problem(spec, delivery)
    if problem is not None:
        raise SpecError(problem)
    tools = [tool for tool in spec.tools if tool.name not in delivery.withheld]
    if delivery.user:
        tools.append(
            Tool(
                name=ASK_USER,
                description="Asks the user something that only the user knows.",
                parameters=user_schema(delivery),
                returns="The user's words.",
                effect="read",
                source="",
            )
        )
    return tuple(tools)


def delivery_problem(spec: EnvironmentSpec, delivery: Delivery) -> str | None:
    """Say why an environment's tools cannot be delivered so, or that they can (None)."""
    names = {tool.name for tool in spec.tools}
    missing = [name for name in delivery.withheld if name not in names]
    if missing:
        return f"task.delivery.withheld: environment {spec.slug!r} has no tool {missing[0]!r}"
    if delivery.user and ASK_USER in names - set(delivery.withheld):
        return f"task.delivery.user: environment {spec.slug!r} has a tool {ASK_USER!r} of its own"
    return None
