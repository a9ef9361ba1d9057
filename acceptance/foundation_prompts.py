"""50 random prompts stand unedited in the documentation, and how many of them a reader solved.

`--write` draws them anew: six categories, five environments each, 50 task versions at random, none of a lineage twice.
Without it, the environments are made again and every prompt is compared with the page, letter by letter (`--fast`: one
environment). The reader's verdicts come from `benchmarks/reader.py`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from envsynth.executors import run_all
from envsynth.pipeline import Unit, UnitRequest, make_unit
from envsynth.spec import TaskVersion
from envsynth.store import Store

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "prompts.md"
DRAWN = ROOT / "benchmarks" / "results" / "prompts.json"
READER = ROOT / "benchmarks" / "results" / "reader.json"
SEED = "prompts"
CATEGORIES = (
    "planning a travel itinerary",
    "booking laboratory equipment",
    "warehouse orders with discount coupons",
    "a clinic's appointments and supplies",
    "renting cars and planning routes",
    "organising school events",
)
PER_CATEGORY = 5
COUNT = 50


def requests() -> list[UnitRequest]:
    """Return the environments that the prompts come from."""
    return [
        UnitRequest(category=category, seed=SEED, index=index)
        for category in CATEGORIES
        for index in range(PER_CATEGORY)
    ]


def make(wanted: list[UnitRequest]) -> list[Unit]:
    """Make environments, two processes at a time."""
    return run_all(make_unit, wanted, workers=min(2, len(wanted)))


def draw(units: list[Unit]) -> list[dict[str, Any]]:
    """Draw 50 task versions, at most one of each lineage, in random order."""
    rng = random.Random(SEED)
    lineages: dict[str, list[tuple[Unit, TaskVersion]]] = {}
    for unit in units:
        roots: dict[str, str] = {}
        for task, _ in unit.tasks:
            roots[task.hash] = roots.get(task.lineage.parent or "", task.hash)
            lineages.setdefault(roots[task.hash], []).append((unit, task))
    picked = [rng.choice(versions) for versions in lineages.values()]
    rng.shuffle(picked)
    return [
        {
            "task": task.hash,
            "environment": unit.environment.hash,
            "category": unit.environment.provenance.category,
            "index": unit.index,
            "kind": task.kind,
            "depth": task.lineage.depth,
            "prompt": task.prompt,
        }
        for unit, task in picked[:COUNT]
    ]


def page(drawn: list[dict[str, Any]], reader: dict[str, Any]) -> str:
    """Write the documentation page."""
    solved = sum(item["passed"] for item in reader.values())
    readers = sorted({item["reader"] for item in reader.values()})
    lines = [
        "# Fifty prompts",
        "",
        "Drawn at random, one of a lineage at most, and unedited: `python -m acceptance.foundation_prompts` makes their",
        "environments again and compares every letter. Each is posed with the environment's policy and tool documentation,",
        "which are not shown here; `envsynth play` shows them.",
        "",
    ]
    if reader:
        lines += [
            f"A reader with prompt, policy and tool documentation alone solved **{solved} of {len(reader)}**. Each task",
            "allowed one answer, after as many looks as the reader liked, each within the turn limit. A server held the",
            "tasks in memory and wrote the verdicts; nothing of them lay in a file. That the reader did not look into the",
            "source of this project was an instruction. Its instances shared the tasks; the remarks are their own",
            f"(`benchmarks/reader.py`; the reader was {', '.join(readers)}).",
            "",
        ]
    for number, item in enumerate(drawn, 1):
        verdict = reader.get(str(number))
        mark = "" if verdict is None else f", {'solved' if verdict['passed'] else 'not solved'}"
        lines += [
            f"{number}. {item['prompt']}",
            "",
            f"    <small>{item['category']}; {item['kind']}, depth {item['depth']}{mark}</small>",
            "",
        ]
        if verdict is not None and not verdict["passed"]:
            lines += [f"    Not solved: {verdict['note']} (not met: {', '.join(verdict['failed_checks'])})", ""]
        elif verdict is not None and verdict["note"]:
            lines += [f"    The reader remarks: {verdict['note'].rstrip('.')}.", ""]
    return "\n".join(lines)


def keep(units: list[Unit], path: Path) -> None:
    """Put the environments with all their task versions into a store, for the reader."""
    with Store.open(path) as store:
        for unit in units:
            store.add_environment(unit.environment)
            for task, report in unit.tasks:
                store.add_task(task, report)


def main() -> int:
    """Write the page, or print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--write", action="store_true", help="draw the prompts anew")
    parser.add_argument("--store", type=Path, help="put the environments into this store, for the reader")
    parser.add_argument(
        "--page", action="store_true", help="write the page again from the drawn prompts and the reader's verdicts"
    )
    options = parser.parse_args()
    if options.write or options.store:
        units = make(requests())
        if options.store:
            keep(units, options.store)
        if options.write:
            drawn = {"seed": SEED, "tasks": draw(units)}
            DRAWN.write_text(json.dumps(drawn, indent=1, ensure_ascii=False) + "\n")
            READER.unlink(missing_ok=True)
    drawn = json.loads(DRAWN.read_text())["tasks"]
    reader = json.loads(READER.read_text()) if READER.exists() else {}
    if options.write or options.page or options.store:
        PAGE.write_text(page(drawn, reader))
        return 0
    claims = Claims()
    text = PAGE.read_text()
    standing = sum(f"{number}. {item['prompt']}\n" in text for number, item in enumerate(drawn, 1))
    claims.line("prompts on the page", standing, str(COUNT), standing == len(drawn) == COUNT)
    wanted = requests()[:1] if options.fast else requests()
    again = {task.hash: task.prompt for unit in make(wanted) for task, _ in unit.tasks}
    indices = {(request.category, request.index) for request in wanted}
    due = [item for item in drawn if (item["category"], item["index"]) in indices]
    same = sum(again.get(item["task"]) == item["prompt"] for item in due)
    claims.line("made again letter by letter", f"{same} of {len(due)}", "all", same == len(due) > 0)
    fits = all(verdict["task"] == drawn[int(number) - 1]["task"] for number, verdict in reader.items())
    solved = sum(item["passed"] for item in reader.values())
    claims.line(
        "solved by a reader with prompt and tool documentation alone",
        f"{solved} of {len(reader)}",
        ">= 48 of 50",
        fits and solved >= 48 and len(reader) == COUNT,
    )
    for number, item in reader.items():
        if not item["passed"]:
            print(f"      not solved: {number}: {item['note']} (not met: {', '.join(item['failed_checks'])})")
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
