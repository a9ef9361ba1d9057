"""Hardening: make a task harder step by step, and believe no step that is not measured.

A child is accepted only if every gate passes and the ladder of skill-ablated solvers shows that it needs a skill which
its parent did not need, and more skills in all; or that it needs all those of its parent, and fewer careless solvers pass;
or, when the caller brings a measure, if that says that it is harder: for an actor whose pass rate falls, say
(`envsynth.calibrate.ActorMeasure`). Versions are immutable: a lineage is a chain of children, each naming
its parent by hash and its operator.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3: tasks are made iteratively harder, updating solution and
verifier, and the toolset is augmented when it does not suffice. The ladder is ours: the paper gives no measure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from envsynth.allowance import fitted
from envsynth.errors import Rejected
from envsynth.gates import Case, Rehearsal, all_gates, check
from envsynth.harder import Passing, Step, fewer_pass, harder, may_need_something_new
from envsynth.report import GateReport, GateResult
from envsynth.sandbox import Jail, shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Rejection

MAX_STEPS = 4
"""Accepted steps of one lineage, unless the caller asks for more."""
MAX_TRIES = 60
"""Proposals per step before a lineage ends."""
PATIENCE = 100
"""What each operator may cost on one parent before it is given up there."""
COST_OF_DRAW = 8
"""Patience that an operator loses on one parent when the author refuses its draw: cheap, so 13 draws."""
COST_OF_AUDIT = 20
"""Patience that it loses when gates or ladder refuse the candidate: dear, so five candidates."""
HOPELESS = ("no_site", "no_attribute", "uncoupled", "overlay_full")
"""Refusals that depend on the parent alone: the operator is not tried on it again."""
AIMLESS = "no_skill"
"""The refusal of an operator that would make no skill necessary that is not so already: it is not tried again with that aim."""
HOPELESS_THERE = (
    ("faults", "nonbinding"),
    ("policy", "nonbinding"),
    ("budget", "nonbinding"),
    ("withhold", "nonbinding"),
)
"""Refusals of one operator that depend on the parent alone, or nearly so: it has tried whatever there is."""
MAX_GOLD_CALLS = 120
"""Tool calls that a solution may need."""

_BEFORE_PROBES = ("SP101", "SP104", "SP105", "SP106", "EX201", "EX202", "SE501", "VF301")
"""Gates that a candidate meets first: cheap, and blind to what completing it adds."""
_AFTER_LADDER = tuple(gate.code for gate in all_gates() if gate.code not in (*_BEFORE_PROBES, "DF401"))
_REHEARSED = ("SP101", "SP104", "SP105", "SP106", "SE501", "DF401", "DF404", "DF407", "DF408")
"""Gates of a version that is rehearsed only: they read it, or judge what the rehearsal has played."""
_LEFT = tuple(gate.code for gate in all_gates() if gate.code not in _REHEARSED)
AUDIT_ORDER = (
    *(gate.code for gate in all_gates() if gate.code in _BEFORE_PROBES),
    *("EX204", "DF402", "DF401"),
    *_AFTER_LADDER,
)
"""Codes of gates and ladder in the order in which a candidate meets them; the first that refuses ends its audit."""


Audit = Literal["all", "leaves"]
"""Which versions of a lineage meet every gate: all of them, or the last one, while its ancestors are rehearsed; where the
last is an infeasible twin, the version that it is a twin of as well."""


class Author(Protocol):
    """Who proposes tasks; `ProceduralAuthor` is one."""

    def root(self, draft: Any, number: int, attempt: int) -> TaskVersion:
        """Propose a root task; raises `Rejected`."""
        ...

    def operators(self, task: TaskVersion) -> list[str]:
        """Operators with a site in a task."""
        ...

    def propose(
        self, draft: Any, parent: TaskVersion, operator: str, attempt: int, needed: frozenset[str]
    ) -> TaskVersion:
        """Propose a child; raises `Rejected`."""
        ...

    def complete(self, draft: Any, task: TaskVersion, gold_calls: int) -> TaskVersion:
        """Finish an accepted candidate."""
        ...

    def careless(self) -> Sequence[Mapping[str, JsonValue]]:
        """What careless solvers overwrite in the solution; none when there are none."""
        ...


class Measure(Protocol):
    """Says whether a child that passes all gates is harder than its parent; takes the place of the ladder."""

    def __call__(self, environment: EnvironmentSpec, child: TaskVersion, parent: TaskVersion) -> GateResult:
        """Return a result with a code of its own; only `pass` accepts the child."""
        ...


class Drafted(Protocol):
    """What an author gives for an environment."""

    @property
    def environment(self) -> EnvironmentSpec:
        """The record."""
        ...


@dataclass(frozen=True)
class Lineage:
    """A root with its accepted children, and everything that was refused on the way."""

    steps: tuple[Step, ...]
    """Root first; empty when no root was found."""
    rejections: tuple[Rejection, ...]
    """Refused proposals, in order."""


def audit(
    draft: Drafted,
    author: Author,
    candidate: TaskVersion,
    jail: Jail,
    parent: Step | None,
    rehearsal: Rehearsal | None = None,
    measure: Measure | None = None,
) -> Step | Rejection:
    """Take a candidate through the gates, cheap ones first, and through the ladder.

    Args:
        draft: Its environment.
        author: Finishes it (probes, turn limit) once the cheap gates pass.
        candidate: The proposal.
        jail: Where untrusted source runs.
        parent: The version that it should be harder than; None for a root.
        rehearsal: Where the ladder is played when the author compiles its solutions; in proper episodes when None.
        measure: Says in place of the ladder whether a child is harder.

    Returns:
        The finished version with its full report, or why it was refused.
    """
    environment = draft.environment
    fit = _fitted(environment, candidate, jail, rehearsal)
    if isinstance(fit, Rejection):
        return fit
    candidate = fit
    # What the ladder must show; with another measure it shows what it shows.
    easier = parent if measure is None else None
    with Case(environment, candidate, jail, rehearsal=rehearsal) as case:
        # The commonest refusal comes first where it costs little: without a newly failing skill no child is harder. A
        # solution that fails in the rehearsal goes on, to be told by the gates what is wrong with it.
        careless = None
        if case.rehearse(_needed_by(easier)) and easier is not None and not may_need_something_new(case, easier):
            careless = fewer_pass(author.careless(), case, easier, rehearsal)
            if careless is None:
                return _nothing_new(candidate)
        results = _measured(environment, candidate, case, easier, careless)
        if isinstance(results, Rejection):
            return results
        task = author.complete(draft, candidate, case.gold.n_calls)
        with Case(environment, task, jail, earlier=case, rehearsal=rehearsal) as completed:
            rest = check(environment, task, case=completed, select=_AFTER_LADDER, fail_fast=True)
    report = GateReport(environment=environment.hash, task=task.hash, results=(*results, *rest.results))
    if not report.ok:
        return _refused(task, "gates", report)
    if measure is not None and parent is not None:
        found = measure(environment, task, parent.task)
        report = report.model_copy(update={"results": (*report.results, found)})
        if found.status != "pass":
            return _refused(task, "measure", report)
    return Step(task, report)


def _rehearse(
    draft: Drafted, author: Author, candidate: TaskVersion, jail: Jail, parent: Step | None, rehearsal: Rehearsal | None
) -> Step | Rejection:
    """Take a candidate as far as a rehearsal tells: the solution passes, and a skill is needed that was not before.

    Returns:
        The finished version with a report that is not whole, or why it was refused. A candidate that cannot be rehearsed,
        or fails there, is audited.
    """
    environment = draft.environment
    with Case(environment, candidate, jail, rehearsal=rehearsal) as case:
        if not case.rehearse(_needed_by(parent)) or case.rehearsed_calls is None:
            return audit(draft, author, candidate, jail, parent, rehearsal)
        careless = None
        if parent is not None and not may_need_something_new(case, parent):
            careless = fewer_pass(author.careless(), case, parent, rehearsal)
            if careless is None:
                return _nothing_new(candidate)
        calls = case.rehearsed_calls
        if calls > MAX_GOLD_CALLS:
            return _too_long(candidate, calls)
        report = check(environment, candidate, case=case, select=_REHEARSED, fail_fast=True)
        if not report.ok:
            return _refused(candidate, "gates", report)
    why: JsonValue = "rehearsed: a later version of the lineage was audited; run `envsynth check` to audit this one"
    left = [GateResult(code=code, status="skipped", evidence={"why": why}) for code in _LEFT if code != "EX201"]
    played = GateResult(code="EX201", status="skipped", evidence={"why": why, "calls": calls})
    results = (*report.results, played)
    verdict = harder(Step(candidate, report.model_copy(update={"results": results})), parent, careless)
    if verdict.status == "fail":
        return _rejection(candidate, "ladder", verdict.code, verdict.findings[0].message)
    task = author.complete(draft, candidate, calls)
    return Step(
        task, GateReport(environment=environment.hash, task=task.hash, results=(*results, verdict, *left), whole=False)
    )


def _needed_by(step: Step | None) -> frozenset[str]:
    return frozenset() if step is None else step.skills


def _fitted(
    environment: EnvironmentSpec, candidate: TaskVersion, jail: Jail, rehearsal: Rehearsal | None
) -> TaskVersion | Rejection:
    """The candidate; where its tool calls are limited, with a limit that fits its solution."""
    if candidate.delivery.max_calls is None:
        return candidate
    with Case(environment, candidate, jail, rehearsal=rehearsal) as case:
        try:
            return fitted(case)
        except Rejected as reason:
            return _rejection(candidate, "author", reason.code, reason.message)


def _audited(
    draft: Drafted, chain: Sequence[Step], jail: Jail, rehearsal: Rehearsal | None, rejections: list[Rejection]
) -> list[Step]:
    """Take the last version of a lineage through the gates that it has not met; where it fails, its parent instead.

    Where the last is a twin without an answer set, which counts for no set's size, the version that it is a twin of as well.
    """
    kept, place = list(chain), len(chain) - 1
    while place >= 0 and not kept[place].report.whole:
        step = kept[place]
        with Case(draft.environment, step.task, jail, rehearsal=rehearsal) as case:
            rest = check(draft.environment, step.task, case=case, select=_LEFT, fail_fast=True)
        if not rest.ok:
            rejections.append(_refused(step.task, "gates", rest))
            kept, place = kept[:place], place - 1
            continue
        met = [result for result in step.report.results if result.code not in _LEFT]
        results = (*met, *rest.results)
        kept[place] = Step(step.task, step.report.model_copy(update={"results": results, "whole": True}))
        if step.task.kind != "infeasible":
            break
        place -= 1
    return kept


def _measured(
    environment: EnvironmentSpec, candidate: TaskVersion, case: Case, parent: Step | None, careless: Passing | None
) -> tuple[GateResult, ...] | Rejection:
    """The cheap gates and the ladder: their results, or why the candidate is refused."""
    first = check(environment, candidate, case=case, select=_BEFORE_PROBES, fail_fast=True)
    if not first.ok:
        return _refused(candidate, "gates", first)
    calls = case.gold.n_calls
    if calls > MAX_GOLD_CALLS:
        return _too_long(candidate, calls)
    if parent is not None and careless is None and not may_need_something_new(case, parent):
        return _nothing_new(candidate)
    ladder = check(environment, candidate, case=case, select=("DF401",))
    if not ladder.ok:
        return _refused(candidate, "ladder", ladder)
    results = (*first.results, *ladder.results)
    verdict = harder(Step(candidate, first.model_copy(update={"results": results})), parent, careless)
    if verdict.status == "fail":
        return _rejection(candidate, "ladder", verdict.code, verdict.findings[0].message)
    return (*results, verdict)


def _too_long(candidate: TaskVersion, calls: int) -> Rejection:
    return _rejection(candidate, "gates", "EX204", f"the solution needs {calls} calls, limit {MAX_GOLD_CALLS}")


def _nothing_new(candidate: TaskVersion) -> Rejection:
    return _rejection(candidate, "ladder", "DF402", "needs no skill that its parent does not need")


def _refused(task: TaskVersion, stage: str, report: GateReport) -> Rejection:
    bad = next(result for result in report.results if result.status not in ("pass", "skipped"))
    message = bad.findings[0].message if bad.findings else bad.status
    return _rejection(task, stage, bad.code, message)


def _rejection(task: TaskVersion, stage: str, code: str, message: str) -> Rejection:
    return Rejection(
        environment=task.environment,
        parent=task.lineage.parent,
        operator=task.lineage.operator,
        stage=stage,
        code=code,
        message=message,
        draft={"prompt": task.prompt, "ir": task.ir},
    )


def find_root(
    draft: Drafted,
    author: Author,
    number: int,
    *,
    jail: Jail | None = None,
    tries: int = 80,
    rehearsal: Rehearsal | None = None,
    audited: Audit = "all",
) -> Lineage:
    """Propose root tasks until one passes every gate.

    Args:
        draft: The environment.
        author: Who proposes.
        number: Which lineage of the environment.
        jail: Where untrusted source runs; the process's own when None.
        tries: Proposals at most.
        rehearsal: Where the ladder is played when the author compiles its solutions; in proper episodes when None.
        audited: `leaves` when the root is to be hardened with the same word: then it is rehearsed.

    Returns:
        A lineage of one step, or of none.
    """
    rejections: list[Rejection] = []
    take = audit if audited == "all" else _rehearse
    for attempt in range(tries):
        try:
            candidate = author.root(draft, number, attempt)
        except Rejected as reason:
            rejections.append(_by_author(draft, None, None, reason))
            continue
        outcome = take(draft, author, candidate, jail or shared_jail(), None, rehearsal)
        if isinstance(outcome, Step):
            return Lineage((outcome,), tuple(rejections))
        rejections.append(outcome)
    return Lineage((), tuple(rejections))


def _by_author(draft: Drafted, parent: str | None, operator: str | None, reason: Rejected) -> Rejection:
    return Rejection(
        environment=draft.environment.hash,
        parent=parent,
        operator=operator,
        stage="author",
        code=reason.code,
        message=reason.message,
    )


def harden(  # noqa: PLR0913 -- one verb with its options, nearly all keyword-only
    draft: Drafted,
    author: Author,
    start: Step,
    *,
    jail: Jail | None = None,
    steps: int = MAX_STEPS,
    tries: int = MAX_TRIES,
    on_step: Callable[[Step], None] | None = None,
    rehearsal: Rehearsal | None = None,
    audited: Audit = "all",
    measure: Measure | None = None,
) -> Lineage:
    """Harden a task version step by step.

    Args:
        draft: Its environment.
        author: Who proposes children.
        start: The version to start from, with its report.
        jail: Where untrusted source runs; the process's own when None.
        steps: Accepted steps at most.
        tries: Proposals per step; when none is accepted the lineage ends.
        on_step: Called with each accepted step.
        rehearsal: Where the ladder is played when the author compiles its solutions; in proper episodes when None.
        audited: `leaves` to take only the last version through all gates, and its ancestors through the rehearsal.
        measure: Says in place of the ladder whether a child is harder.

    Returns:
        The lineage from `start` on; with `leaves`, empty when no version of it passes.
    """
    jail = jail or shared_jail()

    def take(candidate: TaskVersion, parent: Step) -> Step | Rejection:
        if audited == "all" or measure is not None:
            return audit(draft, author, candidate, jail, parent, rehearsal, measure)
        fit = _fitted(draft.environment, candidate, jail, rehearsal)
        return fit if isinstance(fit, Rejection) else _rehearse(draft, author, fit, jail, parent, rehearsal)

    chain = [start]
    rejections: list[Rejection] = []
    while len(chain) <= steps:
        found = _one_step(draft, author, chain[-1], tries, rejections, take)
        if found is None:
            break
        chain.append(found)
        if on_step is not None:
            on_step(found)
    return Lineage(tuple(_audited(draft, chain, jail, rehearsal, rejections)), tuple(rejections))


def _one_step(
    draft: Drafted,
    author: Author,
    parent: Step,
    tries: int,
    rejections: list[Rejection],
    take: Callable[[TaskVersion, Step], Step | Rejection],
) -> Step | None:
    rng = random.Random(f"harden/{parent.task.hash}")
    # Operators aim at skills that the parent does not need. Where that leads nowhere, they try without an aim: the step may
    # still be one at which careless solvers fail.
    left = list(author.operators(parent.task))
    for number, needed in enumerate(dict.fromkeys((parent.skills, frozenset[str]()))):
        patience = dict.fromkeys(left, PATIENCE)
        for attempt in range(number * tries, (number + 1) * tries):
            usable = [name for name, worth in patience.items() if worth > 0]
            if not usable:
                break
            operator = _draw(rng, usable)
            try:
                candidate = author.propose(draft, parent.task, operator, attempt, needed)
            except Rejected as reason:
                rejections.append(_by_author(draft, parent.task.hash, operator, reason))
                patience[operator] -= PATIENCE if reason.code == AIMLESS else COST_OF_DRAW
                if reason.code in HOPELESS or (operator, reason.code) in HOPELESS_THERE:
                    patience[operator] = 0
                    left.remove(operator)
                continue
            outcome = take(candidate, parent)
            if isinstance(outcome, Step):
                return outcome
            rejections.append(outcome)
            patience[operator] -= COST_OF_AUDIT
            if (operator, outcome.code) in HOPELESS_THERE:
                patience[operator] = 0
                left.remove(operator)
    return None


_WEIGHTS = {
    "side_effect": 3.0,
    "faults": 8.0,
    "optimise": 4.0,
    "branch": 3.0,
    "couple": 3.0,
    "group": 3.0,
    "policy": 2.0,
    "distractors": 1.5,
    "constraint": 1.0,
    "ask": 0.5,
    "budget": 0.5,
    "aggregate": 0.5,
    "conceal": 0.5,
}


def _draw(rng: random.Random, names: Sequence[str]) -> str:
    return rng.choices(list(names), [_WEIGHTS.get(name, 1.0) for name in names])[0]
