"""Play the episodes of an evaluation, in this process or in several, and go on where an earlier run stopped."""

from __future__ import annotations

import atexit
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from envsynth.errors import SpecError
from envsynth.evaluate.report import EvaluationReport, check_ks, summarize
from envsynth.executors import run_all
from envsynth.rollout import Actor, EpisodeRequest, Stage, make_stages, rollout
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Trajectory

Pair = tuple[EnvironmentSpec, TaskVersion]

_CHUNK = 32
"""Most episodes that one process takes at once; finished ones reach the caller when the chunk is done."""


class ActorMaker(Protocol):
    """Makes actors, in whichever process needs one: picklable, and it knows their name beforehand."""

    @property
    def name(self) -> str:
        """Name of the actors."""
        ...

    def __call__(self) -> Actor:
        """Make an actor."""
        ...


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How an evaluation is carried out; nothing here changes its result."""

    workers: int = 1
    """Processes. Chat actors do better with one process and many slots."""
    slots: int = 1
    """Episodes at the same time in each process."""
    retries: int = 1
    """How often a void episode is played again, and an item whose process died."""


def evaluate(
    pairs: Sequence[Pair],
    factory: ActorMaker,
    n: int = 1,
    ks: Sequence[int] = (1,),
    seed: int = 0,
    *,
    options: EvaluationOptions | None = None,
    done: Iterable[Trajectory] = (),
    on_done: Callable[[Trajectory], None] | None = None,
) -> EvaluationReport:
    """Play every task n times, with the seeds `seed` to `seed + n - 1`, and report.

    On Ctrl-C, `on_done` gets what was finished and KeyboardInterrupt goes on to the caller. Pass what was finished as
    `done` to go on.

    Args:
        pairs: The tasks, with their environments.
        factory: Makes the actor; see `envsynth.actors.actor_factory`.
        n: Episodes of each task.
        ks: Values of k for pass@k and pass^k, each between 1 and n.
        seed: First seed, and seed of the intervals.
        options: Processes, slots, retries.
        done: Trajectories of an earlier run. A scored one of the same task, seed and actor is not played again; a void
            one is.
        on_done: Called in this process for each trajectory that is played now, in order of completion.

    Returns:
        The report over the trajectories of now and of `done`.

    Raises:
        SpecError: k > n, a task is there twice, or a task belongs to another environment.
        WorkError: a process died again and again, or an exception came out of one.
        KeyboardInterrupt: Ctrl-C.
    """
    check_ks(n, ks)
    wanted = _requests(pairs, n, seed)
    kept = _kept(done, factory.name, wanted)
    missing = [request for request in wanted if (request.task, request.seed) not in kept]

    def note(trajectory: Trajectory) -> None:
        kept[trajectory.task, trajectory.seed] = trajectory
        if on_done is not None:
            on_done(trajectory)

    _play(_Player(tuple(pairs), factory, options or EvaluationOptions(), note), missing)
    # In the order of the requests, so that a report does not depend on who finished first.
    ordered = [kept[request.task, request.seed] for request in wanted]
    return summarize(pairs, ordered, actor=factory.name, n=n, ks=ks, seed=seed)


def _requests(pairs: Sequence[Pair], n: int, seed: int) -> list[EpisodeRequest]:
    if seed < 0:
        raise SpecError(f"seeds of episodes are not negative, got {seed}")
    known: dict[str, str] = {}
    hashes: dict[int, str] = {}
    for spec, task in pairs:
        home = hashes.setdefault(id(spec), spec.hash)
        if task.environment != home:
            raise SpecError(f"task {task.hash} belongs to environment {task.environment}, not to {home}")
        if task.hash in known:
            raise SpecError(f"task {task.hash} is there twice: remove one")
        known[task.hash] = home
    return [EpisodeRequest(task, seed + i) for task in known for i in range(n)]


def _kept(
    done: Iterable[Trajectory], actor: str, wanted: Sequence[EpisodeRequest]
) -> dict[tuple[str, int], Trajectory]:
    keys = {(request.task, request.seed) for request in wanted}
    return {
        (trajectory.task, trajectory.seed): trajectory
        for trajectory in done
        if trajectory.actor == actor and not trajectory.void and (trajectory.task, trajectory.seed) in keys
    }


@dataclass
class _Player:
    """Plays chunks of episodes; each process that unpickles it makes its own actor and environments, once."""

    pairs: tuple[Pair, ...]
    factory: ActorMaker
    options: EvaluationOptions
    on_done: Callable[[Trajectory], None] | None
    actor: Actor | None = None
    stages: list[Stage] = field(default_factory=list[Stage])

    def __call__(self, requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        actor = self.actor or self.open()
        return rollout(self.stages, actor, requests, self.on_done, retries=self.options.retries)

    def open(self) -> Actor:
        self.actor = self.factory()
        if self.actor.name != self.factory.name:
            raise SpecError(
                f"the factory {self.factory.name!r} makes an actor called {self.actor.name!r}: names must agree"
            )
        self.stages = make_stages(self.pairs, self.options.slots)
        if multiprocessing.parent_process() is not None:
            atexit.register(self.close)
        return self.actor

    def close(self) -> None:
        if self.actor is not None:
            self.actor.close()
        for stage in self.stages:
            stage.close()


def _play(player: _Player, requests: Sequence[EpisodeRequest]) -> None:
    options = player.options
    if options.workers == 1:
        try:
            player(requests)
        finally:
            player.close()
        return
    size = min(_CHUNK, -(-len(requests) // (4 * options.workers)))
    size = max(1, size, options.slots)
    chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
    note = player.on_done

    def deliver(index: int, trajectories: list[Trajectory]) -> None:
        for trajectory in trajectories:
            if note is not None:
                note(trajectory)

    run_all(
        replace(player, on_done=None),
        chunks,
        workers=options.workers,
        on_result=deliver,
        retries=options.retries,
    )
