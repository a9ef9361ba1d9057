"""Tools of an episode: documentation, strict argument check, calls in a jail worker, errors as observations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from pydantic import JsonValue

from envsynth.delivery import AS_IT_IS, Delivery, Fault
from envsynth.environments.delivery import ASK_USER, NO_CALLS, offered_tools, user_schema
from envsynth.environments.faults import AFTER, FAULT_ERRORS, FaultClock
from envsynth.environments.hosts import Host, WorldHosts
from envsynth.environments.plays import Errand, Play
from envsynth.errors import EnvironmentVoid
from envsynth.sandbox import CallResult, Failure, Limits, Worker
from envsynth.sandbox import requests as wire
from envsynth.spec import EnvironmentSpec, Tool
from envsynth.verifiers import SchemaCheck, schema_problem

MAX_RESULT_CHARS = 100_000
"""Longest result of a tool, as JSON text; a longer one becomes the error `too_large`."""

ERROR_NUMBERS = {
    "malformed": 400,
    "unknown_tool": 404,
    "not_found": 404,
    "timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "bad_page": 416,
    "invalid": 422,
    "no_calls_left": 429,
    "internal": 500,
    "unavailable": 503,
}
"""Numbers of error codes in the style `code`; other codes are 400."""


class Call(NamedTuple):
    """One call of a tool; what `ToolCall` records of it."""

    tool: str
    """Name."""
    arguments: dict[str, JsonValue]
    """Arguments."""


@dataclass(slots=True, kw_only=True)
class ToolResult:
    """What a call gave."""

    text: str
    """The observation as JSON: `{"result": ...}` or `{"error": ...}` in the environment's error style."""
    error: str | None
    """Code of the error, whatever the style shows."""
    defect: str | None = None
    """What is wrong with the tool itself, for authors and gates; actors never see it."""


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def compact_json(value: Any) -> str:
    """Return JSON text without spaces, unicode unescaped, keys in given order."""
    return _encode(value)


def tool_docs(spec: EnvironmentSpec, delivery: Delivery = AS_IT_IS) -> list[dict[str, JsonValue]]:
    """Return the tools in OpenAI's function format, in the order of the spec.

    Args:
        spec: The environment.
        delivery: What the task takes away of them, or adds.

    Returns:
        `{"type": "function", "function": {"name", "description", "parameters"}}` for each tool; returns and error
        codes stand in the description.

    Raises:
        SpecError: the environment's tools cannot be delivered so.
    """
    docs: list[dict[str, JsonValue]] = []
    for tool in offered_tools(spec, delivery):
        parts = [tool.description.strip()]
        if tool.returns:
            parts.append(f"Returns: {tool.returns.strip()}")
        if tool.errors:
            parts.append(f"Errors: {', '.join(tool.errors)}.")
        function: dict[str, JsonValue] = {
            "name": tool.name,
            "description": " ".join(parts),
            "parameters": tool.parameters,
        }
        docs.append({"type": "function", "function": function})
    return docs


def check_arguments(tool: Tool, arguments: dict[str, JsonValue]) -> str | None:
    """Say what is wrong with the arguments of a call, or that nothing is.

    Args:
        tool: The tool; its `parameters` are the schema.
        arguments: What the actor sent. Types are strict: true is no integer, 2.0 is no integer.

    Returns:
        None, or one sentence that names the argument.

    Raises:
        SpecError: the tool's schema is malformed or unsafe.
    """
    return schema_problem(tool.parameters, arguments)


def error_observation(spec: EnvironmentSpec, code: str, message: str) -> dict[str, JsonValue]:
    """Return an error in the environment's style: number only, code only, or code with message."""
    if spec.error_style == "code":
        return {"error": ERROR_NUMBERS.get(code, 400)}
    if spec.error_style == "terse":
        return {"error": {"code": code}}
    return {"error": {"code": code, "message": message}}


class ToolRuntime:
    """The tools of one environment on the database of one episode.

    Its methods are plays (see `plays`), so that those of many episodes can share a frame; `plays.run` runs one alone.
    """

    def __init__(self, hosts: WorldHosts, spec: EnvironmentSpec, limits: Limits | None = None) -> None:
        """Prepare; a worker is taken at the first reset.

        Args:
            hosts: Where the world lives.
            spec: The environment.
            limits: Limits of each call; the sandbox's defaults when None.
        """
        self._hosts = hosts
        self._spec = spec
        self._tools = {tool.name: tool for tool in spec.tools}
        self._checks = hosts.checks
        self._limits = limits
        self._seat: tuple[Host, str] | None = None
        self._key = ""
        self._clock = FaultClock([])
        self._delivery = AS_IT_IS
        self._user: SchemaCheck | None = None
        self._calls = 0

    def reset(self, key: str, image: bytes, faults: Sequence[Fault] = (), delivery: Delivery = AS_IT_IS) -> Play[None]:
        """Start an episode: all tools with fresh namespaces, on a fresh copy of the image.

        Args:
            key: Name of the image, the same for equal images.
            image: From `build_image`.
            faults: Calls of this episode that fail.
            delivery: What the task takes away of the tools, or adds.

        Raises:
            SpecError: the environment's tools cannot be delivered so.
            EnvironmentVoid: the worker cannot be started, a tool's source does not load, or the image does not open.
        """
        self._clock = FaultClock([fault.model_dump() for fault in faults])
        self._calls = 0
        if delivery != self._delivery:
            self._tools = {tool.name: tool for tool in offered_tools(self._spec, delivery)}
            self._user = SchemaCheck(user_schema(delivery)) if delivery.user else None
            self._delivery = delivery
        self._seat = seat = self._hosts.seat(self._seat, key, image)
        self._key = key
        results = yield Errand(seat[0].worker, self._hosts.reset_requests(seat, key, image))
        failed = next((result for result in results if not result.ok), None)
        if failed is not None:
            self.close()
            raise EnvironmentVoid(f"the episode could not be started: {told(failed)}", failed.status.value)
        used = results[-1].value
        seat[0].used_s = used if isinstance(used, float) else math.inf

    def call(self, call: Call, image: bool = False) -> Play[tuple[ToolResult, bytes | None]]:
        """Run one call inside a savepoint; a call that fails leaves no trace.

        Args:
            call: Tool and arguments as the actor gave them; both may be wrong.
            image: Whether the image of the database afterwards is wanted.

        Returns:
            The observation: unknown tools, wrong arguments, refusals, defects of a tool, timeouts and faults are errors in
            it. And the image, or None.

        Raises:
            EnvironmentVoid: the worker died, or no episode has been started: the episode has no score.
        """
        worker, name = self._place()
        tool = self._tools.get(call.tool)
        found = self._without_tool(tool, call)
        fault = None if found is not None else self._clock.next_call(call.tool)
        if fault is not None and fault != AFTER:
            found = self._error(*FAULT_ERRORS[fault])
        requests: list[wire.Request] = []
        if found is None:
            given = {"world": name, "tool": call.tool, "given": call.arguments}
            requests.append({**wire.call("run_tool", given, name), "chars": MAX_RESULT_CHARS})
        if image:
            requests.append(wire.image_of(name, self._key))
        if not requests and found is not None:
            return found, None
        results = yield Errand(worker, requests, self._limits)
        if not worker.alive:
            raise EnvironmentVoid(
                f"the tools worker died in {call.tool!r}: {told(results[0])}", results[0].status.value
            )
        if found is None and tool is not None:
            found = self._observe(tool, results[0])
            if fault is not None:
                found = self._error(*FAULT_ERRORS[fault], found.defect)
        if found is None:
            raise EnvironmentVoid(f"no result of {call.tool!r}")
        return found, _image_of(results[-1]) if image else None

    def image(self) -> Play[bytes]:
        """Return the image of the database as it is now.

        Raises:
            EnvironmentVoid: the worker died, or no episode has been started.
        """
        worker, name = self._place()
        results = yield Errand(worker, [wire.image_of(name, self._key)])
        return _image_of(results[0])

    def _place(self) -> tuple[Worker, str]:
        if self._seat is None or not self._seat[0].worker.alive:
            raise EnvironmentVoid("no episode is running: reset first")
        return self._seat[0].worker, self._seat[1]

    def _without_tool(self, tool: Tool | None, call: Call) -> ToolResult | None:
        """What a call gives for which no tool has to run."""
        self._calls += 1
        if self._delivery.max_calls is not None and self._calls > self._delivery.max_calls:
            return self._error(*NO_CALLS)
        if tool is None:
            return self._error("unknown_tool", f"there is no tool {call.tool[:80]!r}")
        if self._user is not None and tool.name == ASK_USER:
            problem = self._user.problem(call.arguments)
            said = {fact.topic: fact.says for fact in self._delivery.user}
            return (
                ToolResult(text=compact_json({"result": said[str(call.arguments["about"])]}), error=None)
                if problem is None
                else self._error("invalid", problem)
            )
        check = self._checks.get(tool.name)
        if check is None:
            check = self._checks[tool.name] = SchemaCheck(tool.parameters)
        problem = check.problem(call.arguments)
        return None if problem is None else self._error("invalid", problem)

    def _observe(self, tool: Tool, result: CallResult) -> ToolResult:
        if result.ok:
            written = result.text or orjson.dumps(result.value).decode()
            return ToolResult(text=f'{{"result":{written}}}', error=None)
        if result.status is Failure.TOOL_ERROR and result.error_type == "Refusal":
            return self._error(result.code or "invalid", result.message)
        if result.status is Failure.OUTPUT_LIMIT:
            return self._error("too_large", result.message)
        if result.status is Failure.SOFT_TIMEOUT:
            return self._error("timeout", "the tool took too long; nothing was changed")
        defect = f"{tool.name}: {told(result)}"
        return self._error("internal", "the tool failed; nothing was changed", defect)

    def _error(self, code: str, message: str, defect: str | None = None) -> ToolResult:
        return ToolResult(text=compact_json(error_observation(self._spec, code, message)), error=code, defect=defect)

    def close(self) -> None:
        """Leave the worker; may be called again, and a later reset takes another."""
        if self._seat is not None:
            self._hosts.leave(self._seat)
            self._seat = None


def _image_of(result: CallResult) -> bytes:
    if not result.ok:
        raise EnvironmentVoid(f"the final state could not be read: {told(result)}", result.status.value)
    return result.blob


def told(result: CallResult) -> str:
    """Tell how a request ended, in one line."""
    parts = [result.status.value, result.error_type, result.message[:300]]
    return ": ".join(part for part in parts if part)
