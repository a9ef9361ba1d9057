"""ST606 to ST609: is nothing in the set that it must not hold: other people's suites, and its own other splits?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from pydantic import JsonValue

from envsynth.report import Finding, GateResult
from envsynth.set_audit.catalogue import SetCase, rule
from envsynth.set_audit.facts import TaskFacts
from envsynth.set_audit.overlap import window_digests

_NO_SUITE = "no suite is named to hold it against (--against)"
_ONE_SPLIT = "there is one list of tasks only: name two or more, such as training and evaluation"


@rule("ST606", "no prompt shares words in a row with a named suite")
def shared_windows(case: SetCase) -> GateResult:
    """Search each prompt's windows of 13 words, case and punctuation left out, in the suites that the user names.

    A prompt of fewer words is compared whole. The message quotes the shared words. Two suites of the same author share its
    phrases: for those, ST607 to ST609 say more.

    Why: a model that was trained on its examination passes it.

    Fix: leave the task out, or the suite is not one to report results on.
    """
    if not case.references:
        return GateResult(code="ST606", status="skipped", evidence={"why": _NO_SUITE})
    findings: list[Finding] = []
    size = case.limits.window
    hit = Counter[str]()
    for task in case.tasks:
        digests = window_digests(task.words, size)
        for suite in case.references:
            shared = [start for start, digest in enumerate(digests) if digest in suite.windows]
            if shared:
                hit[suite.name] += 1
                quoted = " ".join(task.words[shared[0] : shared[0] + size])
                place = suite.windows[digests[shared[0]]]
                message = f"{case.place(task)} shares {len(shared)} of {len(digests)} windows with {suite.name}"
                findings.append(
                    Finding(
                        code="ST606", message=f"{message}, {place}: {quoted!r}", where=task.hash, fix="leave it out"
                    )
                )
    against: dict[str, JsonValue] = {
        suite.name: {"texts": suite.texts, "tasks_hit": hit[suite.name]} for suite in case.references
    }
    status = "fail" if findings else "pass"
    return GateResult(code="ST606", status=status, findings=tuple(findings), evidence={"against": against})


@rule("ST607", "no task of a named suite is there in other words")
def shared_programs(case: SetCase) -> GateResult:
    """Compare worlds, tasks and programs with the suites that the user names, where those hold tasks of ours.

    Found are the same task (as in ST601), and the same skeleton of a program in a world of the same structure.

    Why: a new skin on a task of the examination shares no words with it.

    Fix: leave the task out.
    """
    suites = [suite for suite in case.references if suite.contents]
    if not suites:
        why = "no named suite holds tasks with structure" if case.references else _NO_SUITE
        return GateResult(code="ST607", status="skipped", evidence={"why": why})
    findings: list[Finding] = []
    for task in case.tasks:
        for suite in suites:
            same = suite.contents.get(task.content)
            form = None if task.program is None else suite.programs.get((task.world.signature, task.program))
            if same is not None or form is not None:
                what = f"is task {same}" if same is not None else f"has structure and program of task {form}"
                message = f"{case.place(task)} {what} of {suite.name}"
                findings.append(Finding(code="ST607", message=message, where=task.hash, fix="leave it out"))
    against: dict[str, JsonValue] = {
        suite.name: {"tasks": len(suite.contents), "programs": len(suite.programs)} for suite in suites
    }
    status = "fail" if findings else "pass"
    evidence: dict[str, JsonValue] = {"against": against, "unreadable": sum(task.unreadable for task in case.tasks)}
    return GateResult(code="ST607", status=status, findings=tuple(findings), evidence=evidence)


@rule("ST608", "splits share no environment, structure of environments or lineage")
def shared_between_splits(case: SetCase) -> GateResult:
    """Compare every two splits: environments by what an actor meets and by structure, tasks by lineage.

    Why: tasks of one environment share rows, tools and answers; versions of one lineage share most of the work. A policy
    that is examined on the same world was not examined on a new one.

    Fix: split by environment, and keep those of the same structure together.
    """
    return _between("ST608", case, _shared)


@rule("ST609", "splits share no family of mechanisms")
def shared_families(case: SetCase) -> GateResult:
    """Compare every two splits by the mechanisms that their worlds are composed of; one combination is a family.

    Why: the rules of a world come from its mechanisms. Only a split by family measures what carries over to worlds of
    another kind; with this rule left out (`--select`), a result speaks of new worlds of known kinds.

    Fix: move all tasks of a family into one split.
    """
    if not any(task.world.mechanisms for task in case.tasks):
        return GateResult(code="ST609", status="skipped", evidence={"why": "no environment names its mechanisms"})
    return _between("ST609", case, _families)


def _shared(case: SetCase, task: TaskFacts) -> Iterator[tuple[str, str, str]]:
    yield "environment", task.world.content, task.world.slug
    yield "structure of environments", task.world.signature, task.world.slug
    yield "lineage", case.root(task), task.name


def _families(case: SetCase, task: TaskFacts) -> Iterator[tuple[str, str, str]]:
    if task.world.mechanisms:
        family = " + ".join(task.world.mechanisms)
        yield "family", family, family


def _between(
    code: str, case: SetCase, marks: Callable[[SetCase, TaskFacts], Iterator[tuple[str, str, str]]]
) -> GateResult:
    """Find the marks that two splits have in common; a task counts for the first mark that is found, each mark once."""
    if len(case.splits) < 2:
        return GateResult(code=code, status="skipped", evidence={"why": _ONE_SPLIT})
    held: dict[str, dict[tuple[str, str], str]] = {}
    for name, tasks in case.splits.items():
        there = held.setdefault(name, {})
        for task in tasks:
            for what, mark, shown in marks(case, task):
                there.setdefault((what, mark), shown)
    found: dict[tuple[str, str, str, str], Finding] = {}
    for one, other in case.split_pairs:
        for task in case.splits[one]:
            for what, mark, shown in marks(case, task):
                if (what, mark) in held[other]:
                    known = held[other][what, mark]
                    message = f"{one} and {other} share the {what} {shown}"
                    message += "" if known == shown else f" (there {known})"
                    finding = Finding(code=code, message=message, where=what, fix="keep it in one split")
                    found.setdefault((one, other, what, mark), finding)
                    break
    shared = Counter(what for _, _, what, _ in found)
    evidence: dict[str, JsonValue] = {
        "splits": {name: len(tasks) for name, tasks in case.splits.items()},
        "shared": {**shared},
    }
    status = "fail" if found else "pass"
    return GateResult(code=code, status=status, findings=tuple(found.values()), evidence=evidence)
