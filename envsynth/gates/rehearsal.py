"""Rehearsals: many solvers of one task played in one sandbox worker, for measuring difficulty where solutions are our own.

An episode has tools and solution in two workers, with the host between them: a few hundred microseconds a call, and two
forks. A ladder plays a dozen solvers of each candidate, most of which are thrown away. Here tools and solution share a
worker that serves all candidates of an environment, and reading tools answer equal questions from memory. Verifier and
expected answers stay out of it. Endings, and the mutants of the other gates, are judged by one verifier worker that serves
all candidates as well.

So it is for solutions and verifiers that an author of ours compiled, which have no reason to reach past the tools or into
the next verdict; and only for what decides no reward: EX201, EX203 and every `check` play proper episodes. A test holds its
verdicts to those of proper episodes. Whatever is not plain is played properly (see `rehearse`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from pydantic import JsonValue

from envsynth.environments.delivery import NO_CALLS, offered_tools
from envsynth.environments.hosts import TIRED, tool_family
from envsynth.environments.tools import ERROR_NUMBERS
from envsynth.errors import SandboxError
from envsynth.sandbox import Family, Jail, Limits, Source, Worker
from envsynth.sandbox.requests import Request, call, drop_image, hold_image, image_of, open_held
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.verifiers import Bench, Ending

LIMITS = Limits(soft_s=10.0, hard_s=20.0)
"""What one solver may use, tools included."""

MAX_IMAGES = 6
"""Images that the worker keeps: most versions of an environment's tasks begin alike."""


@functools.cache
def _sources() -> tuple[Source, ...]:
    files = {"faults": ("envsynth.environments", "faults.py"), "rehearse": ("envsynth.gates", "rehearse.py")}
    return tuple(
        Source(name=name, text=resources.files(package).joinpath(file).read_text(encoding="utf-8"))
        for name, (package, file) in files.items()
    )


class Rehearsed(NamedTuple):
    """How a solver ended in a rehearsal."""

    ending: Ending
    """Its database and its answer."""
    calls: int
    """Tool calls that it made."""


class Rehearsal:
    """The worker that plays solvers of one environment; a context manager.

    Args:
        spec: The environment version.
        jail: Where the worker is forked.
    """

    def __init__(self, spec: EnvironmentSpec, jail: Jail) -> None:
        self.spec = spec
        self.bench = Bench(jail)
        """Where endings and stated outcomes are judged."""
        self.passing: dict[str, list[bool] | None] = {}
        """Which careless solvers pass a task version, by its hash; None where that cannot be told."""
        self._jail = jail
        self._family = tool_family(spec)
        self._readers: list[JsonValue] = [tool.name for tool in spec.tools if tool.effect == "read"]
        self._worker: Worker | None = None
        self._aides: dict[Family, Worker] = {}
        self._held: dict[bytes, str] = {}
        self._taught = ("", 0, "")
        self._count = 0

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later call takes others."""
        self.bench.close()
        self._leave()
        while self._aides:
            self._aides.popitem()[1].close()

    def aide(self, family: Family) -> Worker:
        """A worker that serves all candidates of the environment, for code of ours that only reads theirs.

        Args:
            family: What it has loaded.

        Returns:
            The worker, not the caller's to close.

        Raises:
            SandboxError: none can be had.
        """
        worker = self._aides.get(family)
        if worker is None or not worker.alive:
            worker = self._aides[family] = self._jail.ready_worker(family)
        return worker

    def _leave(self) -> None:
        worker, self._worker = self._worker, None
        self._held.clear()
        self._taught = ("", 0, "")
        if worker is not None:
            worker.close()

    def endings(
        self, task: TaskVersion, image: bytes, solvers: Sequence[Mapping[str, JsonValue]], turns: int
    ) -> list[Rehearsed | None]:
        """Play solvers of a task.

        Args:
            task: The task version; its solution was compiled by an author of ours.
            image: The database that they begin with.
            solvers: For each, names of the solution's module that are overwritten; none for the whole solution.
            turns: Limit of turns.

        Returns:
            How each ended, None for one that must be played properly. A solver that fails gives no answer.
        """
        try:
            return self._endings(task, image, solvers, turns)
        except SandboxError:  # nothing is lost: a proper episode tells what is wrong
            self._leave()
            return [None] * len(solvers)

    def _endings(
        self, task: TaskVersion, image: bytes, solvers: Sequence[Mapping[str, JsonValue]], turns: int
    ) -> list[Rehearsed | None]:
        worker = self._worker
        if worker is None or not worker.alive:
            self._leave()
            # The tools are compiled once for rehearsals and episodes, what plays beside them once for all environments.
            worker = self._worker = self._jail.ready_worker(self._family)
            loaded = worker.load_code(self._jail.compiled(_sources()))
            if not loaded.ok:
                raise SandboxError(f"the rehearsal does not load: {loaded.message}", loaded.status.value)
        requests = self._lesson(task, image, turns)
        ahead = len(requests)
        for place, overrides in enumerate(solvers):
            world = f"r{place}"
            requests += [
                open_held(world, self._held[image], keys=True),
                call("fresh_tools", {"world": world}),
                call("rehearse", {"world": world, "overrides": dict(overrides)}, world),
            ]
        results = worker.run(requests, LIMITS)
        if not worker.alive or not all(result.ok for result in results[:ahead]):
            self._leave()
            return [None] * len(solvers)
        said = [result.value if result.ok else None for result in results[ahead + 2 :: 3]]
        used = results[-2].value
        endings = self._finals(worker, image, said)
        if not isinstance(used, float) or used > TIRED * self._jail.limits.cpu_s:
            self._leave()
        return endings

    def _lesson(self, task: TaskVersion, image: bytes, turns: int) -> list[Request]:
        requests: list[Request] = []
        if image not in self._held:
            while len(self._held) >= MAX_IMAGES:
                requests.append(drop_image(self._held.pop(next(iter(self._held)))))
            self._count += 1
            self._held[image] = f"image {self._count}"
            requests.append(hold_image(self._held[image], image))
        taught = (task.hash, turns, self._held[image])
        if self._taught == taught:
            return requests
        self._taught = taught
        lesson: dict[str, Any] = {
            "solution": task.solution,
            "tools": {tool.name: tool.parameters for tool in offered_tools(self.spec, task.delivery)},
            "readers": self._readers,
            "style": self.spec.error_style,
            "numbers": ERROR_NUMBERS,
            "turns": turns,
            "image": self._held[image],
            "faults": [fault.model_dump() for fault in task.faults],
            "max_calls": task.delivery.max_calls,
            "no_calls": list(NO_CALLS),
            "user": {fact.topic: fact.says for fact in task.delivery.user},
        }
        return [*requests, call("learn", lesson)]

    def _finals(self, worker: Worker, image: bytes, said: Sequence[JsonValue]) -> list[Rehearsed | None]:
        """Read what solvers said, and fetch the databases of those that changed theirs."""
        heard = [_heard(item) for item in said]
        changed = [place for place, item in enumerate(heard) if item is not None and item[1]]
        blobs = worker.run([image_of(f"r{place}") for place in changed], LIMITS) if changed else []
        finals = {place: result.blob for place, result in zip(changed, blobs, strict=True) if result.ok}
        return [
            None
            if item is None or (item[1] and place not in finals)
            else Rehearsed((finals.get(place, image), item[0]), item[2])
            for place, item in enumerate(heard)
        ]


def _heard(said: JsonValue) -> tuple[dict[str, JsonValue] | None, bool, int] | None:
    """Answer, whether something changed, and calls, or None for what is not said that way."""
    if not isinstance(said, dict) or set(said) != {"answer", "changed", "calls"}:
        return None
    answer, changed, calls = said["answer"], said["changed"], said["calls"]
    if not isinstance(changed, bool) or not (answer is None or isinstance(answer, dict)) or type(calls) is not int:
        return None
    return answer, changed, calls
