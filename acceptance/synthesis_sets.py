"""Audits of sets: a synthesized set is sound as a set, every planted defect is found, and thousands of tasks take minutes.

A set is synthesized (or `--db` names a store), split by environment, and audited. Then each rule ST6xx gets a defect that
is planted in a copy, and must fail on it and on no set without it. Last, prompts drawn from those of the set, with words
replaced at three rates, are compared at the size of a published set (4,417 tasks). `--fast`: roots as the author proposes
them, which no gate has seen, and 1,000 prompts.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from acceptance.claims import Claims
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.errors import Rejected
from envsynth.pipeline import synthesize
from envsynth.report import GateReport, GateResult, SetReport
from envsynth.set_audit import Members, SetCase, all_rules, audit_set, find_rule
from envsynth.set_audit.facts import normalised_words
from envsynth.set_audit.measured import read_turns
from envsynth.set_audit.overlap import nearest_earlier
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from envsynth.suite import export_jsonl, freeze

CATEGORIES = ("planning a travel itinerary", "warehouse restocking", "sensor alarms", "library loans", "bank transfers")
PUBLISHED = 4_417
"""Tasks of the paper's general agent (arXiv:2512.02556, table 1)."""
RATES = (0.02, 0.1, 0.3)
"""Shares of words that are replaced."""

Pair = tuple[EnvironmentSpec, TaskVersion]


class Workshop:
    """Writes suite files.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def suite(self, pairs: Sequence[Pair]) -> str:
        """Write a suite of tasks; return its path."""
        self._count += 1
        path = self._folder / f"suite{self._count}.jsonl"
        with Store.open(path.with_suffix(".db")) as store:
            with store.batch() as batch:
                for spec, task in pairs:
                    batch.add_environment(spec)
                    batch.add_task(task)
            suite = freeze(store, "all", [task.hash for _, task in pairs])
            export_jsonl(suite, store, path)
        return str(path)

    def lineages(self, home: Pair, before: Sequence[str], after: Sequence[str]) -> Path:
        """Write a store of a root with eight children, whose reports say which skills they need; return its path."""
        self._count += 1
        path, (spec, first) = self._folder / f"lineages{self._count}.db", home
        lineage = {"parent": first.hash, "operator": "distractors", "params": {}, "depth": 1}
        content = first.model_dump(mode="json") | {"lineage": lineage}
        children = [TaskVersion.parse(content | {"prompt": f"{first.prompt} Number {number}."}) for number in range(8)]
        with Store.open(path) as store, store.batch() as batch:
            batch.add_environment(spec)
            for task, skills in ((first, before), *((child, after) for child in children)):
                ladder = GateResult(code="DF401", status="pass", evidence={"skills": [*skills], "ladder": 9})
                batch.add_task(task)
                batch.add_report(GateReport(environment=spec.hash, task=task.hash, results=(ladder,)))
        return path

    def text(self, words: str) -> str:
        """Write a plain text; return its path."""
        self._count += 1
        path = self._folder / f"text{self._count}.txt"
        path.write_text(words)
        return str(path)


def orphan(task: TaskVersion, home: EnvironmentSpec, **changes: Any) -> TaskVersion:
    """The task as a root of an environment."""
    content = task.model_dump(mode="json", exclude={"lineage"}) | {"environment": home.hash} | changes
    return TaskVersion.parse(content)


def reskinned(spec: EnvironmentSpec, name: str, **changes: Any) -> EnvironmentSpec:
    """The environment under another name, with a rule more, so that an actor meets other words."""
    policy = (f"These are the rules of {name}.", *spec.policy)
    return spec.model_copy(update={"slug": name, "policy": policy, **changes})


def leaves(store: Store) -> list[Pair]:
    """The leaves of a store as roots."""
    homes = {spec.hash: spec for spec in store.environments()}
    return [(homes[task.environment], orphan(task, homes[task.environment])) for task in store.tasks(leaves_only=True)]


def proposed() -> Iterator[Pair]:
    """Two roots of each category."""
    for category in CATEGORIES:
        author = ProceduralAuthor(category, "sets")
        draft = author.draft(0)
        for number in range(2):
            for attempt in range(100):
                try:
                    yield draft.environment, author.root(draft, number, attempt)
                except Rejected:
                    continue
                break


def halves(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split by family of mechanisms."""
    named = [str(sorted(map(str, cast("list[str]", spec.provenance.details["mechanisms"])))) for spec, _ in pairs]
    families = sorted(set(named))
    split: tuple[list[Pair], list[Pair]] = ([], [])
    for pair, family in zip(pairs, named, strict=True):
        split[families.index(family) % 2].append(pair)
    return split


def planted(work: Workshop, train: list[Pair], test: list[Pair]) -> dict[str, SetReport]:
    """A report by code of a set with that rule's defect."""
    (spec, task), (other, exam) = train[0], test[0]
    named = reskinned(spec, "planted")
    copy = spec.model_copy(update={"slug": "copied"})
    many = [(spec, orphan(task, spec, prompt=f"Case {number}. {task.prompt}", kind="read")) for number in range(25)]
    skins = [reskinned(spec, f"skin-{number}") for number in range(12)]
    short = "Quite other words for it."
    second = work.suite([(named, orphan(task, named, prompt=short))])
    details = {**spec.provenance.details, "signature": "0" * 32}
    moved = reskinned(spec, "family", provenance=spec.provenance.model_copy(update={"details": details}))
    words = f"It was said: {exam.prompt.upper()}"
    return {
        "ST601": audit_set([work.suite([*train, (copy, orphan(task, copy))])]),
        "ST602": audit_set([work.suite([*train, (spec, orphan(task, spec, prompt=f"{task.prompt} Thanks."))])]),
        "ST603": audit_set([work.suite([*train, (named, orphan(task, named, prompt=short))])]),
        "ST604": audit_set([work.suite([*train, *((skin, orphan(task, skin)) for skin in skins)])]),
        "ST605": audit_set([work.suite(many)]),
        "ST606": audit_set([work.suite([*train, (other, exam)])], against=[work.text(words)]),
        "ST607": audit_set([work.suite(train)], against=[second]),
        "ST608": audit_set([work.suite(train), work.suite([*test, (spec, orphan(task, spec, prompt=short))])]),
        "ST609": audit_set([work.suite(train), work.suite([*test, (moved, orphan(task, moved, prompt=short))])]),
        "ST610": audit_set(store=work.lineages(train[0], ("greedy", "forgets", "no_branch"), ("forgets",))),
    }


def sound(claims: Claims, work: Workshop, train: list[Pair], test: list[Pair]) -> None:
    """Claim that every rule passes."""
    text, suite = work.text("Nothing that any of them says."), work.suite(test[-1:])
    report = audit_set([work.suite(train), work.suite(test[:-1])], against=[text, suite])
    for result in report.results:
        print(f"      {result.code} {result.status}: {result.evidence}")
        for finding in result.findings[:5]:
            print(f"          {finding.message}")
    # A suite file knows no reports, so a store of lineages is asked whether they become harder.
    harder = audit_set(
        store=work.lineages(train[0], ("forgets",), ("greedy", "forgets", "no_branch")), select=("ST610",)
    )
    print(f"      ST610 {harder.results[0].status}: {harder.results[0].evidence}")
    results = [*(result for result in report.results if result.code != "ST610"), *harder.results]
    failed = [result.code for result in results if result.status != "pass"]
    claims.line(f"rules that do not pass on {report.tasks} tasks", ", ".join(failed) or "none", "none", not failed)


def knobs(claims: Claims, store: Store) -> None:
    """Claim that no operator made tasks of a synthesized store easier."""
    turns = read_turns(store, [entry.hash for entry in store.task_entries()])
    result = find_rule("ST610").run(SetCase(Members([], {}, turns)))
    for name, told in result.evidence.items():
        print(f"      {name}: {told}")
    found = ", ".join(finding.message for finding in result.findings) or f"none of {len(turns)} steps"
    claims.line("operators after which more solvers pass", found, "none", result.status == "pass")


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--db", type=Path, help="a store of tier full, instead of a synthesis")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    claims = Claims()
    with tempfile.TemporaryDirectory() as place:
        work = Workshop(Path(place))
        if options.fast:
            train, test = halves(list(proposed()))
        else:
            with Store.open(options.db or Path(place) / "set.db", readonly=options.db is not None) as store:
                if options.db is None:
                    synthesize(CATEGORIES, count=10, seed=7, store=store, workers=options.workers)
                train, test = halves(leaves(store))
                knobs(claims, store)
        claims.line("tasks in two splits", f"{len(train)} and {len(test)}", ">= 2 each", min(len(train), len(test)) > 1)
        sound(claims, work, train, test)
        reports = planted(work, train, test)
        found = {code for code, report in reports.items() if report.result(code).status == "fail"}
        missed = [rule.code for rule in all_rules() if rule.code not in found]
        value = f"{len(found)} of {len(all_rules())}" + (f", not {', '.join(missed)}" if missed else "")
        claims.line("planted defects found", value, "all", not missed)
        prompts = [normalised_words(task.prompt) for _, task in (*train, *test)]
        size, chance = 1_000 if options.fast else PUBLISHED, random.Random(0)
        vocabulary = sorted({word for words in prompts for word in words})
        for rate in RATES:
            texts = [
                [
                    chance.choice(vocabulary) if chance.random() < rate else word
                    for word in prompts[number % len(prompts)]
                ]
                for number in range(size)
            ]
            began = time.monotonic()
            near = len(nearest_earlier(texts, 5, 0.8, lambda one, other: False))
            spent = time.monotonic() - began
            name = f"seconds for {size:,} prompts with {rate:.0%} of words replaced ({near:,} near duplicates)"
            claims.line(name, f"{spent:.1f}", "<= 60", spent <= 60)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
