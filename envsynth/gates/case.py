"""What a gate looks at: one task version in its environment version, with the runs that several gates share."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import NamedTuple, Self, TypeVar, cast

from pydantic import JsonValue

from envsynth.actors import AblatedActor, OracleActor, RandomActor, columns_of
from envsynth.environments import ToolEnv, build_image, make_env
from envsynth.environments.actions import parse_action
from envsynth.environments.hosts import WORLDS_PER_WORKER, WorldHosts
from envsynth.errors import EnvironmentVoid
from envsynth.gates.rehearsal import Rehearsal, Rehearsed
from envsynth.record import Scalar
from envsynth.rollout import Actor, EpisodeRequest, rollout
from envsynth.sandbox import CallResult, Family, Jail
from envsynth.spec import EnvironmentSpec, Outcome, TaskVersion
from envsynth.trajectory import Episode, Move, Trajectory, Verdict
from envsynth.verifiers import Ending, judge, verify_all

T = TypeVar("T")
Named = tuple[str, Outcome]
"""An outcome with its name in findings."""
Maker = Callable[["Case"], Iterable[Named]]
"""Makes the outcomes that a gate has judged."""


class Played(NamedTuple):
    """What a solver came to."""

    verdict: Verdict
    """On its answer."""
    calls: int
    """Tool calls that it made."""


class Case:
    """One task version under check; caches the image and the runs, closes its workers on exit.

    Args:
        spec: The environment version.
        task: The task version.
        jail: Where untrusted source runs.
        seed: Seed of all randomness of the gates.
        earlier: A case of the same task before its probes and turn limit were known. Its runs would be played move by
            move again, so they are taken over.
        rehearsal: Where the ladder is played, for a solution that an author of ours compiled; in proper episodes when
            None.
        thorough: Whether gates shall do as much as their statements need for a single task.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        task: TaskVersion,
        jail: Jail,
        seed: str = "gates",
        earlier: Case | None = None,
        rehearsal: Rehearsal | None = None,
        thorough: bool = False,
    ) -> None:
        self.spec = spec
        self.task = task
        self.jail = jail
        self.seed = seed
        self.thorough = thorough
        self._verdicts: dict[int, tuple[Outcome, Verdict]] = {}
        self._named: dict[Maker, list[Named]] = {}
        self._expected: list[Maker] = []
        self._once_made: dict[str, object] = {}
        self._runs: dict[str, Trajectory] = {}
        self._rehearsal = rehearsal
        self._bench = None if rehearsal is None else rehearsal.bench
        self._ladder: dict[str, Verdict] = {}
        self.rehearsed_calls: int | None = None
        """Tool calls of the whole solution in the rehearsal, once it has passed there."""
        self._columns: dict[tuple[str, Scalar], list[Scalar]] = {}
        if earlier is not None and earlier.spec is spec and plays_alike(earlier.task, task):
            # Random actors draw from the task's hash, which is another one now.
            runs = earlier._runs.items()
            self._runs = {name: run for name, run in runs if not run.void and not name.startswith("random/")}
            ladder = earlier._ladder.items()
            self._ladder = {skill: verdict for skill, verdict in ladder if verdict.status != "void"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the environment's workers; harmless when called twice."""
        env = self.__dict__.pop("env", None)
        if env is not None:
            env.close()

    @cached_property
    def env(self) -> ToolEnv:
        """One environment that plays this task, with room for solvers that take detours.

        A solver that lacks a skill must fail because it is wrong: whether it is also slow depends on the turn limit,
        which is derived from the solution.
        """
        return self.envs(self.hosts, 1)[0]

    @cached_property
    def hosts(self) -> WorldHosts:
        """Where the worlds of this case live: those that are played at a time share a worker."""
        return WorldHosts(self.jail, self.spec, share=WORLDS_PER_WORKER)

    def envs(self, hosts: WorldHosts, count: int) -> list[ToolEnv]:
        """Environments of this task, whose worlds live in some hosts and whose workers are of the hosts' jail.

        Returns:
            The environments; the caller closes them.
        """
        room = _room(self.task)
        return [make_env(self.spec, self.task, jail=hosts.jail, hosts=hosts, max_turns=room) for _ in range(count)]

    @cached_property
    def image(self) -> bytes:
        """The initial database image; raises `SpecError` when it cannot be built."""
        return build_image(self.jail, self.spec.world, self.task.overlay)

    @cached_property
    def by_hash(self) -> dict[str, TaskVersion]:
        """The task by its hash, for the actors that play solutions."""
        return {self.task.hash: self.task}

    @property
    def gold(self) -> Trajectory:
        """The solution's episode through tools in separate workers."""
        return self._once("gold", lambda: OracleActor(self.by_hash, self.jail))

    def ablated(self, skills: Iterable[str]) -> dict[str, Verdict]:
        """Verdicts on the solvers that each lack one skill; those that answer are judged together, which costs far less."""
        wanted = list(skills)
        played = self._rehearsed([skill for skill in wanted if skill not in self._ladder])
        endings = {skill: item.ending for skill, item in played.items()}
        for skill in wanted:
            if skill not in self._ladder and skill not in endings:
                actor = _Withholding(AblatedActor(self.by_hash, skill, self.jail), self.env)
                run = self.play(actor)
                if actor.ending is None:
                    self._ladder[skill] = run.verdict
                else:
                    endings[skill] = actor.ending
        verdicts = verify_all(self.jail, self.task, self.image, list(endings.values()), self._bench)
        self._ladder.update(zip(endings, verdicts, strict=True))
        return {skill: self._ladder[skill] for skill in wanted}

    def without_limit(self, skills: Iterable[str]) -> dict[str, Played]:
        """Play solvers that each lack one skill, "" none, as if the number of tool calls was not limited."""
        wanted, delivery = list(skills), self.task.delivery.model_copy(update={"max_calls": None})
        task = self.task.model_copy(update={"delivery": delivery})
        with Case(self.spec, task, self.jail, self.seed, rehearsal=self._rehearsal) as free:
            played = free._rehearsed(wanted)
            endings = [item.ending for item in played.values()]
            verdicts = verify_all(self.jail, task, self.image, endings, self._bench)
            calls = [item.calls for item in played.values()]
            found = dict(zip(played, map(Played, verdicts, calls), strict=True))
            for skill in wanted:
                if skill not in found:
                    run = free.play(AblatedActor(free.by_hash, skill, self.jail)) if skill else free.gold
                    found[skill] = Played(run.verdict, run.n_calls)
        return found

    def rehearse(self, known: Collection[str] = ()) -> bool:
        """Play the whole solution and the ladder in the rehearsal, and judge them together.

        Args:
            known: Skills that the parent needs. They are left for later: most candidates are refused because they need no
                others.

        Returns:
            Whether the whole solution passes there; False when there is no rehearsal, or it leaves that open.
        """
        if self._rehearsal is None:
            return False
        played = self._rehearsed(["", *(skill for skill in self.task.ablations if skill not in known)])
        endings = [item.ending for item in played.values()]
        found = dict(zip(played, verify_all(self.jail, self.task, self.image, endings, self._bench), strict=True))
        whole = found.pop("", None)
        self._ladder.update(found)
        if whole is None or whole.status != "pass":
            return False
        self.rehearsed_calls = played[""].calls
        return True

    def passing(self, solvers: Sequence[Mapping[str, JsonValue]]) -> list[bool] | None:
        """Tell which solvers pass in the rehearsal, of those that are the solution with some names overwritten.

        Returns:
            For each whether it passes; None when there is no rehearsal, or it leaves one of them open.
        """
        if self._rehearsal is None:
            return None
        played = self._rehearsal.endings(self.task, self.image, solvers, _room(self.task))
        endings = [item.ending for item in played if item is not None]
        verdicts = verify_all(self.jail, self.task, self.image, endings, self._bench)
        if len(endings) < len(solvers) or any(verdict.status == "void" for verdict in verdicts):
            return None
        return [verdict.status == "pass" for verdict in verdicts]

    def _rehearsed(self, skills: list[str]) -> dict[str, Rehearsed]:
        """How solvers that lack a skill end in the rehearsal, those that can be played there; "" lacks none."""
        if self._rehearsal is None or not skills:
            return {}
        solvers = [self.task.ablations.get(skill, {}) for skill in skills]
        played = self._rehearsal.endings(self.task, self.image, solvers, _room(self.task))
        return {skill: item for skill, item in zip(skills, played, strict=True) if item is not None}

    def play_random(self, index: int) -> Trajectory:
        """An episode of random typed calls, which ends where its answer would come: nobody needs a verdict on it."""
        return self._once(f"random/{index}", lambda: _Silent(RandomActor(seed=index)))

    @cached_property
    def replays(self) -> tuple[Trajectory, ...]:
        """Two episodes of the solution at a time, in a world that a random walk has dirtied and in a fresh one.

        The worlds share a worker, and tools and verifier hash texts with another seed than in `gold`.

        Raises:
            SandboxError: there is no second jail to be had.
        """
        envs = self.envs(WorldHosts(self.jail.reseeded(), self.spec, share=WORLDS_PER_WORKER), 2)
        try:
            self._play(envs[:1], _Silent(RandomActor()))
            return tuple(self._play(envs, OracleActor(self.by_hash, self.jail)))
        finally:
            for env in envs:
                env.close()

    def play(self, actor: Actor) -> Trajectory:
        """Play one more episode with an actor."""
        return self._play([self.env], actor)[0]

    def _play(self, envs: Sequence[ToolEnv], actor: Actor) -> list[Trajectory]:
        """An episode in each environment."""
        try:
            return rollout(envs, actor, [EpisodeRequest(self.task.hash, 0)] * len(envs))
        finally:
            actor.close()

    def _once(self, name: str, actor: Callable[[], Actor]) -> Trajectory:
        if name not in self._runs:
            self._runs[name] = self.play(actor())
        return self._runs[name]

    def judge(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """Judge outcomes without playing, each once: together with those that other gates will ask for.

        Starting a verifier worker and working out what holds of the initial rows costs more than most outcomes do.
        """
        if any(id(outcome) not in self._verdicts for outcome in outcomes):
            coming = [outcome for maker in self._expected for _, outcome in self.named(maker)]
            self._expected.clear()
            wanted = {id(outcome): outcome for outcome in (*outcomes, *coming) if id(outcome) not in self._verdicts}
            verdicts = judge(self.jail, self.task, self.image, list(wanted.values()), self._bench)
            # The outcome is kept with its verdict: a number of an object that is gone could be given to another.
            pairs = zip(wanted.values(), verdicts, strict=True)
            self._verdicts.update((id(outcome), (outcome, verdict)) for outcome, verdict in pairs)
        return [self._verdicts[id(outcome)][1] for outcome in outcomes]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Make something the first time that it is asked for by this name."""
        if name not in self._once_made:
            self._once_made[name] = make()
        return cast("T", self._once_made[name])

    def expect(self, makers: Iterable[Maker]) -> None:
        """Announce outcomes that gates will ask `judge` for."""
        self._expected = list(makers)

    def named(self, maker: Maker) -> list[Named]:
        """What a maker makes of this case, made once."""
        if maker not in self._named:
            self._named[maker] = list(maker(self))
        return self._named[maker]

    def judge_endings(self, endings: Sequence[Ending]) -> list[Verdict]:
        """Judge how walks ended; on the bench, where there is one, as no such verdict becomes a reward."""
        return verify_all(self.jail, self.task, self.image, endings, self._bench)

    def ask_aide(self, family: Family, function: str, arguments: dict[str, JsonValue]) -> CallResult:
        """Have code of ours read what an author wrote, in a worker: one of the rehearsal's, or where it fails, its own."""
        if self._rehearsal is not None:
            result = self._rehearsal.aide(family).call(function, arguments)
            if result.ok:
                return result
        with self.jail.ready_worker(family) as worker:
            return worker.call(function, arguments)

    def rng(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose, so that gates do not disturb one another."""
        return random.Random(f"{self.seed}/{self.task.hash}/{purpose}")

    def same_column(self, value: Scalar) -> list[Scalar]:
        """Distinct values of every column that holds this value: what a careless actor would confuse it with."""
        key = (type(value).__name__, value)
        if key not in self._columns:
            found: dict[Scalar, None] = {}
            for cells in self.columns:
                if any(type(cell) is type(value) and cell == value for cell in cells):
                    found.update(dict.fromkeys(cells))
            self._columns[key] = list(found)
        return self._columns[key]

    @cached_property
    def columns(self) -> list[tuple[Scalar, ...]]:
        """The cells of every column of the world, in order of tables and columns."""
        return [cells for _, cells in self.named_columns]

    @cached_property
    def named_columns(self) -> list[tuple[str, tuple[Scalar, ...]]]:
        """Name and cells of every column of the world, in order of tables and columns."""
        return columns_of(self.spec.world)


class _Silent:
    """Plays like another actor, but stops where that one answers.

    Args:
        actor: Who decides.
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    @property
    def name(self) -> str:
        """Who decides."""
        return self._actor.name

    def start(self, slot: int, episode: Episode) -> None:
        """Begin the episode."""
        self._actor.start(slot, episode)

    def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
        """Move as the other does, unless it answers."""
        return [self._withheld(move) for move in self._actor.act(slots, observations)]

    def _withheld(self, move: Move) -> Move:
        answer = None if move.stop else parse_action(move.text).answer
        return move if answer is None else self.stop(answer)

    def stop(self, answer: dict[str, JsonValue]) -> Move:
        """What is done in place of answering."""
        del answer
        return Move("", stop=True, failure="it ends before its answer")

    def close(self) -> None:
        """Release what the actor holds."""
        self._actor.close()


class _Withholding(_Silent):
    """Keeps the answer, so that others can be judged with it.

    Args:
        actor: Who decides.
        env: Where it plays, one episode.
    """

    def __init__(self, actor: Actor, env: ToolEnv) -> None:
        super().__init__(actor)
        self._env = env
        self.ending: Ending | None = None
        """How the episode ended, once the actor has answered."""

    def stop(self, answer: dict[str, JsonValue]) -> Move:
        """Keep answer and database."""
        try:
            self.ending = self._env.final_image(), answer
        except EnvironmentVoid as void:
            return Move("", stop=True, failure=str(void), void=True, cause=void.failure)
        return Move("", stop=True, failure="the answer is judged later")


GATE_TURNS = 400
"""Turns of an episode that a gate plays, or the task's own limit where that is higher."""

_ADDED_LATER = ("probes", "max_turns", "provenance")
"""What an author adds to a candidate once its solution has been played."""


def _room(task: TaskVersion) -> int:
    return max(GATE_TURNS, task.max_turns)


def plays_alike(left: TaskVersion, right: TaskVersion) -> bool:
    """Whether gates play two task versions alike: they differ in what no move depends on."""
    names = [name for name in TaskVersion.model_fields if name not in _ADDED_LATER]
    return _room(left) == _room(right) and all(getattr(left, name) == getattr(right, name) for name in names)
