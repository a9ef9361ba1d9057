"""Tasks of real worlds that no gate has seen, and copies of them with a planted defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.errors import Rejected
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
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
