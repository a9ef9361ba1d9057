"""What synthesis brought: how many proposals became tasks, by stage, operator and mechanism, and how different they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from envsynth.hardening import AUDIT_ORDER
from envsynth.spec import EnvironmentSpec
from envsynth.store import RefusalCount, Rejection, Store, TaskEntry

STAGES: tuple[str, ...] = ("author", "gates", "ladder")
"""Who refuses, in the order in which a proposal first meets them."""
ROOT = "root"
"""Stands for the operator of a task that was not hardened from another one."""
REASONS = 3
"""Most frequent reasons that are told."""


@dataclass(frozen=True)
class Yield:
    """What became of a group of proposals."""

    name: str
    """An operator or a mechanism."""
    accepted: int
    """Task versions in the store."""
    refused: int
    """Proposals that were refused."""
    reasons: tuple[tuple[str, int], ...]
    """The most frequent codes of refusals, with how often."""

    @property
    def share(self) -> float:
        """Accepted ones among all proposals, 0 to 1; 0 when there were none."""
        return self.accepted / max(1, self.accepted + self.refused)


@dataclass(frozen=True, kw_only=True)
class LadderShare:
    """How the ladder fares at one depth: solvers that each lack one skill, over all skills that the store's tasks need.

    A solver that lacks a skill which does not come up in a task solves it as the whole planner does.
    """

    depth: int
    """Accepted hardening steps."""
    versions: int
    """Task versions of that depth with a ladder."""
    passing: float
    """Mean share of solvers that pass, 0 to 1."""
    deep: float | None
    """The same over the versions of the deepest lineages alone, which are the same lineages at every depth."""


@dataclass(frozen=True, kw_only=True)
class Yields:
    """What a store tells of synthesis."""

    environments: int
    """Environment versions."""
    tasks: int
    """Task versions."""
    leaves: int
    """Task versions that no other one was hardened from."""
    refused: Mapping[str, int]
    """Refused proposals by stage."""
    reasons: tuple[tuple[str, str, int], ...]
    """Stage, code and number of all refusals, the most frequent first."""
    operators: tuple[Yield, ...]
    """By hardening operator; roots first."""
    mechanisms: tuple[Yield, ...]
    """By mechanism of the environment: one with three mechanisms counts for each of them."""
    depths: Mapping[int, int]
    """Leaves by the number of versions before them."""
    kinds: Mapping[str, int]
    """Leaves by class of task, the most frequent first."""
    skills: Mapping[int, int]
    """Leaves by the number of skills that they need, which is how difficult they are."""
    needed: Mapping[str, int]
    """Leaves that need a skill, by skill, the most frequent first."""
    ladder: tuple[LadderShare, ...]
    """By depth of all task versions."""
    gold_calls: Mapping[int, int]
    """Leaves by the number of tool calls of their solution."""
    calls: Mapping[str, int]
    """Tool calls that the solutions of leaves need: median, p90 and maximum; empty when no report tells them."""
    distinct: tuple[tuple[int, int], ...]
    """Different structural signatures among the first so many environments that have one, by slug."""


@dataclass(frozen=True)
class Passage:
    """How many candidates met a gate, and how many it let through."""

    gate: str
    """Its code; `author` for what the author itself refuses."""
    met: int
    """Candidates that came so far."""
    passed: int
    """Those that went on."""

    @property
    def share(self) -> float:
        """Share that passed, 0 to 1."""
        return self.passed / max(1, self.met)


class Funnel:
    """Counts what becomes of proposals, unit by unit, while a run goes on."""

    def __init__(self) -> None:
        self._accepted = 0
        self._refused = Counter[str]()

    def add(self, accepted: int, rejections: Iterable[Rejection]) -> None:
        """Count a unit.

        Args:
            accepted: Its accepted task versions.
            rejections: Its refused proposals.
        """
        self._accepted += accepted
        self._refused.update(STAGES[0] if item.stage == STAGES[0] else item.code for item in rejections)

    @property
    def share(self) -> float:
        """Accepted ones among all proposals, 0 to 1."""
        return self._accepted / max(1, self._accepted + self._refused.total())

    def passages(self) -> tuple[Passage, ...]:
        """Return the gates that refused something, in the order in which a proposal meets them.

        A code that no gate has counts as a gate after all others.
        """
        order = dict.fromkeys((STAGES[0], *AUDIT_ORDER, *sorted(self._refused)))
        left = self._accepted + self._refused.total()
        found: list[Passage] = []
        for code in order:
            if refused := self._refused[code]:
                found.append(Passage(code, left, left - refused))
                left -= refused
        return tuple(found)

    def __str__(self) -> str:
        parts = [f"{item.gate} {item.share:.0%}" for item in self.passages()]
        return f"{self.share:.0%} of proposals accepted" + (f"; passed {', '.join(parts)}" if parts else "")


def stored_yields(store: Store) -> Yields:
    """Work out what synthesis brought.

    Args:
        store: The store; nothing is played.

    Returns:
        The counts.
    """
    tasks, refusals = store.task_entries(), store.refusal_counts()
    specs = store.environments()
    parents = {task.parent for task in tasks}
    leaves = [task for task in tasks if task.hash not in parents]
    measured = _measured(store, [task.hash for task in tasks])
    ends = [measured[task.hash] for task in leaves if task.hash in measured]
    calls = Counter(item.calls for item in ends if item.calls is not None)
    by_code = Counter[tuple[str, str]]()
    for item in refusals:
        by_code[item.stage, item.code] += item.count
    stages: dict[str, int] = {stage: 0 for stage in STAGES}  # noqa: C420 - Ruff's form of it has no type
    for (stage, _), count in by_code.items():
        stages[stage] = stages.get(stage, 0) + count
    return Yields(
        environments=len(specs),
        tasks=len(tasks),
        leaves=len(leaves),
        refused=stages,
        reasons=tuple((stage, code, count) for (stage, code), count in by_code.most_common()),
        operators=_by_operator(tasks, refusals),
        mechanisms=_by_mechanism(specs, tasks, refusals),
        depths=dict(sorted(Counter(task.depth for task in leaves).items())),
        kinds=dict(Counter(task.kind for task in leaves).most_common()),
        skills=dict(sorted(Counter(len(item.skills) for item in ends if item.skills is not None).items())),
        needed=dict(Counter(skill for item in ends for skill in item.skills or ()).most_common()),
        ladder=_ladder(tasks, leaves, measured),
        gold_calls=dict(sorted(calls.items())),
        calls=_calls(calls),
        distinct=_curve(specs),
    )


def _yields(accepted: Counter[str], refused: Counter[tuple[str, str]], first: Sequence[str] = ()) -> tuple[Yield, ...]:
    """Order groups by how many proposals they had, `first` ones before all."""
    names = dict.fromkeys([*accepted, *(name for name, _ in refused)])
    found: list[Yield] = []
    for name in names:
        codes = Counter({code: count for (owner, code), count in refused.items() if owner == name})
        found.append(Yield(name, accepted[name], codes.total(), tuple(codes.most_common(REASONS))))
    return tuple(sorted(found, key=lambda item: (item.name not in first, -item.accepted - item.refused, item.name)))


def _by_operator(tasks: Iterable[TaskEntry], refusals: Iterable[RefusalCount]) -> tuple[Yield, ...]:
    refused = Counter[tuple[str, str]]()
    for item in refusals:
        refused[item.operator or ROOT, item.code] += item.count
    return _yields(Counter(task.operator or ROOT for task in tasks), refused, (ROOT,))


def _by_mechanism(
    specs: Iterable[EnvironmentSpec], tasks: Iterable[TaskEntry], refusals: Iterable[RefusalCount]
) -> tuple[Yield, ...]:
    parts = {spec.hash: _mechanisms(spec) for spec in specs}
    accepted = Counter(name for task in tasks for name in parts.get(task.environment, ()))
    refused = Counter[tuple[str, str]]()
    for item in refusals:
        for name in parts.get(item.environment or "", ()):
            refused[name, item.code] += item.count
    return _yields(accepted, refused)


def _mechanisms(spec: EnvironmentSpec) -> tuple[str, ...]:
    names = spec.provenance.details.get("mechanisms")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


@dataclass(frozen=True)
class _Measured:
    """What a gate report tells of a version; None: it does not tell."""

    calls: int | None
    skills: frozenset[str] | None


def _measured(store: Store, hashes: Sequence[str]) -> dict[str, _Measured]:
    found: dict[str, _Measured] = {}
    for report in store.latest_reports(hashes):
        calls, skills = report.evidence("EX201").get("calls"), report.evidence("DF401").get("skills")
        found[report.task] = _Measured(
            calls=calls if isinstance(calls, int) else None,
            skills=frozenset(map(str, skills)) if isinstance(skills, list) else None,
        )
    return found


def _ladder(
    tasks: Sequence[TaskEntry], leaves: Sequence[TaskEntry], measured: Mapping[str, _Measured]
) -> tuple[LadderShare, ...]:
    failing = {key: item.skills for key, item in measured.items() if item.skills is not None}
    rungs = len(frozenset[str]().union(*failing.values()))
    deepest = max((task.depth for task in leaves), default=0)
    lines = _ancestors(tasks, [task for task in leaves if task.depth == deepest])

    def passing(some: Sequence[TaskEntry]) -> float | None:
        counts = [len(failing[task.hash]) for task in some if task.hash in failing]
        return 1 - sum(counts) / len(counts) / rungs if counts and rungs else None

    found: list[LadderShare] = []
    for depth in range(deepest + 1):
        there = [task for task in tasks if task.depth == depth and task.hash in failing]
        share = passing(there)
        if share is not None:
            deep = passing([task for task in there if task.hash in lines])
            found.append(LadderShare(depth=depth, versions=len(there), passing=share, deep=deep))
    return tuple(found)


def _ancestors(tasks: Iterable[TaskEntry], of: Iterable[TaskEntry]) -> frozenset[str]:
    """Hashes of tasks and of all versions before them."""
    parents = {task.hash: task.parent for task in tasks}
    found: set[str] = set()
    for task in of:
        line: str | None = task.hash
        while line is not None and line not in found:
            found.add(line)
            line = parents.get(line)
    return frozenset(found)


def _calls(counts: Counter[int]) -> dict[str, int]:
    found = sorted(counts.elements())
    if not found:
        return {}
    return {"median": found[(len(found) - 1) // 2], "p90": found[(9 * len(found) - 1) // 10], "max": found[-1]}


def _curve(specs: Iterable[EnvironmentSpec]) -> tuple[tuple[int, int], ...]:
    marks = [mark for spec in specs if isinstance(mark := spec.provenance.details.get("signature"), str)]
    sizes = sorted(
        {*(size for size in (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000) if size < len(marks)), len(marks)}
    )
    return tuple((size, len({*marks[:size]})) for size in sizes if size)
