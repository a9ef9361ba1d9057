"""Independent truth: a second reader enumerates every right outcome of tasks; verifiers accept all these and no other.

The solver half, `acceptance/truth`, imports nothing of the package and gets a `PublicTask`: prompt, policy, docs, schema,
rows. It was written from the prompt language and from policies, not from the author's code. This half draws tasks over
booking, allocation and itinerary without gates, or reads them from a store, and asks their verifiers.

Full: until 300 tasks are covered, at least 60 of each mechanism and some of each sort. `--fast`: 20 tasks, each sort. A task that the second reader does not
understand is not covered, and told with its reason. `--store PATH`: all tasks of a store, whatever their worlds join.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from acceptance.claims import Claims
from acceptance.synthesis_diversity import CATEGORIES
from acceptance.truth.program import Choose, Named, Try
from acceptance.truth.solver import Right, Solved, cells, solve
from acceptance.truth.world import NotCoveredError, PublicTask, World
from acceptance.truth.wrong import wrong_outcomes
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.environments import build_image
from envsynth.errors import Rejected
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, Outcome, RowChange, TaskVersion
from envsynth.store import Store
from envsynth.verifiers import judge

MECHANISMS = ("booking", "allocation", "itinerary")
SPOKEN = {
    "booking": ("resource", "booking", "closure", "person.booked_time", "action.book", "action.cancel", "action.hand_over", "action.mend_booking"),
    "allocation": (
        "fund", "claim", "clash", "quota", "share", "topic", "person.awarded", "action.grant_claim",
        "action.distribute_fund", "action.revoke_claim", "action.shortlist_claim", "action.mend_claim",
    ),
    "itinerary": (
        "leg", "ticket", "attraction", "mode", "site.arrival", "site.fare", "action.buy", "action.refund",
    ),
}  # fmt: skip
"""Words of the public docs that belong to each mechanism."""
LINEAGES, EDITS = 4, 5
"""Lineages of each world, and edits of each lineage; one version of each is drawn."""
RIGHT_JUDGED, WRONG_JUDGED, WRONG_NEEDED = 128, 40, 20
"""Right outcomes of a task that are judged (a sample of more), wrong ones, and the fewest wrong ones that count."""

GROUPED = 40
"""Covered tasks of a full run, at least, that compare groups of rows."""

KINDS = ("read", "plan", "optimise", "infeasible", "act", "service", "diagnose", "recover")
SORTS = {
    "read": ("read",), "plan or optimise": ("plan", "optimise"), "act": ("act", "recover"), "service": ("service",),
    "infeasible": ("infeasible",),
}  # fmt: skip
"""Sorts of tasks that a run covers, by their kinds."""
FEWEST = {"read": 60, "plan or optimise": 30, "act": 30, "service": 30, "infeasible": 10}
"""Covered tasks of each sort of a full run, at least; of a fast one, 1."""

Drawn = tuple[EnvironmentSpec, TaskVersion]


def public(spec: EnvironmentSpec, task: TaskVersion) -> PublicTask:
    """Keep what a player knows and the rows: no program, solution, verifier, oracle or probe."""
    rows: dict[str, list[dict[str, object]]] = {}
    for table in spec.world.tables:
        names = [column.name for column in table.columns]
        rows[table.name] = [dict(zip(names, row, strict=True)) for row in spec.world.rows.get(table.name, ())]
    for added in task.overlay:
        rows[added.table].append(dict(added.row))
    tables = tuple(table.model_dump(mode="json") for table in spec.world.tables)
    return PublicTask(task.prompt, dict(task.answer_schema), spec.policy, dict(spec.public_docs), tables, rows)


# ------------------------------------------------------------------------------------------------------------- drawing


def author_of(category: str, seed: str) -> ProceduralAuthor:
    """An author whose worlds join the three mechanisms only."""
    author = ProceduralAuthor(category, seed)
    author.reading = dataclasses.replace(author.reading, weights=dict.fromkeys(MECHANISMS, 1), required=())
    return author


def drawn(seed: str) -> Iterator[Drawn]:
    """Draw tasks without end: one version of each lineage, by no gate."""
    for turn in itertools.count():
        for category in CATEGORIES:
            author = author_of(category, seed)
            draft = author.draft(turn)
            for number in range(LINEAGES):
                rng = random.Random(f"{seed}/{category}/{turn}/{number}")
                versions: list[TaskVersion] = []
                for attempt in range(12):
                    try:
                        versions = [author.root(draft, number, attempt)]
                        break
                    except Rejected:
                        continue
                for attempt in range(rng.randrange(EDITS + 1) if versions else 0):
                    operators = author.operators(versions[-1])
                    try:
                        versions.append(author.propose(draft, versions[-1], _operator(operators, rng), attempt))
                    except Rejected:
                        continue
                if versions:
                    yield draft.environment, versions[-1]


def _operator(operators: list[str], rng: random.Random) -> str:
    """An edit; the one that leaves no choice suits few tasks, so it is taken more often where it does."""
    return "infeasible" if "infeasible" in operators and rng.random() < 0.5 else rng.choice(operators)


def stored(path: Path) -> Iterator[Drawn]:
    """All tasks of a store."""
    with Store.open(path, readonly=True) as store:
        specs = {spec.hash: spec for spec in store.environments()}
        for task in store.tasks():
            yield specs[task.environment], task


# ------------------------------------------------------------------------------------------------------------- judging


@dataclass
class Tally:
    """What was found over all tasks."""

    covered: Counter[str] = field(default_factory=Counter[str])
    """By kind and by mechanism."""
    endings: Counter[str] = field(default_factory=Counter[str])
    """Covered tasks with a choice that may be empty or a request that may be denied, by what came of it."""
    mistaken: int = 0
    """Tasks called infeasible though there is a choice, or plan or optimise though there is none."""
    sentences: Counter[str] = field(default_factory=Counter[str])
    """Covered tasks by the kinds of their sentences."""
    uncovered: Counter[str] = field(default_factory=Counter[str])
    """By reason."""
    drawn: int = 0
    enumerated: int = 0
    accepted: Counter[bool] = field(default_factory=Counter[bool])
    """Right outcomes by whether the verifier accepts."""
    refused: Counter[bool] = field(default_factory=Counter[bool])
    """Wrong outcomes by whether the verifier refuses."""
    sources: Counter[str] = field(default_factory=Counter[str])
    """Wrong outcomes by their making."""
    places: Counter[str] = field(default_factory=Counter[str])
    """Covered tasks by the part of the policy that they depend on: misread, it leads to a wrong outcome."""
    looked_at: set[str] = field(default_factory=set[str])
    """Parts of policies that the outcomes were worked out with."""
    disagreements: list[str] = field(default_factory=list[str])

    @property
    def tasks(self) -> int:
        """Covered tasks."""
        return self.covered["all"]

    def of(self, sort: str) -> int:
        """Covered tasks of a sort."""
        return sum(self.covered[kind] for kind in SORTS[sort])

    def enough(self, wanted: int, each: int) -> bool:
        """Whether enough tasks are covered, in all, of each mechanism and of each sort."""
        if self.tasks < wanted or any(self.covered[name] < each for name in MECHANISMS):
            return False
        return all(self.of(sort) >= fewest for sort, fewest in fewest_of(each).items())


def fewest_of(each: int) -> dict[str, int]:
    """The fewest tasks of each sort in a run with so many of each mechanism: none of the tasks of a store."""
    return FEWEST if each >= 60 else dict.fromkeys(SORTS, min(each, 1))


def ending_of(solved: Solved) -> str:
    """What comes of a choice that may be empty, or of a request that may be denied; "" without either."""
    if any(isinstance(step, Choose) and step.may_be_empty for step in solved.program.steps):
        return "empty" if any(value == frozenset() for _, value in solved.outcomes[0].answer) else "chosen"
    words = [Named(step.name) for step in solved.program.steps if isinstance(step, Try)]
    told = [name for name, value in solved.program.report if value in words]
    return str(dict(solved.outcomes[0].answer)[told[0]]) if told else ""


def as_outcome(world: World, right: Right, *, turned: bool = False) -> Outcome:
    """The record of an outcome; lists in one order, or turned round, as no order is asked for."""
    answer = {
        name: sorted(value, reverse=turned) if isinstance(value, frozenset) else value for name, value in right.answer
    }
    changes = [
        RowChange(
            op="insert" if change.row is None else "update", table=world.tables[change.entity], row=cells(world, change)
        )
        for change in right.deed
    ]
    return Outcome(answer=answer, changes=tuple(changes))


def mechanisms_of(solved: Solved) -> list[str]:
    """The mechanisms that a prompt speaks of."""
    spoken = {*solved.entities, *(item.partition(".")[0] for item in solved.entities)} - {"action", "person", "site"}
    return [name for name, words in SPOKEN.items() if spoken.intersection(words)]


def ask(jail: Jail, spec: EnvironmentSpec, task: TaskVersion, solved: Solved, tally: Tally) -> None:
    """Let the verifier of a task judge right and wrong outcomes.

    Raises:
        NotCoveredError: the prompt is about none of the mechanisms, or there are too few wrong outcomes.
    """
    if not mechanisms_of(solved):
        raise NotCoveredError("speaks of none of the three mechanisms")
    rng = random.Random(task.hash)
    right = rng.sample(solved.outcomes, min(RIGHT_JUDGED, len(solved.outcomes)))
    told = f"{task.hash[:12]} {task.prompt}"
    if not right:
        tally.accepted[False] += 1
        tally.disagreements.append(f"no outcome is right: {told}; its oracle: {task.oracle.to_json()[:300]}")
        return
    wrong = wrong_outcomes(solved, rng, WRONG_JUDGED)
    if len(wrong) < WRONG_NEEDED:
        raise NotCoveredError(f"fewer than {WRONG_NEEDED} wrong outcomes")
    outcomes = [as_outcome(solved.world, item, turned=bool(place % 2)) for place, item in enumerate(right)]
    outcomes += [as_outcome(solved.world, item.outcome) for item in wrong]
    image = build_image(jail, spec.world, task.overlay)
    statuses = [verdict.status for verdict in judge(jail, task, image, outcomes)]
    yes, no = statuses[: len(right)], statuses[len(right) :]
    tally.enumerated += len(solved.outcomes)
    tally.accepted.update(status == "pass" for status in yes)
    tally.refused.update(status == "fail" for status in no)
    tally.sources.update(item.source for item in wrong)
    tally.places.update({item.place for item in wrong if item.place})
    ending = ending_of(solved)
    tally.endings.update([ending] if ending else [])
    called = {"infeasible": True, "plan": False, "optimise": False}.get(task.kind)
    if called is not None and called != (ending == "empty"):
        tally.mistaken += 1
        tally.disagreements.append(f"called {task.kind}, but what comes of it is {ending!r}: {told}")
    tally.looked_at |= solved.rules.used.intersection(solved.rules.values)
    for outcome, status in zip(outcomes[: len(right)], yes, strict=True):
        if status != "pass":
            tally.disagreements.append(f"right, but {status}: {outcome.to_json()[:300]}: {told}")
    for item, outcome, status in zip(wrong, outcomes[len(right) :], no, strict=True):
        if status != "fail":
            tally.disagreements.append(f"wrong ({item.source}), but {status}: {outcome.to_json()[:300]}: {told}")


def worked_out(spec: EnvironmentSpec, task: TaskVersion) -> Solved:
    """Every right outcome of a task.

    Raises:
        NotCoveredError: a user knows what the prompt does not say, or as `solve` says.
    """
    if task.delivery.user:
        raise NotCoveredError("a user knows what the prompt does not say")
    return solve(public(spec, task))


def measure(tasks: Iterable[Drawn], jail: Jail, wanted: int, each: int) -> Tally:
    """Cover tasks until there are enough, in all and of each mechanism."""
    tally, began = Tally(), time.monotonic()
    for spec, task in tasks:
        if tally.enough(wanted, each):
            break
        tally.drawn += 1
        try:
            solved = worked_out(spec, task)
            ask(jail, spec, task, solved, tally)
        except NotCoveredError as reason:
            tally.uncovered[str(reason)] += 1
            continue
        tally.covered.update(["all", task.kind, *mechanisms_of(solved)])
        tally.sentences.update({type(step).__name__.lower() for step in solved.program.steps})
        if tally.tasks % 50 == 0:
            print(f"      {tally.tasks} tasks, {time.monotonic() - began:.0f} s", flush=True)
    return tally


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seed", default="truth")
    parser.add_argument("--store", type=Path, help="read tasks from here; all of them are asked")
    options = parser.parse_args()
    wanted, each = (20, 3) if options.fast else (300, 60)
    claims = Claims()
    with Jail() as jail:
        if options.store:
            tally, wanted, each = measure(stored(options.store), jail, sys.maxsize, 0), 1, 0
        else:
            tally = measure(drawn(options.seed), jail, wanted, each)
    report(claims, tally, wanted, each)
    return claims.exit_code()


def report(claims: Claims, tally: Tally, wanted: int, each: int) -> None:
    """Print what was found."""
    counts = ", ".join(f"{name} {tally.covered[name]}" for name in (*MECHANISMS, *KINDS))
    least = min(tally.covered[name] for name in MECHANISMS)
    claims.line("tasks covered", f"{tally.tasks} ({counts})", f">= {wanted}", tally.tasks >= wanted)
    if each:
        claims.line("fewest of a mechanism", least, f">= {each}", least >= each)
        for sort, fewest in fewest_of(each).items():
            claims.line(f"tasks covered of sort {sort}", tally.of(sort), f">= {fewest}", tally.of(sort) >= fewest)
    ends = ", ".join(f"{name} {tally.endings[name]}" for name in ("chosen", "empty", "done", "denied"))
    claims.line(f"mistaken for infeasible or not (choices, requests: {ends})", tally.mistaken, "0", not tally.mistaken)
    kinds = ", ".join(f"{name} {tally.sentences[name]}" for name in sorted(tally.sentences))
    if each >= 60:
        grouped = tally.sentences["group"]
        claims.line(
            "tasks that compare groups", f"{grouped} (of sentences: {kinds})", f">= {GROUPED}", grouped >= GROUPED
        )
    else:
        print(f"      tasks with sentences: {kinds}")
    print(f"      {tally.tasks} of {tally.drawn} drawn tasks are covered ({tally.tasks / max(1, tally.drawn):.1%})")
    for reason, count in tally.uncovered.most_common(10):
        print(f"      not covered, {count}: {reason}")
    right, wrong = sum(tally.accepted.values()), sum(tally.refused.values())
    shown = f"{tally.accepted[True] / max(1, right):.4f}: {tally.accepted[True]:,} of {right:,}"
    claims.line(
        f"right outcomes accepted (of {tally.enumerated:,} enumerated)", shown, "1, of >= 1 a task",
        tally.accepted[True] == right >= tally.tasks > 0,
    )  # fmt: skip
    made = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.sources.items()))
    shown = f"{tally.refused[True] / max(1, wrong):.4f}: {tally.refused[True]:,} of {wrong:,} ({made})"
    claims.line(
        "wrong outcomes refused", shown, f"1, of >= {WRONG_NEEDED} a task",
        tally.refused[True] == wrong >= WRONG_NEEDED * tally.tasks > 0,
    )  # fmt: skip
    depended = f"{len(tally.places)} of {len(tally.looked_at)}"
    # no claim: a limit that only forbids cannot make another outcome right of what can be done
    print(
        f"      parts of policies on which tasks depend ({depended}): "
        + ", ".join(f"{name} {tally.places[name]}" for name in sorted(tally.looked_at))
    )
    for told in tally.disagreements[:20]:
        print(f"      {told}")


if __name__ == "__main__":
    raise SystemExit(main())
