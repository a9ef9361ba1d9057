"""One command makes a whole set: size, time, memory, difficulty, and what the gates found on every task.

Full: 1,827 environments of forty categories, as many as DeepSeek-V3.2 (arXiv:2512.02556) reports, with 4,417 leaf tasks.
`--environments N` makes another number; targets of counts and time scale with it, and the lines say so. `--store FILE` keeps
the set: the same command resumes it, and what earlier calls took is added up in FILE.took.json. `--fast`: 6 environments of
six categories, and only lines that do not need a large set. A line that nothing was measured for is NOT RUN, never PASS,
and the script does not pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import sys
import tempfile
import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from acceptance.process_tree import measure
from acceptance.synthesis_diversity import CATEGORIES
from benchmarks.jail import machine
from envsynth import __version__
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.signature import structure
from envsynth.executors import run_all
from envsynth.gates import Case, all_gates, check
from envsynth.hardening import _AFTER_LADDER as AFTER_LADDER
from envsynth.sandbox import shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskEntry
from envsynth.yields import Yields, stored_yields

ENVIRONMENTS, LEAVES, DISTINCT = 1_827, 4_417, 1_000
LIMIT_S, GOAL_S = 1_800, 1_200
"""Seconds that the full set may take, and should take, on two cores."""
WORKERS = 2
"""Processes that make environments: as many as cores, so that each keeps to one, with the jailed workers that it waits for."""
LIMIT_BYTES = 2 << 30
FAST = 6
LINEAGES, STEPS = 2.44, 3
"""Lineages for each environment, and hardening steps of each at most; the last version of each meets every gate."""
SAMPLE = 200
"""Leaf tasks that are audited once more, with another seed of all that gates draw."""
TWINS = ("infeasible",)
"""Classes whose tasks are twins of other ones: they count for no target of size."""
PER_CLASS = ("VF303", "VF304", "VF307")
"""Gates that count killed mutants: of answers, of states, of answers without changes."""


@dataclass
class Record:
    """Everything that is printed, for the file of results."""

    claims: Claims = field(default_factory=Claims)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def line(self, name: str, value: object, target: str, ok: bool | None) -> None:
        """Print one line; None: there was nothing to measure it on."""
        if ok is None:
            print(f"NOT RUN  {name}: {value}  (target {target})", flush=True)
        else:
            self.claims.line(name, value, target, ok)
        result = "NOT RUN" if ok is None else "PASS" if ok else "FAIL"
        self.lines.append({"name": name, "value": str(value), "target": target, "result": result})

    def at_least(self, name: str, value: float | None, target: float, form: str = ",.3g") -> None:
        """Print a line about a number that must reach a target."""
        told = "nothing to measure" if value is None else format(value, form)
        self.line(name, told, f">= {target:{form}}", None if value is None else value >= target)


# ------------------------------------------------------------------------------------------------------- the one command


@dataclass
class Took:
    """What all calls of the command on one store took together."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    made: int = 0
    """Environments."""


def synthesize(
    store: Path, count: int, options: argparse.Namespace, *, quiet: bool = False
) -> tuple[dict[str, Any], Took]:
    """Run the one command, and add what it took to what earlier calls took.

    Raises:
        SystemExit: it failed; what was made is kept, and the same command goes on.
    """
    listed, record = store.with_suffix(".categories.txt"), store.with_suffix(".took.json")
    categories = CATEGORIES[:FAST] if options.fast else CATEGORIES
    listed.write_text("".join(f"{item}\n" for item in categories), encoding="utf-8")
    # A record without its store is of another set, and would be added to this one's.
    kept = record.exists() and store.exists()
    took = Took(**json.loads(record.read_text(encoding="utf-8"))) if kept else Took()
    command = [sys.executable, "-m", "envsynth.cli", "synthesize", "--categories", str(listed), "--count", str(count)]
    command += ["--seed", str(options.seed), "--workers", str(options.workers), "--store", str(store), "--json"]
    command += ["--lineages", str(LINEAGES), "--steps", str(STEPS), "--audit", "leaves"]
    if not quiet:
        print("      envsynth", " ".join(command[3:]), flush=True)
    before = _held(store)
    done = measure(command, quiet=quiet)
    made = _held(store) - before
    if made:
        took.calls += 1
        took.wall_s += done.wall_s
        took.cpu_s += done.cpu_s
        took.peak_bytes = max(took.peak_bytes, done.peak_bytes)
        took.made += made
    record.write_text(json.dumps(asdict(took)), encoding="utf-8")
    if done.code:
        raise SystemExit(f"synthesize ended with {done.code}; the same command goes on from what is stored")
    return json.loads(done.out), took


def _held(path: Path) -> int:
    if not path.exists():
        return 0
    with Store.open(path) as store:
        return len(store.environment_entries())


def _cost(record: Record, took: Took, count: int, *, fast: bool) -> None:
    share = count / ENVIRONMENTS
    whole = took.made == count
    # No processor time: that of jailed workers is not among what the kernel tells of processes that were waited for.
    rate = 60 * took.made / took.wall_s if took.wall_s else 0.0
    told = f"{took.wall_s:,.0f} s in {took.calls} call(s), {rate:,.1f} environments a minute"
    if not whole:
        told = f"{count - took.made} environments were made by others"
    limit = f"<= {LIMIT_S * share:,.0f} s, goal {GOAL_S * share:,.0f} s"
    if fast:
        print(f"      wall time of the command: {told}")  # of six environments, too much is its start
    else:
        record.line("wall time of the command", told, limit, took.wall_s <= LIMIT_S * share if whole else None)
    memory = f"{took.peak_bytes / 2**20:,.0f} MiB" if whole else told
    record.line(
        "greatest memory of all its processes",
        memory,
        "<= 2,048 MiB",
        took.peak_bytes <= LIMIT_BYTES if whole else None,
    )


# ------------------------------------------------------------------------------------------------------------ the set


def structures(spec: EnvironmentSpec) -> tuple[str, str]:
    """Compose a world again; return its structure with and without its interface."""
    composition = ProceduralAuthor.again(spec)[1].composition
    return structure(composition, interface=True), structure(composition, interface=False)


def leaves_of(tasks: Iterable[TaskEntry]) -> list[TaskEntry]:
    """Tasks that no other one was hardened from; a twin neither counts nor makes its parent an ancestor."""
    own = [task for task in tasks if task.kind not in TWINS]
    parents = {task.parent for task in own}
    return [task for task in own if task.hash not in parents]


def _sizes(record: Record, store: Store, count: int, workers: int, *, fast: bool) -> None:
    share = count / ENVIRONMENTS
    entries = store.environment_entries()
    record.line("root environments", f"{len(entries):,}", f"{count:,} of {ENVIRONMENTS:,}", len(entries) == count)
    found = run_all(structures, store.environments(), workers=workers)
    alone, both = len({item[1] for item in found}), len({item[0] for item in found})
    record.at_least("distinct by schema, rules and interface style, share", both / max(1, len(found)), 0.9)
    wanted = math.ceil(DISTINCT * share)
    record.line("distinct by schema and rules alone", f"{alone:,}", f">= {wanted:,} of {count:,}", alone >= wanted)
    for name, values, target in (
        ("median tables", [entry.n_tables for entry in entries], 6),
        ("median tools", [entry.n_tools for entry in entries], 12),
        ("median rows", [entry.n_rows for entry in entries], 200),
    ):
        record.at_least(name, statistics.median(values) if values else None, target)
    leaves = leaves_of(store.task_entries())
    if not fast:
        record.at_least("leaf tasks (no ancestors, no twins)", len(leaves), math.ceil(LEAVES * share), ",")


def _difficulty(record: Record, store: Store, yields: Yields) -> None:
    tasks = store.task_entries()
    leaves, twins = leaves_of(tasks), [task for task in tasks if task.kind in TWINS]
    calls = sorted(
        int(report.evidence("EX201")["calls"]) for report in store.latest_reports([leaf.hash for leaf in leaves])
    )
    record.at_least("gold calls of leaves, median", statistics.median(calls) if calls else None, 8)
    record.at_least("gold calls of leaves, p90", calls[(9 * len(calls) - 1) // 10] if calls else None, 20)
    reports = [*store.latest_reports([leaf.hash for leaf in leaves])]
    whole = sum(report.whole and report.ok for report in reports)
    record.line("leaves that met every gate", f"{whole:,} of {len(leaves):,}", "all", whole == len(leaves) > 0)
    writes = sum(bool(store.task(leaf.hash).oracle.changes) for leaf in leaves)
    record.at_least("share of leaves that write", writes / max(1, len(leaves)), 0.4)
    kinds = Counter(task.kind for task in [*leaves, *twins])
    for kind in typing.get_args(TaskVersion.model_fields["kind"].annotation):
        told = f"{kinds[kind] / max(1, kinds.total()):.1%} ({kinds[kind]:,})"
        record.line(f"class {kind}", told, ">= 3 %", kinds[kind] >= 0.03 * kinds.total())
    depths = [leaf.depth for leaf in leaves]
    record.at_least("accepted hardening steps of a lineage, median", statistics.median(depths) if depths else None, 3)
    ladder = yields.ladder
    for name, rates in (
        ("all versions", [(item.depth, item.passing, item.versions) for item in ladder]),
        ("the deepest lineages alone", [(item.depth, item.deep, 0) for item in ladder if item.deep is not None]),
    ):
        falling = all(later[1] < before[1] for before, later in itertools.pairwise(rates))
        told = ", ".join(f"{depth}: {rate:.1%}" + (f" of {n:,}" if n else "") for depth, rate, n in rates)
        record.line(
            f"ladder pass rate by steps, {name}", told, "falls at each step", falling if len(rates) > 1 else None
        )


# ------------------------------------------------------------------------------------------------------------ the gates


def gate_table(store: Store) -> dict[str, dict[str, int]]:
    """Count results, and whole numbers of the evidence, by gate, over the latest report of every task version.

    What a gate refused is no task version and has no report; how often that was is counted as "refused".
    """
    table = {gate.code: Counter[str]() for gate in all_gates()}
    for report in store.latest_reports([task.hash for task in store.task_entries()]):
        for result in report.results:
            row = table.setdefault(result.code, Counter())
            row[result.status] += 1
            for name in ("killed", "right", "total", "walks", "passed"):
                value = result.evidence.get(name)
                row[name] += value if isinstance(value, int) else 0
            killed = result.evidence.get("killed")
            row["all killed"] += killed is not None and killed == result.evidence.get("total")
    for item in store.refusal_counts():
        if item.stage in ("gates", "ladder"):
            table.setdefault(item.code, Counter())["refused"] += item.count
    return {code: dict(row) for code, row in sorted(table.items())}


def _print_table(table: dict[str, dict[str, int]]) -> None:
    print(
        "      checks by gate, over all task versions; tests are mutants, answers, alternatives or walks inside of it"
    )
    print(
        f"      {'gate':8}{'pass':>9}{'fail':>7}{'void':>7}{'skipped':>9}{'tests':>10}{'as wanted':>11}{'refused':>9}"
    )
    for code, row in table.items():
        counts = [row.get(name, 0) for name in ("pass", "fail", "void", "skipped")]
        wanted, tests = row.get("killed", 0) + row.get("right", 0), row.get("total", 0)
        print(
            f"      {code:8}{counts[0]:>9,}{counts[1]:>7,}{counts[2]:>7,}{counts[3]:>9,}{tests:>10,}{wanted:>11,}"
            f"{row.get('refused', 0):>9,}"
        )
    rows = table.values()
    checks = sum(row.get("pass", 0) + row.get("fail", 0) + row.get("void", 0) for row in rows)
    print(f"      in all {checks:,} checks with {sum(row.get('total', 0) for row in rows):,} tests inside of them")


def audited(store: Store) -> int:
    """Count the task versions that met every gate: ancestors were rehearsed, and have no judgement by most of them."""
    return sum(entry.status == "passed" for entry in store.task_entries())


def _gates(record: Record, table: dict[str, dict[str, int]], versions: int, *, fast: bool) -> None:
    for code, name in (
        ("EX201", "the planner, through tools alone (reward 1)"),
        ("EX202", "the relational oracle agrees"),
        ("VF301", "idle and empty (reward 0)"),
    ):
        passed = table[code].get("pass", 0)
        record.line(name, f"{passed:,} of {versions:,}", "all audited tasks", passed == versions > 0)
    guesses = table["VF302"]
    refused = guesses.get("all killed", 0)
    told = f"{refused:,} of {versions:,}, {guesses['total']:,} answers and walks"
    record.line("constant, echoed and random answers, random walks (reward 0)", told, "all", refused == versions > 0)
    walks, passed = (sum(row.get(name, 0) for row in table.values()) for name in ("walks", "passed"))
    passed += guesses["total"] - guesses["killed"]
    # Rule of three: without a hit in n walks, the share is below 3 / n with 95 % confidence.
    bound = (passed + 3) / walks if walks else 1.0
    if not fast:
        told = f"{passed} of {walks:,}, with 95 % confidence below 1 in {1 / bound:,.0f}"
        record.line("random walks that pass, pooled over the set", told, "< 1 in 64", bound < 1 / 64 if walks else None)
    for code in PER_CLASS:
        row = table[code]
        share = row["killed"] / row["total"] if row.get("total") else None
        told = "no such mutant" if share is None else f"{share:.2%} of {row['total']:,}"
        record.line(f"mutants killed, {code}", told, ">= 98 %", None if share is None else share >= 0.98)
    for code, name in (("VF305", "constraint mutants killed"), ("VF306", "alternative answers accepted")):
        row = table[code]
        told = f"{row['right']:,} of {row['total']:,}"
        record.line(name, told, "100 %", row["right"] == row["total"] if row.get("total") else None)


# ------------------------------------------------------------------------------------------------------ the final audit


def audit_again(work: tuple[EnvironmentSpec, TaskVersion]) -> list[str]:
    """Run all gates on a task with another seed; return the codes that did not pass."""
    spec, task = work
    with Case(spec, task, shared_jail(), seed="final audit") as case:
        report = check(spec, task, case=case)
    return [result.code for result in report.results if result.status not in ("pass", "skipped")]


def _rejected(record: Record, table: dict[str, dict[str, int]], versions: int) -> None:
    """Of the candidates that the planner, the oracle and the ladder let through, the share that the last gates refused."""
    # EX204 is met before the ladder already, by solutions that are too long. The others ask what solvers of the ladder come to,
    # and are met with it, in the rehearsal.
    early = ("EX204", "DF404", "DF407", "DF408")
    codes = [code for code in AFTER_LADDER if code not in early and table.get(code, {}).get("refused")]
    refused = {code: table[code]["refused"] for code in codes}
    candidates = versions + sum(refused.values())
    share = sum(refused.values()) / candidates if candidates else None
    told = f"{share or 0:.2%} of {candidates:,}" + (f": {refused}" if refused else "")
    record.line(
        "rejected at the final audit, while the set was made", told, "< 2 %", None if share is None else share < 0.02
    )


def _final_audit(record: Record, store: Store, size: int, workers: int) -> None:
    leaves = leaves_of(store.task_entries())
    chosen = random.Random("final audit").sample(leaves, min(size, len(leaves)))
    pairs = [(store.environment(leaf.environment), store.task(leaf.hash)) for leaf in chosen]
    found = run_all(audit_again, pairs, workers=workers)
    codes = Counter(code for item in found for code in item)
    bad = sum(bool(item) for item in found)
    told = f"{bad} of {len(found)}" + (f": {dict(codes)}" if codes else "")
    share = bad / len(found) if found else None
    record.line(
        "rejected at the final audit, other seed, sampled leaves",
        told,
        "< 2 %",
        None if share is None else share < 0.02,
    )


# ----------------------------------------------------------------------------------------------------------------- main


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help=f"{FAST} environments, lines that do not need a large set")
    parser.add_argument("--environments", type=int, help=f"in place of {ENVIRONMENTS}; targets scale")
    parser.add_argument("--store", type=Path, help="keep the set here, and resume it")
    parser.add_argument("--out", type=Path, help="write the results there, as JSON")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="leaves of the final audit")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for name in ("environments", "sample", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main() -> int:
    """Print the lines."""
    options = options_of()
    count = options.environments or (FAST if options.fast else ENVIRONMENTS)
    if count != ENVIRONMENTS:
        print(f"      {count:,} of {ENVIRONMENTS:,} environments: targets of counts and time are scaled")
    record = Record()
    with tempfile.TemporaryDirectory() as folder:
        path = (options.store or Path(folder, "set.db")).resolve()
        result, took = synthesize(path, count, options)
        again, _ = synthesize(path, count, options, quiet=True)
        same = again["resumed"] == count and again["tasks"] == result["tasks"]
        record.line("the same command again makes nothing and tells the same", same, "True", same)
        _cost(record, took, count, fast=options.fast)
        with Store.open(path, readonly=True) as store:
            yields = stored_yields(store)
            table = gate_table(store)
            _sizes(record, store, count, options.workers, fast=options.fast)
            if not options.fast:
                _difficulty(record, store, yields)
            _print_table(table)
            _gates(record, table, audited(store), fast=options.fast)
            if not options.fast:
                _rejected(record, table, audited(store))
            _final_audit(record, store, FAST // 2 if options.fast else options.sample, options.workers)
    not_run = [line["name"] for line in record.lines if line["result"] == "NOT RUN"]
    if not_run:
        print(f"      not run: {', '.join(not_run)}")
    if options.out is not None:
        results = {
            "machine": machine(),
            "envsynth": __version__,
            "date": datetime.now(UTC).date().isoformat(),
            "environments": count,
            "seed": options.seed,
            "workers": options.workers,
            "took": asdict(took),
            "lines": record.lines,
            "checks": table,
            "yields": asdict(yields),
        }
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 1 if not_run else record.claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
