"""Tools of an episode: documentation, strict argument check, calls in a jail worker, errors as observations."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import JsonValue

from envsynth.errors import EnvironmentVoid, SandboxError
from envsynth.sandbox import CallResult, Failure, Jail, Limits, Worker
from envsynth.spec import EnvironmentSpec, Tool
from envsynth.trajectory import ToolCall
from envsynth.verifiers import schema_problem

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
    "internal": 500,
}
"""Numbers of error codes in the style `code`; other codes are 400."""


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a call gave."""

    observation: dict[str, JsonValue]
    """`{"result": ...}` or `{"error": ...}` in the environment's error style."""
    error: str | None
    """Code of the error, whatever the style shows."""
    defect: str | None = None
    """What is wrong with the tool itself, for authors and gates; actors never see it."""


def compact_json(value: Any) -> str:
    """Return JSON text without spaces, unicode unescaped, keys in given order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def tool_docs(spec: EnvironmentSpec) -> list[dict[str, JsonValue]]:
    """Return the tools in OpenAI's function format, in the order of the spec.

    Args:
        spec: The environment.

    Returns:
        `{"type": "function", "function": {"name", "description", "parameters"}}` for each tool; returns and error
        codes stand in the description.
    """
    docs: list[dict[str, JsonValue]] = []
    for tool in spec.tools:
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


@functools.cache
def _dispatch_source() -> str:
    package = resources.files("envsynth.environments")
    return package.joinpath("dispatch.py").read_text(encoding="utf-8")


class ToolRuntime:
    """The tools of one environment on the database of one episode, in one tools worker."""

    def __init__(self, jail: Jail, spec: EnvironmentSpec, limits: Limits | None = None) -> None:
        """Prepare; the worker is forked at the first reset.

        Args:
            jail: Where the worker is forked.
            spec: The environment.
            limits: Limits of each call; the sandbox's defaults when None.
        """
        self._jail = jail
        self._spec = spec
        self._limits = limits
        self._worker: Worker | None = None

    def reset(self, image: bytes) -> None:
        """Start an episode: a worker with all tools loaded, on a fresh copy of the image.

        Args:
            image: From `build_image`.

        Raises:
            EnvironmentVoid: the worker cannot be started, a tool's source does not load, or the image does not open.
        """
        try:
            if self._worker is None or not self._worker.alive:
                self.close()
                self._worker = self._start()
            result = self._worker.open(image, "main")
            if result.ok:
                result = self._worker.call("fresh_tools", databases=("main",))
        except SandboxError as error:
            raise EnvironmentVoid(f"the tools worker failed at reset: {error}") from error
        if not result.ok:
            self.close()
            raise EnvironmentVoid(f"the episode could not be started: {_told(result)}")

    def _start(self) -> Worker:
        worker = self._jail.worker("tools")
        what = "the dispatcher of tools"
        loaded = worker.load(_dispatch_source(), "tool_dispatch")
        for tool in self._spec.tools:
            if loaded.ok:
                what = f"tool {tool.name!r}"
                loaded = worker.call("add_tool", {"name": tool.name, "source": tool.source})
            if not loaded.ok:
                worker.close()
                raise EnvironmentVoid(f"{what} does not load: {_told(loaded)}; correct its source")
        return worker

    def call(self, call: ToolCall) -> ToolResult:
        """Run one call inside a savepoint; a call that fails leaves no trace.

        Args:
            call: Tool and arguments as the actor gave them; both may be wrong.

        Returns:
            The observation. Unknown tools, wrong arguments, refusals, defects of a tool and timeouts are errors in it.

        Raises:
            EnvironmentVoid: the worker died, or no episode has been started: the episode has no score.
        """
        tool = self._spec.tool(call.tool)
        if tool is None:
            return self._error("unknown_tool", f"there is no tool {call.tool[:80]!r}")
        problem = check_arguments(tool, call.arguments)
        if problem is not None:
            return self._error("invalid", problem)
        if self._worker is None or not self._worker.alive:
            raise EnvironmentVoid("no episode is running: reset first")
        request: dict[str, JsonValue] = {
            "tool": tool.name,
            "given": call.arguments,
            "max_chars": MAX_RESULT_CHARS,
        }
        try:
            result = self._worker.call("run_tool", request, databases=("main",), limits=self._limits)
        except SandboxError as error:
            raise EnvironmentVoid(f"the tools worker failed in {tool.name!r}: {error}") from error
        if not self._worker.alive:
            raise EnvironmentVoid(f"the tools worker died in {tool.name!r}: {_told(result)}")
        return self._observe(tool, result)

    def _observe(self, tool: Tool, result: CallResult) -> ToolResult:
        if result.ok:
            return ToolResult(observation={"result": result.value}, error=None)
        if result.status is Failure.TOOL_ERROR and result.error_type == "Refusal":
            return self._error(result.code or "invalid", result.message)
        if result.status is Failure.SOFT_TIMEOUT:
            return self._error("timeout", "the tool took too long; nothing was changed")
        defect = f"{tool.name}: {_told(result)}"
        return self._error("internal", "the tool failed; nothing was changed", defect)

    def _error(self, code: str, message: str, defect: str | None = None) -> ToolResult:
        observation = error_observation(self._spec, code, message)
        return ToolResult(observation=observation, error=code, defect=defect)

    def image(self) -> bytes:
        """Return the image of the database as it is now.

        Raises:
            EnvironmentVoid: the worker died, or no episode has been started.
        """
        if self._worker is None or not self._worker.alive:
            raise EnvironmentVoid("no episode is running: reset first")
        try:
            result = self._worker.image("main")
        except SandboxError as error:
            raise EnvironmentVoid(f"the tools worker failed: {error}") from error
        if not result.ok:
            raise EnvironmentVoid(f"the final state could not be read: {_told(result)}")
        return result.blob

    def close(self) -> None:
        """End the worker; may be called again, and a later reset starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _told(result: CallResult) -> str:
    parts = [result.status.value, result.error_type, result.message[:300]]
    return ": ".join(part for part in parts if part)
