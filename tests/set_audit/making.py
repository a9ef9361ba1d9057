"""Tasks of real worlds that no gate has seen, and copies of them with a planted defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.errors import Rejected
from envsynth.report import GateReport, GateResult
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Calibration, Store
from envsynth.suite import export_jsonl, freeze

Pair = tuple[EnvironmentSpec, TaskVersion]


def root(author: ProceduralAuthor, draft: Any, number: int) -> TaskVersion:
    for attempt in range(100):
        try:
            return author.root(draft, number, attempt)
        except Rejected:
            continue
    raise AssertionError("no root in a hundred tries")


def drawn(category: str, index: int = 0, roots: int = 2) -> list[Pair]:
    author = ProceduralAuthor(category, "sets")
    draft = author.draft(index)
    return [(draft.environment, root(author, draft, number)) for number in range(roots)]


def skinned(pair: Pair, slug: str = "a-skin", **changes: Any) -> Pair:
    """The same tables, tools and program under another name; `changes` are of the task."""
    spec, task = pair
    other = spec.model_copy(update={"slug": slug, "title": f"Skin {slug}"})
    return other, task.model_copy(update={"environment": other.hash, **changes})


def renamed(pair: Pair, slug: str, **changes: Any) -> Pair:
    """As `skinned`, with a policy of other words, so that what an actor meets differs as well."""
    spec, task = skinned(pair, slug, **changes)
    other = spec.model_copy(update={"policy": (f"Rules of {slug}.", *spec.policy)})
    return other, task.model_copy(update={"environment": other.hash})


def child(pair: Pair, **changes: Any) -> Pair:
    spec, task = pair
    lineage = {"parent": task.hash, "operator": "distractors", "params": {}, "depth": task.lineage.depth + 1}
    parsed = TaskVersion.parse(task.model_dump(mode="json") | {"lineage": lineage} | changes)
    return spec, parsed


def lineages(folder: Path, pair: Pair, before: str, after: str) -> tuple[Path, list[str]]:
    """A store of a root with four children, whose reports say which skills they need, a letter each; and the children."""
    path = folder / "lineages.db"
    children = [child(pair, prompt=f"{pair[1].prompt} Number {number}.")[1] for number in range(4)]
    with Store.open(path) as store, store.batch() as batch:
        batch.add_environment(pair[0])
        for task, skills in ((pair[1], before), *((item, after) for item in children)):
            ladder = GateResult(code="DF401", status="pass", evidence={"skills": [*skills], "ladder": 9})
            batch.add_task(task)
            batch.add_report(GateReport(environment=pair[0].hash, task=task.hash, results=(ladder,)))
    return path, [task.hash for task in children]


def calibrated(task: TaskVersion, passed: int) -> Calibration:
    """What a random actor came to in sixteen episodes."""
    rates = [{"k": 1, "value": passed / 16, "low": 0.0, "high": 1.0}]
    return Calibration.parse(
        {
            "environment": task.environment, "task": task.hash, "actor": "random", "seed": 0, "pilot": [16, passed],
            "void": 0, "rates": rates, "band": [0.2, 0.8], "route": "train",
        }
    )  # fmt: skip


def suite_file(folder: Path, name: str, pairs: list[Pair]) -> str:
    """Write a suite file of tasks; the ancestors among them must come first."""
    with Store.open(folder / f"{name}.db") as store:
        with store.batch() as batch:
            for spec, task in pairs:
                batch.add_environment(spec)
                batch.add_task(task)
        suite = freeze(store, name, [task.hash for _, task in pairs])
        export_jsonl(suite, store, folder / f"{name}.jsonl")
    return str(folder / f"{name}.jsonl")
