"""The Gymnasium environment of one environment version and its tasks: text in, text out, structured form in `info`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from pydantic import JsonValue

from envsynth.environments import plays
from envsynth.environments.actions import Action, first_observation, parse_action
from envsynth.environments.delivery import delivery_problem
from envsynth.environments.hosts import Reset, WorldHosts
from envsynth.environments.plays import Judging, Play
from envsynth.environments.spaces import MAX_OBSERVATION_CHARS, Facts, UnicodeText
from envsynth.environments.tools import (
    Call,
    ToolResult,
    ToolRuntime,
    compact_json,
    error_observation,
)
from envsynth.environments.world import build_image, image_hash
from envsynth.errors import EnvironmentVoid, SandboxError, SpecError
from envsynth.sandbox import Jail, shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import CheckResult, Verdict, void_verdict
from envsynth.verifiers import check_schema

ANSWERED: dict[str, JsonValue] = {"result": "answer received"}
"""Observation after the final answer; the same for every answer, so it tells nothing."""

CUT_OFF = Verdict(
    status="fail",
    score=0.0,
    checks=(CheckResult(id="answer.schema", ok=False, reason="no final answer was given"),),
)
"""Verdict of an episode whose turns ran out."""

Step = tuple[str, SupportsFloat, bool, bool, dict[str, Any]]
"""Observation, reward, terminated, truncated, info."""


class ToolEnv(gymnasium.Env[str, str]):
    """Play the tasks of one environment version.

    An action is the text of one JSON object: a tool call `{"tool": ..., "arguments": {...}}` or the final answer
    `{"answer": {...}}`. Text that is neither gets an error observation; `step` raises for no text.

    `info` holds `task` and `environment` (hashes), `turn`, `observation` (mapping), `call` (mapping or None), `error`
    (code or None); at the end also `verdict` (mapping) and `final_state` (hash of the final image); `tool_defect` when a
    tool itself broke; `void` with the reason when infrastructure failed. It never holds an expected value.

    Rewards are 1.0 and 0.0. When the verifier or a worker broke, the reward is NaN and the episode is truncated: such an
    episode must be left out, not counted as 0.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        environment: EnvironmentSpec,
        tasks: Sequence[TaskVersion],
        *,
        jail: Jail | None = None,
        hosts: WorldHosts | None = None,
        reset_mode: Reset = "reload",
        max_turns: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Make the environment; worlds are built at reset.

        Args:
            environment: The environment version.
            tasks: Its tasks, at least one; `reset` picks by seed.
            jail: Where workers are forked; this process's shared jail when None.
            hosts: Where worlds live, shared with other slots of this environment version; its own when None.
            reset_mode: With hosts of its own: how worlds are made fresh.
            max_turns: Turns until truncation; the task's own limit when None.
            render_mode: "ansi" for a transcript, or None.

        Raises:
            SpecError: there is no task, a task belongs to another environment, or a schema is malformed.
        """
        _check_records(environment, tasks)
        if max_turns is not None and max_turns < 1:
            raise SpecError(f"max_turns must be at least 1, not {max_turns}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise SpecError(f"unknown render_mode {render_mode!r}: use 'ansi' or None")
        self.environment = environment
        self.tasks = tuple(tasks)
        self.task = self.tasks[0]
        self.render_mode = render_mode
        self.observation_space = UnicodeText(MAX_OBSERVATION_CHARS)
        self.action_space = UnicodeText(MAX_OBSERVATION_CHARS)
        self._jail = jail
        self._hosts = hosts
        self._reset_mode: Reset = reset_mode
        self._max_turns = max_turns
        self._environment_hash = environment.hash
        self._task_hashes = tuple(task.hash for task in self.tasks)
        self._images: dict[int, bytes] = {}
        self._prompts: dict[int, str] = {}
        self._hashes: dict[int, str] = {}
        self._runtime: ToolRuntime | None = None
        self._index = 0
        self._turn = 0
        self._running = False
        self._final: bytes | None = None
        self._transcript: list[str] = []
        self._generator: np.random.Generator | None = None
        self._next_seed: int | None = None

    # ------------------------------------------------------------------------------------------------- Gymnasium

    @property
    def _np_random(self) -> np.random.Generator | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Gymnasium's generator, made when somebody asks for it: seeding one takes longer than the rest of a reset."""
        if self._next_seed is not None:
            self._generator, _ = seeding.np_random(self._next_seed)
            self._next_seed = None
        return self._generator

    @_np_random.setter
    def _np_random(self, value: np.random.Generator | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._generator, self._next_seed = value, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode on a fresh world.

        Args:
            seed: Seed of the choice among the tasks; None continues the stream.
            options: `{"task": index or unique prefix of a task hash}` fixes the task.

        Returns:
            The first observation and its info.

        Raises:
            EnvironmentVoid: the world could not be built or the tools not started.
            SpecError: `options["task"]` names no task.
        """
        return plays.run(self.play_reset(seed=seed, options=options))

    def play_reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> Play[tuple[str, dict[str, Any]]]:
        """Do what `reset` does, as a play, which many slots can run at a time."""
        if type(seed) is int and seed >= 0:
            self._next_seed = self._np_random_seed = seed
        else:
            super().reset(seed=seed)
        # Among one there is nothing to draw, and numpy draws nothing.
        drawn = int(self.np_random.integers(len(self.tasks))) if len(self.tasks) > 1 else 0
        wanted = (options or {}).get("task")
        self._index = drawn if wanted is None else self._find(wanted)
        self.task = self.tasks[self._index]
        self._running, self._turn, self._final = False, 0, None
        yield from self._start()
        self._running = True
        text = self._prompts.get(self._index)
        if text is None:
            text = self._prompts[self._index] = first_observation(self.environment, self.task)
        self._transcript = [text]
        return text, self._info(None, Facts({"result": "reset"}), None)

    def step(self, action: str) -> Step:
        """Play one turn.

        Args:
            action: Any text.

        Returns:
            Observation, reward, terminated, truncated, info, in Gymnasium's sense.

        Raises:
            ResetNeeded: no episode is running.
        """
        return plays.run(self.play_step(action))

    def play_step(self, action: str) -> Play[Step]:
        """Do what `step` does, as a play, which many slots can run at a time.

        Raises:
            ResetNeeded: no episode is running.
        """
        if not self._running:
            raise ResetNeeded("the episode has ended or never began: call reset() first")
        self._turn += 1
        parsed = parse_action(action)
        try:
            result = yield from self._final_step(parsed) if parsed.answer is not None else self._turn_step(parsed)
        except EnvironmentVoid as void:
            result = self._void(void, parsed.call)
        if self.render_mode is not None:
            self._transcript += [f"> {action}", result[0]]
        return result

    def render(self) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the transcript of the episode so far when the render mode is "ansi"."""
        return "\n\n".join(self._transcript) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """End the tools worker; may be called again."""
        self._running = False
        if self._runtime is not None:
            self._runtime.close()

    # ---------------------------------------------------------------------------------------------- beyond Gymnasium

    def initial_image(self) -> bytes:
        """Return the image that the current task starts from, for judging stated outcomes."""
        return self._image()

    def final_image(self) -> bytes:
        """Return the database image as it is now, or as it was when the episode ended.

        Raises:
            EnvironmentVoid: there is none, because the worker died or no episode was started.
        """
        if self._final is not None:
            return self._final
        if self._runtime is None:
            raise EnvironmentVoid("no episode is running: call reset() first")
        return plays.run(self._runtime.image())

    # ------------------------------------------------------------------------------------------------------ internals

    def _find(self, wanted: object) -> int:
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if 0 <= wanted < len(self.tasks):
                return wanted
            raise SpecError(f"options['task'] = {wanted}: there are {len(self.tasks)} tasks")
        found = [i for i, name in enumerate(self._task_hashes) if name.startswith(str(wanted))]
        if not wanted or len(found) != 1:
            raise SpecError(f"options['task'] = {wanted!r} is the prefix of {len(found)} task hashes, not of one")
        return found[0]

    def _start(self) -> Play[None]:
        try:
            image = self._image()
            if self._runtime is None:
                if self._hosts is None:
                    self._hosts = WorldHosts(self._workshop(), self.environment, reset=self._reset_mode)
                self._runtime = ToolRuntime(self._hosts, self.environment)
        except SpecError as error:
            raise EnvironmentVoid(f"the world could not be built: {error}") from error
        except SandboxError as error:
            raise EnvironmentVoid(f"the world could not be built: {error}", error.failure) from error
        yield from self._runtime.reset(self._task_hashes[self._index], image, self.task.faults, self.task.delivery)

    def _workshop(self) -> Jail:
        if self._jail is None:
            self._jail = shared_jail() if self._hosts is None else self._hosts.jail
        return self._jail

    def _image(self) -> bytes:
        if self._index not in self._images:
            image = build_image(self._workshop(), self.environment.world, self.task.overlay)
            self._images[self._index] = image
        return self._images[self._index]

    def _limit(self) -> int:
        return self.task.max_turns if self._max_turns is None else self._max_turns

    def _tools(self) -> ToolRuntime:
        if self._runtime is None:
            raise EnvironmentVoid("no episode is running: call reset() first")
        return self._runtime

    def _turn_step(self, parsed: Action) -> Play[Step]:
        truncated = self._turn >= self._limit()
        image: bytes | None = None
        if parsed.call is not None:
            result, image = yield from self._tools().call(parsed.call, image=truncated)
        else:
            observation = error_observation(self.environment, "malformed", parsed.problem or "")
            result = ToolResult(text=compact_json(observation), error="malformed")
        info = self._info(parsed.call, Facts.of_text(result.text), result.error)
        if result.defect is not None:
            info["tool_defect"] = result.defect
        if truncated:
            if image is None:
                image = yield from self._tools().image()
            self._end(info, CUT_OFF, image)
        return result.text, 0.0, False, truncated, info

    def _final_step(self, parsed: Action) -> Play[Step]:
        after = yield from self._tools().image()
        verdict = yield Judging(self._workshop(), self.task, self._image(), after, parsed.answer)
        if verdict.status == "void":
            raise EnvironmentVoid(verdict.failure or "the verifier gave no verdict", verdict.cause or "")
        info = self._info(None, Facts(dict(ANSWERED)), None)
        self._end(info, verdict, after)
        return compact_json(ANSWERED), verdict.score or 0.0, True, False, info

    def _void(self, void: EnvironmentVoid, call: Call | None) -> Step:
        observation: dict[str, JsonValue] = {"error": {"code": "void"}}
        info = self._info(call, Facts(observation), "void")
        info["void"] = str(void)
        info["verdict"] = Facts.of_record(void_verdict(str(void), void.failure))
        self._running = False
        self._tools().close()
        return compact_json(observation), float("nan"), False, True, info

    def _end(self, info: dict[str, Any], verdict: Verdict, final: bytes) -> None:
        self._final = final
        self._running = False
        info["verdict"] = Facts.of_record(verdict)
        info["final_state"] = self._hash_of(final)

    def _hash_of(self, final: bytes) -> str:
        if final != self._image():
            return image_hash(final)
        if self._index not in self._hashes:
            self._hashes[self._index] = image_hash(final)
        return self._hashes[self._index]

    def _info(self, call: Call | None, observation: Facts, error: str | None) -> dict[str, Any]:
        return {
            "task": self._task_hashes[self._index],
            "environment": self._environment_hash,
            "turn": self._turn,
            "observation": observation,
            "call": None if call is None else Facts({"tool": call.tool, "arguments": call.arguments}),
            "error": error,
        }


def _check_records(environment: EnvironmentSpec, tasks: Sequence[TaskVersion]) -> None:
    if not tasks:
        raise SpecError(f"environment {environment.slug!r} was given no task")
    wanted = environment.hash
    for task in tasks:
        if task.environment != wanted:
            raise SpecError(f"task {task.hash} belongs to environment {task.environment}, not to {wanted}")
        check_schema(task.answer_schema)
    for task in tasks:
        if (problem := delivery_problem(environment, task.delivery)) is not None:
            raise SpecError(f"task {task.hash}: {problem}")
    for tool in environment.tools:
        check_schema(tool.parameters)


def make_env(
    spec: EnvironmentSpec,
    tasks: TaskVersion | Sequence[TaskVersion],
    *,
    jail: Jail | None = None,
    hosts: WorldHosts | None = None,
    reset_mode: Reset = "reload",
    max_turns: int | None = None,
    render_mode: str | None = None,
) -> ToolEnv:
    """Make the Gymnasium environment of some tasks.

    Args:
        spec: The environment version.
        tasks: One task or several of that environment.
        jail: Where workers are forked; this process's shared jail when None.
        hosts: Where worlds live, shared with other slots of this environment version; its own when None.
        reset_mode: With hosts of its own: how worlds are made fresh.
        max_turns: Turns until truncation; the task's own limit when None.
        render_mode: "ansi" for a transcript, or None.

    Returns:
        The environment, not yet reset.

    Raises:
        SpecError: there is no task, a task belongs to another environment, or a schema is malformed.
    """
    found = [tasks] if isinstance(tasks, TaskVersion) else list(tasks)
    return ToolEnv(
        spec, found, jail=jail, hosts=hosts, reset_mode=reset_mode, max_turns=max_turns, render_mode=render_mode
    )
