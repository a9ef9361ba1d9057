"""The report of an evaluation, and how it follows from trajectories alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from envsynth.errors import SpecError
from envsynth.evaluate.statistics import cluster_interval, pass_at_k, pass_hat_k
from envsynth.record import ContentHash, Record
from envsynth.spec import FORMAT, EnvironmentSpec, TaskVersion
from envsynth.trajectory import Trajectory, void_causes


class TaskScore(Record):
    """What an actor did in one task."""

    environment: ContentHash
    """Environment version."""
    task: ContentHash
    """Task version."""
    n: int = Field(ge=0)
    """Scored episodes: the denominator of everything below."""
    c: int = Field(ge=0)
    """Passed ones among them."""
    void: int = Field(ge=0)
    """Episodes without a score; in no average."""
    pass_at: tuple[float | None, ...]
    """pass@k for each k of the report; None when fewer than k episodes were scored."""
    pass_hat: tuple[float | None, ...]
    """pass^k for each k of the report; None when fewer than k episodes were scored."""
    stops: dict[str, int]
    """Episodes by stop reason, void ones included."""
    mean_calls: float | None
    """Tool calls per scored episode; None without any."""


class PassRate(Record):
    """pass@k and pass^k over all tasks: the mean over tasks, each task of equal weight."""

    k: int = Field(ge=1)
    """Episodes of one task that are looked at together."""
    tasks: int = Field(ge=0)
    """Tasks with at least k scored episodes: the denominator."""
    left_out: int = Field(ge=0)
    """Tasks with fewer, because episodes were void; in no average."""
    pass_at: float | None
    """Mean pass@k; None without any task."""
    pass_at_interval: tuple[float, float] | None
    """Interval of 95 % of pass@k; see `cluster_interval`."""
    pass_at_method: str | None
    """How that interval was made."""
    pass_hat: float | None
    """Mean pass^k; None without any task."""
    pass_hat_interval: tuple[float, float] | None
    """Interval of 95 % of pass^k."""
    pass_hat_method: str | None
    """How that interval was made."""


class EvaluationReport(Record):
    """How good an actor is on some tasks. Equal inputs and seeds give equal reports; there is no time in it."""

    format: Literal["envsynth/1"] = FORMAT
    """Version of the record format."""
    actor: str
    """Who played."""
    n: int = Field(ge=1)
    """Episodes asked for in each task."""
    ks: tuple[int, ...]
    """The values of k."""
    seed: int
    """First seed of every task's episodes, and seed of the intervals."""
    tasks: tuple[TaskScore, ...]
    """Each task, in the order given."""
    rates: tuple[PassRate, ...]
    """Totals, one for each k."""
    episodes: int = Field(ge=0)
    """Episodes played: scored and void."""
    scored: int = Field(ge=0)
    """Episodes with a score."""
    passed: int = Field(ge=0)
    """Episodes that passed."""
    void: int = Field(ge=0)
    """Episodes without a score; in no average."""
    causes: dict[str, int] = Field(default_factory=dict[str, int])
    """Void episodes by cause: how the sandbox failed, or `other`."""
    stops: dict[str, int]
    """Episodes by stop reason, void ones included."""
    mean_calls: float | None
    """Tool calls per scored episode; None without any."""

    def rate(self, k: int) -> PassRate:
        """Return the totals of one k.

        Args:
            k: One of `ks`.

        Returns:
            The totals.

        Raises:
            SpecError: k is not among them.
        """
        for rate in self.rates:
            if rate.k == k:
                return rate
        raise SpecError(f"this report has no k={k}: it has {', '.join(map(str, self.ks))}")


def check_ks(n: int, ks: Sequence[int]) -> None:
    """Refuse values of k that n episodes cannot answer.

    Args:
        n: Episodes of each task.
        ks: Values of k.

    Raises:
        SpecError: n < 1, no k, a k twice, k < 1 or k > n.
    """
    if n < 1:
        raise SpecError(f"an evaluation needs at least one episode of each task, got n={n}")
    if not ks or len(set(ks)) != len(ks):
        raise SpecError(f"ks must name at least one k, and each once, got {tuple(ks)}")
    for k in ks:
        if k < 1:
            raise SpecError(f"k must be at least 1, got {k}")
        if k > n:
            raise SpecError(f"pass@{k} needs at least {k} episodes of each task, but n is {n}: raise n or drop k={k}")


def summarize(
    pairs: Sequence[tuple[EnvironmentSpec, TaskVersion]],
    trajectories: Iterable[Trajectory],
    *,
    actor: str,
    n: int,
    ks: Sequence[int] = (1,),
    seed: int = 0,
) -> EvaluationReport:
    """Make the report of an evaluation from its trajectories.

    Args:
        pairs: The tasks, with their environments.
        trajectories: What was played; those of other tasks or actors are passed over, and of
            several with the same task and seed the first scored one counts.
        actor: Whose trajectories count.
        n: Episodes asked for in each task.
        ks: Values of k, each between 1 and n.
        seed: Seed of the intervals.

    Returns:
        The report.

    Raises:
        SpecError: `ks` do not fit n.
    """
    check_ks(n, ks)
    hashes = {task.hash: task.environment for _, task in pairs}
    played: dict[str, dict[int, Trajectory]] = {task: {} for task in hashes}
    for trajectory in trajectories:
        if trajectory.actor == actor and trajectory.task in played:
            known = played[trajectory.task].setdefault(trajectory.seed, trajectory)
            if known.void:
                played[trajectory.task][trajectory.seed] = trajectory
    found = {task: list(by_seed.values()) for task, by_seed in played.items()}
    scores = tuple(_score(hashes[task], task, items, ks) for task, items in found.items())
    every = [trajectory for items in found.values() for trajectory in items]
    return EvaluationReport(
        actor=actor,
        n=n,
        ks=tuple(ks),
        seed=seed,
        tasks=scores,
        rates=tuple(_rate(k, position, scores, seed) for position, k in enumerate(ks)),
        episodes=len(every),
        scored=sum(score.n for score in scores),
        passed=sum(score.c for score in scores),
        void=sum(score.void for score in scores),
        causes=void_causes(every),
        stops=_stops(every),
        mean_calls=_mean_calls(every),
    )


def _score(environment: str, task: str, found: list[Trajectory], ks: Sequence[int]) -> TaskScore:
    scored = [trajectory for trajectory in found if not trajectory.void]
    n, c = len(scored), sum(trajectory.verdict.status == "pass" for trajectory in scored)
    return TaskScore(
        environment=environment,
        task=task,
        n=n,
        c=c,
        void=len(found) - n,
        pass_at=tuple(pass_at_k(n, c, k) if k <= n else None for k in ks),
        pass_hat=tuple(pass_hat_k(n, c, k) if k <= n else None for k in ks),
        stops=_stops(found),
        mean_calls=_mean_calls(found),
    )


def _stops(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    return dict(sorted(Counter(trajectory.stop.value for trajectory in trajectories).items()))


def _mean_calls(trajectories: Sequence[Trajectory]) -> float | None:
    calls = [trajectory.n_calls for trajectory in trajectories if not trajectory.void]
    return sum(calls) / len(calls) if calls else None


def _rate(k: int, position: int, scores: Sequence[TaskScore], seed: int) -> PassRate:
    known = [score for score in scores if score.n >= k]
    at = _mean([(score.environment, score.pass_at[position]) for score in known], f"{seed}/at/{k}")
    hat = _mean([(score.environment, score.pass_hat[position]) for score in known], f"{seed}/hat/{k}")
    return PassRate(
        k=k,
        tasks=len(known),
        left_out=len(scores) - len(known),
        pass_at=at[0],
        pass_at_interval=at[1],
        pass_at_method=at[2],
        pass_hat=hat[0],
        pass_hat_interval=hat[1],
        pass_hat_method=hat[2],
    )


def _mean(
    values: Sequence[tuple[str, float | None]], seed: str
) -> tuple[float | None, tuple[float, float] | None, str | None]:
    clusters: dict[str, list[float]] = {}
    for environment, value in values:
        if value is not None:
            clusters.setdefault(environment, []).append(value)
    every = [value for cluster in clusters.values() for value in cluster]
    if not every:
        return None, None, None
    interval = cluster_interval(list(clusters.values()), seed)
    return sum(every) / len(every), (interval.low, interval.high), interval.method
