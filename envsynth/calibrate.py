"""How difficult tasks are for any actor, and where they go: to be hardened, to training, to the hard tier, or aside.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3, keeps tasks with pass@100 > 0; `certify` is that filter. The rest is
ours: a pilot for every task, more episodes where the pilot says that they tell something, and a route that parks a task
without a pass and never deletes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from envsynth.actors import actor_factory
from envsynth.errors import SpecError
from envsynth.evaluate import ActorMaker, EvaluationOptions, Interval, cluster_interval, evaluate
from envsynth.evaluate.staged import exact_interval, highest_rate, in_window, lower_rate_test, staged_pass_at_k
from envsynth.report import Finding, GateResult
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Calibration
from envsynth.store.records import PassEstimate, Route
from envsynth.trajectory import Trajectory

Pair = tuple[EnvironmentSpec, TaskVersion]

KS = (1, 4, 16)
"""Values of k for pass@k; those above the pilot are left out."""
CHUNK = 32
"""Tasks that are played together: enough to fill slots, few enough to be held in memory."""
BLOCK = 16
"""Episodes of a certification between two looks at whether one passed."""
ALPHA = 0.05
"""Chance with which a child that is as easy as its parent is accepted."""
LEAST_RATE = 0.05
"""Pass rate above which a child is certified by the measuring actor itself."""


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How many episodes are played, and what follows from them."""

    pilot: int = 16
    """Episodes of every task (count, >= 1)."""
    more: int = 48
    """Further episodes of a task whose pilot is inside the window (count, >= 0)."""
    window: tuple[float, float] = (0.125, 0.75)
    """Shares of the pilot between which, ends included, further episodes tell something."""
    band: tuple[float, float] = (0.2, 0.8)
    """Pass rates between which, ends included, a task trains well."""
    certify: int = 0
    """Most episodes in which a task without a pass is given the chance of one; 0: it is parked after the pilot."""

    def __post_init__(self) -> None:
        """Refuse what cannot be played.

        Raises:
            SpecError: a count is too small, or the ends of a range are no growing shares.
        """
        if self.pilot < 1 or self.more < 0 or self.certify < 0:
            raise SpecError(f"need a pilot of at least 1 episode, got {self.pilot}, {self.more} and {self.certify}")
        for name, (low, high) in (("window", self.window), ("band", self.band)):
            if not 0.0 < low < high < 1.0:
                raise SpecError(f"the {name} goes from a share above 0 to a greater one below 1, got {low}:{high}")


class Done(Protocol):
    """Finds what an earlier run played."""

    def __call__(self, task: str) -> Iterable[Trajectory]:
        """Return the trajectories of a task."""
        ...


@dataclass
class _Played:
    """What the scored episodes of one task brought, by seed."""

    passed: dict[int, bool] = field(default_factory=dict[int, bool])
    void: int = 0

    def counts(self, first: int, n: int) -> tuple[int, int]:
        """Scored episodes among n seeds, and passed ones."""
        found = [self.passed[seed] for seed in range(first, first + n) if seed in self.passed]
        return len(found), sum(found)


def calibrate(  # noqa: PLR0913 -- one verb with its options, nearly all keyword-only
    pairs: Sequence[Pair],
    factory: ActorMaker,
    options: CalibrationOptions | None = None,
    seed: int = 0,
    *,
    evaluation: EvaluationOptions | None = None,
    done: Done | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
    on_task: Callable[[Calibration], None] | None = None,
    on_stage: Callable[[str, int], None] | None = None,
) -> list[Calibration]:
    """Measure tasks with an actor and route them.

    Every task gets a pilot. One inside the window gets more episodes; one without a pass gets those of the certification,
    until it passes once, and is then tried by its own solution, which tells a hard task from a broken one. A void episode
    is played again, counts nowhere, and leaves the task `unmeasured` when its pilot stays incomplete.

    On Ctrl-C, `on_done` gets what was finished and KeyboardInterrupt goes on to the caller. Pass what was finished as
    `done` to go on.

    Args:
        pairs: The tasks, with their environments.
        factory: Makes the actor; see `envsynth.actors.actor_factory`.
        options: Numbers of episodes, band.
        seed: Seed of each task's first episode; the others follow it, so equal seeds play equal episodes.
        evaluation: Processes, slots, retries of void episodes; three retries when None.
        done: Finds trajectories of an earlier run; a scored one of the same task, seed and actor is not played again.
        on_done: Called for each trajectory that is played now.
        on_task: Called with each task's calibration as soon as it is known.
        on_stage: Called with the name of each stage and the number of episodes that it will play, before it plays them.

    Returns:
        The calibrations, in the order of the tasks.

    Raises:
        SpecError: a task is there twice, or belongs to another environment.
        WorkError: a process died again and again, or an exception came out of one.
        KeyboardInterrupt: Ctrl-C.
    """
    options = options or CalibrationOptions()
    evaluation = evaluation or EvaluationOptions(retries=3)
    if len({task.hash for _, task in pairs}) != len(pairs):
        raise SpecError("a task is there twice: name each once")
    found: list[Calibration] = []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        before = [item for _, task in chunk for item in done(task.hash)] if done is not None else []
        run = _Run(chunk, factory, options, seed, evaluation, before, on_done, on_stage)
        for calibration in run.calibrations():
            found.append(calibration)
            if on_task is not None:
                on_task(calibration)
    return found


@dataclass
class _Run:
    """Some tasks that are measured together."""

    pairs: Sequence[Pair]
    factory: ActorMaker
    options: CalibrationOptions
    seed: int
    evaluation: EvaluationOptions
    before: Sequence[Trajectory]
    on_done: Callable[[Trajectory], None] | None
    on_stage: Callable[[str, int], None] | None
    played: dict[str, _Played] = field(default_factory=dict[str, _Played])

    def calibrations(self) -> Iterator[Calibration]:
        options, after = self.options, self.seed + self.options.pilot
        self.played = {task.hash: _Played() for _, task in self.pairs}
        self.play("pilot", self.pairs, self.seed, options.pilot)
        pilots = {digest: found.counts(self.seed, options.pilot) for digest, found in self.played.items()}
        whole = [pair for pair in self.pairs if pilots[pair[1].hash][0] == options.pilot]
        more = [pair for pair in whole if options.more and in_window(*pilots[pair[1].hash], options.window)]
        self.play("further", more, after, options.more)
        failing = [pair for pair in whole if not pilots[pair[1].hash][1]]
        tried = self.certify(failing, after)
        planner = self.solved([pair for pair in failing if not tried.get(pair[1].hash, (0, 0))[1]])
        committed = {task.hash for _, task in more}
        for _, task in self.pairs:
            digest = task.hash
            stage = self.played[digest].counts(after, options.more) if digest in committed else None
            yield self.judged(task, pilots[digest], stage, tried.get(digest), planner.get(digest))

    def certify(self, failing: Sequence[Pair], first: int) -> dict[str, tuple[int, int]]:
        """Go on with tasks that have not passed, block by block, until they do or the limit is reached."""
        left, end = list(failing), self.seed + self.options.certify
        for start in range(first, end, BLOCK):
            self.play("certifying", left, start, min(BLOCK, end - start))
            left = [pair for pair in left if not self.played[pair[1].hash].counts(first, end - first)[1]]
        n = max(0, end - first)
        return {task.hash: self.played[task.hash].counts(first, n) for _, task in failing} if n else {}

    def solved(self, failing: Sequence[Pair]) -> dict[str, bool]:
        """Whether their own solutions pass; a void one says nothing."""
        if not failing:
            return {}
        oracle = actor_factory("oracle", [task for _, task in failing])
        report = evaluate(failing, oracle, 1, (1,), self.seed, options=self.evaluation)
        return {score.task: bool(score.c) for score in report.tasks if score.n}

    def play(self, stage: str, pairs: Sequence[Pair], first: int, n: int) -> None:
        """Play n episodes of each task and note what they brought."""
        if not pairs or not n:
            return
        chosen = {task.hash for _, task in pairs}
        known = {
            (item.task, item.seed): item
            for item in self.before
            if item.task in chosen and first <= item.seed < first + n and self._counts(item)
        }
        for item in known.values():
            self.played[item.task].passed[item.seed] = item.verdict.status == "pass"
        if self.on_stage is not None and len(known) < len(pairs) * n:
            self.on_stage(stage, len(pairs) * n - len(known))
        options = self.evaluation
        report = evaluate(pairs, self.factory, n, (1,), first, options=options, done=known.values(), on_done=self._note)
        for score in report.tasks:
            self.played[score.task].void += score.void

    def _counts(self, item: Trajectory) -> bool:
        return item.actor == self.factory.name and not item.void

    def _note(self, item: Trajectory) -> None:
        if not item.void:
            self.played[item.task].passed[item.seed] = item.verdict.status == "pass"
        if self.on_done is not None:
            self.on_done(item)

    def judged(
        self,
        task: TaskVersion,
        pilot: tuple[int, int],
        more: tuple[int, int] | None,
        tried: tuple[int, int] | None,
        planner: bool | None,
    ) -> Calibration:
        options = self.options
        complete = pilot[0] == options.pilot
        rates = tuple(estimates(pilot, more, options.window)) if complete else ()
        passes = pilot[1] + (tried[1] if tried else 0)
        scored = pilot[0] + (tried[0] if tried else 0)
        return Calibration(
            environment=task.environment,
            task=task.hash,
            actor=self.factory.name,
            seed=self.seed,
            pilot=pilot,
            more=more,
            certification=tried,
            void=self.played[task.hash].void,
            rates=rates,
            band=options.band,
            route=route(_share(pilot, more), passed=passes > 0, band=options.band) if rates else "unmeasured",
            certified=passes > 0 if options.certify and complete else None,
            highest=highest_rate(scored, 0) if complete and not passes else None,
            planner=planner,
        )


def _share(pilot: tuple[int, int], more: tuple[int, int] | None) -> float:
    """Share of passes among all episodes of both stages.

    For one task, given that it got a second stage, this is nearer to its rate than the estimate without bias, which makes
    up for the luck of those that got none.
    """
    n, c = more or (0, 0)
    return (pilot[1] + c) / (pilot[0] + n)


def estimates(
    pilot: tuple[int, int], more: tuple[int, int] | None, window: tuple[float, float]
) -> Iterator[PassEstimate]:
    """Estimate pass@k from one or two stages.

    Args:
        pilot: Scored episodes, and passed ones among them.
        more: The same of the second stage, if there was one.
        window: Shares of the pilot between which the second stage is played.

    Yields:
        For each k up to the pilot the estimate without bias, and the exact interval of 95 % of all episodes together: for
        k > 1 that of the rate, carried over.
    """
    second = more if more is not None and more[0] else None
    n, c = pilot[0] + (second[0] if second else 0), pilot[1] + (second[1] if second else 0)
    low, high = exact_interval(n, c)
    for k in (k for k in KS if k <= pilot[0]):
        value = staged_pass_at_k(pilot, second, window, k)
        yield PassEstimate(k=k, value=value, low=1 - (1 - low) ** k, high=1 - (1 - high) ** k)


def route(rate: float, *, passed: bool, band: tuple[float, float]) -> Route:
    """Say where a task goes.

    Args:
        rate: Share of its episodes that passed.
        passed: Whether any episode did, those of the certification included.
        band: Rates between which a task trains well.

    Returns:
        `harden` above the band, `train` in it, `hard` below it, `park` without any pass.
    """
    if not passed:
        return "park"
    return "harden" if rate > band[1] else "train" if rate >= band[0] else "hard"


# ---------------------------------------------------------------------------------------------------------------- sets


@dataclass(frozen=True, kw_only=True)
class PoolSummary:
    """What the calibrations of a pool say together."""

    routes: dict[str, int]
    """Tasks by route."""
    tasks: int
    """Tasks that were measured."""
    informative: float | None
    """Share of the measured tasks with both passes and failures: groups of such tasks train."""
    rates: tuple[tuple[int, float, Interval], ...]
    """Mean pass@k over the measured tasks, with an interval that takes tasks of one environment as dependent."""
    void: int
    """Episodes without a score."""


def summarize_pool(calibrations: Sequence[Calibration], seed: int = 0) -> PoolSummary:
    """Put calibrations together.

    Args:
        calibrations: Those of one actor.
        seed: Seed of the intervals.

    Returns:
        The summary.
    """
    counts = Counter(item.route for item in calibrations)
    order: tuple[Route, ...] = ("harden", "train", "hard", "park", "unmeasured")
    measured = [item for item in calibrations if item.rates]
    rates: list[tuple[int, float, Interval]] = []
    for position, rate in enumerate(measured[0].rates if measured else ()):
        clusters: dict[str, list[float]] = {}
        for item in measured:
            clusters.setdefault(item.environment, []).append(item.rates[position].value)
        every = [value for cluster in clusters.values() for value in cluster]
        rates.append((rate.k, sum(every) / len(every), cluster_interval([*clusters.values()], f"{seed}/{rate.k}")))
    return PoolSummary(
        routes={name: counts[name] for name in order if counts[name]},
        tasks=len(measured),
        informative=sum(0 < item.c < item.n for item in measured) / len(measured) if measured else None,
        rates=tuple(rates),
        void=sum(item.void for item in calibrations),
    )


# ----------------------------------------------------------------------------------------------------------- hardening


class ActorMeasure:
    """Says whether a child is harder for an actor than its parent: the acceptance measure of `envsynth.hardening.harden`.

    Each version gets the same number of episodes, whatever they bring, so that Fisher's exact test holds. A child whose
    pilot does as well as its parent, or better, is refused at once: that spares episodes and accepts nothing.

    Args:
        maker: Makes a factory for some tasks, since an actor that plays solutions must be given them.
        options: Numbers of episodes.
        seed: Seed of each version's first episode.
        evaluation: Processes, slots, retries of void episodes.
    """

    code = "DF405"

    def __init__(
        self,
        maker: Callable[[Sequence[TaskVersion]], ActorMaker],
        options: CalibrationOptions | None = None,
        seed: int = 0,
        evaluation: EvaluationOptions | None = None,
    ) -> None:
        self._maker = maker
        self._options = options or CalibrationOptions()
        self._seed = seed
        self._evaluation = evaluation or EvaluationOptions(retries=3)
        self._known: dict[str, tuple[int, int]] = {}

    def __call__(self, environment: EnvironmentSpec, child: TaskVersion, parent: TaskVersion) -> GateResult:
        """Compare a child with its parent.

        Args:
            environment: Their environment.
            child: A version that passes all gates, so that its own solution certifies that it can be solved.
            parent: The version that it was made from.

        Returns:
            A pass when the child's pass rate is lower, by a one-sided test; void when episodes stay without a score.
        """
        pilot, whole = self._options.pilot, self._options.pilot + self._options.more
        before = self._measured(environment, parent, whole)
        if before[0] < whole:
            return self._void(f"{before[0]} of {whole} episodes of the parent have a score")
        after = self._measured(environment, child, pilot)
        if after[0] == pilot and after[1] * before[0] < before[1] * after[0]:
            after = self._measured(environment, child, whole)
        wanted = whole if after[0] > pilot else pilot
        if after[0] < wanted:
            return self._void(f"{after[0]} of {wanted} episodes of the child have a score")
        chance = lower_rate_test(after, before)
        rate = after[1] / after[0]
        evidence: dict[str, JsonValue] = {
            "actor": self._maker((child,)).name,
            "before": [*before],
            "after": [*after],
            "chance": round(chance, 6),
            "certified_by": "actor" if rate > LEAST_RATE else "planner",
        }
        if after[0] == whole and chance <= ALPHA:
            return GateResult(code=self.code, status="pass", evidence=evidence)
        message = (
            f"{after[1]} of {after[0]} episodes pass, of the parent {before[1]} of {before[0]}: no lower pass rate "
            f"(chance {chance:.3f}, at most {ALPHA})"
        )
        finding = Finding(code=self.code, message=message, where="task", fix="another operator")
        return GateResult(code=self.code, status="fail", findings=(finding,), evidence=evidence)

    def _measured(self, environment: EnvironmentSpec, task: TaskVersion, n: int) -> tuple[int, int]:
        """Scored episodes among the first n, and passed ones; what was scored before is not played again."""
        known = self._known.get(task.hash, (0, 0))
        if n <= known[0]:
            return known
        factory, first = self._maker((task,)), self._seed + known[0]
        report = evaluate([(environment, task)], factory, n - known[0], (1,), first, options=self._evaluation)
        found = (known[0] + report.tasks[0].n, known[1] + report.tasks[0].c)
        if not report.void:
            self._known[task.hash] = found
        return found

    def _void(self, why: str) -> GateResult:
        finding = Finding(code=self.code, message=f"no judgement: {why}", fix="run it again")
        return GateResult(code=self.code, status="void", findings=(finding,))
