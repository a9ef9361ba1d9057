"""Synthesis: equal seeds give equal hashes anywhere; size, length, writes, hardening; the verifier's mutants; the prompts.

Full: 50 environments of "planning a travel itinerary", seed 1, made twice. `--fast`: 4 environments.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from envsynth.actors import GUESS_LIMIT, columns_of, guess_share
from envsynth.author.procedural import prompt_edits
from envsynth.author.procedural.ir import Act, Asked, ForEach, Node, Of, Reach, Ref, Task, To, from_json, lets, walk
from envsynth.gates.spec_gates import parse_apart
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskQuery

CATEGORY = "planning a travel itinerary"
OTHER = {"PYTHONHASHSEED": "77", "TZ": "Pacific/Auckland", "LANG": "C", "LC_ALL": "C"}


def synthesize(count: int, store: Path, folder: Path, changed: dict[str, str]) -> dict[str, Any]:
    """Run the command line as a user would, in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "envsynth.cli", "synthesize", CATEGORY, "--count", str(count), "--seed", "1"]
    command += ["--workers", "2", "--store", str(store), "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": "0", **changed}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"synthesize ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def edited_prompts(store: Store, trials: int) -> tuple[int, int, list[str]]:
    """Edit one comparator, number or name in each of many prompts; count those whose program changes."""
    rng = random.Random("edits")
    specs = {item.hash: item for item in store.environments()}
    places = [(task, edit) for task in store.tasks() for edit in prompt_edits.edits(task.prompt)]
    changed, survivors = 0, []
    for task, edit in rng.sample(places, min(trials, len(places))):
        text = prompt_edits.apply(task.prompt, edit)
        reply = parse_apart(text, dict(specs[task.environment].public_docs))
        if reply.get("ir") != task.ir:
            changed += 1
        else:
            survivors.append(f"{edit} in {task.prompt}")
    return changed, min(trials, len(places)), survivors


def _entity(node: Node) -> str | None:
    """Whose rows a description is about; None where it is no row of a table that it names."""
    if isinstance(node, Asked):
        return node.detail if node.kind == "row" else None
    return None if isinstance(node, To | Reach) else node.entity


def action_share(spec: EnvironmentSpec, task: TaskVersion) -> float:
    """How often a guesser performs the right actions and answers rightly, who knows all but which rows are meant.

    One in the rows of its table for each variable that an action uses, times the share of the answer; 1 when the prompt
    names all arguments.
    """
    program = from_json(task.ir)
    if not isinstance(program, Task) or any(isinstance(node, ForEach) for node in walk(program)):
        return 0.0
    meant = {let.var: _entity(let.node) for let in lets(program)}
    entities = {var: entity for var, entity in meant.items() if entity is not None}
    acts = [operand for node in walk(program) if isinstance(node, Act) for _, operand in node.args]
    share = guess_share(task.oracle.answer, columns_of(spec.world), task.answer_schema)
    for var in dict.fromkeys(operand.var for operand in acts if isinstance(operand, Ref | Of)):
        share /= len(spec.world.rows[entities[var]]) if var in entities else 1
    return share


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    count = 4 if parser.parse_args().fast else 50
    claims = Claims()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one = synthesize(count, Path(first, "a.db"), Path(first), {})
        two = synthesize(count, Path(second, "b.db"), Path(second), OTHER)
        same = (one["environments"], one["tasks"]) == (two["environments"], two["tasks"])
        claims.line("same hashes twice, other hash seed, time zone, language, folder", same, "True", same)
        claims.line("environments", len(one["environments"]), str(count), len(one["environments"]) == count)
        with Store.open(Path(first, "a.db"), readonly=True) as store:
            _measure(store, claims, 200, few=count < 50)
    return claims.exit_code()


def _measure(store: Store, claims: Claims, trials: int, *, few: bool) -> None:
    entries = store.environment_entries()
    tables, tools = statistics.median(e.n_tables for e in entries), statistics.median(e.n_tools for e in entries)
    claims.line("median tables", tables, ">= 4", tables >= 4)
    claims.line("median tools", tools, ">= 8", tools >= 8)
    leaves = store.task_entries(TaskQuery(leaves_only=True))
    reports = {task.hash: store.latest_report(task.hash) for task in store.tasks()}
    calls = statistics.median(int(reports[leaf.hash].evidence("EX201")["calls"]) for leaf in leaves)
    claims.line("median gold calls of leaves", calls, ">= 5", calls >= 5)
    tasks = store.tasks()
    writes = sum(bool(task.oracle.changes) for task in tasks) / len(tasks)
    # Four environments show no share to a hundredth; their tasks are of a few lineages, too, and alike in this.
    least = 0.4 - (2 * math.sqrt(0.4 * 0.6 / len(tasks)) if few else 0.0)
    told = ">= 0.40" + (f", less two standard errors of {len(tasks)} tasks: {least:.2f}" if few else "")
    claims.line("share of tasks that write", f"{writes:.3f} of {len(tasks)}", told, writes >= least)
    steps = statistics.median(leaf.depth for leaf in leaves)
    claims.line("median accepted hardening steps of a lineage", steps, ">= 2", steps >= 2)
    for code, name in (
        ("EX201", "oracle actor passes (reward 1)"),
        ("EX202", "relational oracle accepted"),
        ("VF301", "idle and empty refused (reward 0)"),
    ):
        passed = sum(
            result.status == "pass" for report in reports.values() for result in report.results if result.code == code
        )
        claims.line(name, f"{passed} of {len(tasks)}", "all", passed == len(tasks))
    for code, name in (
        ("VF305", "constraint mutants refused"),
        ("VF304", "state mutants refused"),
        ("VF303", "answer mutants refused"),
    ):
        total = sum(int(report.evidence(code).get("total", 0)) for report in reports.values())
        killed = sum(
            int(report.evidence(code).get("killed", report.evidence(code).get("right", 0)))
            for report in reports.values()
        )
        claims.line(name, f"{killed} of {total}", "100 %", killed == total and total > 0)
    passed = sum(
        report.evidence("VF302").get("killed") == report.evidence("VF302")["total"]
        and report.evidence("VF309")["passing"] == 0
        for report in reports.values()
    )
    walks = sum(int(report.evidence("VF309")["walks"]) for report in reports.values())
    claims.line(
        f"constant, echoed and typed random answers and {walks} random walks refused",
        f"{passed} of {len(tasks)}",
        "all",
        passed == len(tasks),
    )
    shares = [
        float(share) for report in reports.values() if (share := report.evidence("VF308").get("share")) is not None
    ]
    rarest = max(shares, default=1.0)
    claims.line(
        f"largest share of guesses that hit, over the {len(shares)} tasks without changes",
        f"1 in {1 / rarest:.0f}" if rarest else "none",
        "< 1 in 64",
        rarest < 1 / 64,
    )
    specs = {item.hash: item for item in store.environments()}
    acting = [action_share(specs[task.environment], task) for task in tasks if task.oracle.changes]
    print(
        f"      of {len(acting)} tasks with changes (no gate): {sum(share == 1 for share in acting)} name all arguments of"
        f" their actions and ask for no answer; in {sum(GUESS_LIMIT <= share < 1 for share in acting)} a guess at the"
        f" rows meant hits at least once in {1 / GUESS_LIMIT:.0f}"
    )
    missing = sum(int(task.provenance.details.get("mutants_without_witness", 0)) for task in tasks)
    equal = sum(int(task.provenance.details.get("equivalent_mutants", 0)) for task in tasks)
    print(f"      constraint mutants that are no test: {equal} equivalent, {missing} without a witness")
    changed, total, survivors = edited_prompts(store, trials)
    claims.line(
        "edits of one comparator, number or name that change the program",
        f"{changed} of {total}",
        f"{trials} of {trials}",
        changed == total == trials,
    )
    for item in survivors[:5]:
        print(f"      survives: {item}")


if __name__ == "__main__":
    raise SystemExit(main())
