"""What the jail costs, beside what others pay: `python -m benchmarks.jail [--out FILE]`.

All on one processor, this process included: a synchronous loop is fastest there. Calls are medians; rates are counted over
some seconds. The environments are those of "planning a travel itinerary", seed 1; the one of median size is played.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers
from envsynth.actors import OracleActor
from envsynth.environments import build_image, make_env
from envsynth.environments.making import vector_of
from envsynth.rollout import play
from envsynth.sandbox import Family, Jail, Source, Worker
from envsynth.sandbox.requests import call, hold_image, open_held, open_image
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store

CATEGORY = "planning a travel itinerary"
TOOLS = """
def echo(x):
    return x

def fill(db, rows):
    db.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, note TEXT)")
    for number in range(rows):
        db.execute("INSERT INTO people VALUES (?, ?, ?)", (number, f"name {number}", f"a note that is a bit longer {number}"))

def get(db, id):
    return db.execute("SELECT * FROM people WHERE id = ?", (id,)).fetchone()

def rename(db, id):
    db.execute("UPDATE people SET name = 'another' WHERE id = ?", (id,))
"""
ROWS = 1_900
"""Rows of a database image of about 100 KB."""


def median_us(function: Callable[[], object], count: int) -> float:
    """Median time of one call, after some to warm up, microseconds."""
    for _ in range(max(3, count // 20)):
        function()
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


BLOCK, WARM_UP = 50, 10


def by_turns(
    functions: dict[str, Callable[[], object]], count: int, first: dict[str, Callable[[], object]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Time functions that take turns in blocks of calls, of which the first ones only warm up.

    Args:
        functions: What to time.
        count: Calls of each.
        first: What to do before each call of some of them, not timed.

    Returns:
        Medians over all calls, and over the calls of the quietest block, microseconds: other tenants of a virtual machine
        slow it down for seconds at a time, by a factor of two.
    """
    blocks: dict[str, list[list[float]]] = {name: [] for name in functions}
    for _ in range(count // (BLOCK - WARM_UP)):
        for name, function in functions.items():
            times: list[float] = []
            prepare = first.get(name, int)
            for _ in range(BLOCK):
                prepare()
                began = time.perf_counter()
                function()
                times.append(time.perf_counter() - began)
            blocks[name].append(times[WARM_UP:])
    medians = {name: statistics.median(itertools.chain(*found)) * 1e6 for name, found in blocks.items()}
    return medians, {name: min(map(statistics.median, found)) * 1e6 for name, found in blocks.items()}


def per_second(function: Callable[[], int], seconds: float) -> float:
    """Count what the function says that it did."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += function()
    return done / (time.perf_counter() - began)


def rates(functions: dict[str, Callable[[], int]], seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Count what functions do that take turns of a second.

    Returns:
        Medians over the turns, and the best turns, per second.
    """
    turns: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(round(seconds)):
        for name, function in functions.items():
            turns[name].append(per_second(function, 1.0))
    return {name: statistics.median(found) for name, found in turns.items()}, {
        n: max(found) for n, found in turns.items()
    }


# ------------------------------------------------------------------------------------------------------------ ours


def calls(jail: Jail, count: int) -> dict[str, dict[str, float]]:
    """What calls cost others and us, and what resets and fresh workers cost us, microseconds.

    Ours and others take turns in blocks, so that a machine whose speed drifts is as slow for one as for the other.
    """
    family = Family("tools", (Source(name="tools", text=TOOLS),))
    theirs: dict[str, peers.Call] = {
        "a loop of ten thousand additions": lambda: sum(range(10_000)),
        "plain call in this process": lambda: json.loads(json.dumps(peers.echo(json.loads("1")))),
    }
    with contextlib.ExitStack() as stack:
        theirs["raw socket pair and JSON"] = stack.enter_context(peers.raw_pair())
        theirs["the same, forked from this process"] = stack.enter_context(peers.forked_pair())
        theirs["multiprocessing.Pool"] = stack.enter_context(peers.pool())
        wrapped = peers.bubblewrap()
        if wrapped is not None:
            theirs["bubblewrap, one process for all calls"] = stack.enter_context(peers.wrapped(wrapped))
        worker = stack.enter_context(jail.ready_worker(family))
        worker.open(b"", "main")
        worker.call("fill", {"rows": ROWS}, databases=("main",))
        image = worker.image("main").blob
        worker.run([hold_image("key", image), open_held("main", "key")])
        echoes = [call("echo", {"x": number}) for number in range(64)]
        queries = [call("get", {"id": number}, "main") for number in range(64)]
        ours: dict[str, peers.Call] = {
            "call": lambda: worker.call("echo", {"x": 1}),
            "call with a query": lambda: worker.call("get", {"id": 77}, databases=("main",)),
            "64 calls in a batch": lambda: worker.run(echoes),
            "64 calls with a query in a batch": lambda: worker.run(queries),
            "reset of the image": lambda: worker.run([open_held("main", "key")]),
            "reset of the image, a row changed": lambda: worker.run([open_held("main", "key")]),
        }
        change = [call("rename", {"id": 77}, "main")]
        first: dict[str, peers.Call] = {"reset of the image, a row changed": lambda: worker.run(change)}
        found, quiet = by_turns({**theirs, **ours}, count, first)
    others = {name: found[name] for name in theirs}
    with peers.slow_peers() as slow:
        others |= {name: median_us(function, max(5, count // 100)) for name, function in slow.items()}
    fresh_us, fresh_quiet = fresh(jail, family, image, count // 20)

    def each(times: dict[str, float]) -> dict[str, float]:
        return {name.replace("64 calls", "call"): times[name] / (64 if name.startswith("64") else 1) for name in ours}

    return {
        "others_us": others,
        "others_quiet_us": {name: quiet[name] for name in theirs},
        "calls_us": {"image, bytes": len(image), **each(found), **fresh_us},
        "calls_quiet_us": {**each(quiet), **fresh_quiet},
    }


def fresh(jail: Jail, family: Family, image: bytes, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """A new process with its tools and database, ready and called once.

    From a full pool whose workers have the database open, from one whose workers have only the tools, and when all are in
    use and processes must be forked first.
    """
    with_database = dataclasses.replace(family, image=image)

    def episode(opened: bool = True) -> Worker:
        worker = jail.ready_worker(with_database if opened else family, idle=64)
        requests = (
            [call("get", {"id": 7}, "main")] if opened else [open_image("main", image), call("get", {"id": 7}, "main")]
        )
        results = worker.run(requests)
        if not results[-1].ok:
            raise SystemExit(f"a fresh worker failed: {results[-1]}")
        return worker

    def pooled(opened: bool) -> list[list[float]]:
        blocks: list[list[float]] = []
        while sum(map(len, blocks)) < count:
            jail.fill(with_database if opened else family, 64)
            time.sleep(0.8)  # until the pool is full again: 64 forks take half a second or more
            used: list[Worker] = []
            times: list[float] = []
            for _ in range(24):
                began = time.perf_counter()
                used.append(episode(opened))
                times.append(time.perf_counter() - began)
            for worker in used:
                worker.close()
            blocks.append(times)
        return blocks

    found = {
        "fresh episode from the pool": pooled(opened=True),
        "fresh episode from the pool, database sent": pooled(opened=False),
    }
    sustained = per_second(lambda: (episode().close(), 1)[1], 2.0)
    medians = {name: statistics.median(itertools.chain(*blocks)) * 1e6 for name, blocks in found.items()}
    quiet = {name: min(map(statistics.median, blocks)) * 1e6 for name, blocks in found.items()}
    return {**medians, "fresh episodes without a pause": 1e6 / sustained}, quiet


def median_environment(store: Path | None, count: int) -> tuple[EnvironmentSpec, TaskVersion, dict[str, Any]]:
    """Make environments, and take the one whose world has the median number of rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = store or Path(folder, "bench.db")
        if store is None:
            command = [
                sys.executable,
                "-m",
                "envsynth.cli",
                "synthesize",
                CATEGORY,
                "--count",
                str(count),
                "--seed",
                "1",
            ]
            subprocess.run(
                [*command, "--store", str(path), "--workers", "2", "--json"], check=True, capture_output=True
            )
        with Store.open(path, readonly=True) as opened:
            specs = sorted(opened.environments(), key=lambda spec: sum(map(len, spec.world.rows.values())))
            spec = specs[len(specs) // 2]
            tasks = sorted(
                (task for task in opened.tasks() if task.environment == spec.hash), key=lambda task: task.hash
            )
    rows = sum(map(len, spec.world.rows.values()))
    return spec, tasks[0], {"environments": len(specs), "rows": rows, "tools": len(spec.tools)}


def oracle_actions(jail: Jail, spec: EnvironmentSpec, task: TaskVersion) -> list[str]:
    """What the solution does, as actions.

    Raises:
        SystemExit: it failed.
    """
    actor = OracleActor({task.hash: task}, jail)
    trajectory = play(spec, task, actor, jail=jail)
    actor.close()
    if trajectory.reward != 1.0:
        raise SystemExit(f"the oracle failed: {trajectory.verdict}")
    return [turn.action for turn in trajectory.turns]


def whole(  # noqa: C901 - a list of what is measured
    jail: Jail, spec: EnvironmentSpec, task: TaskVersion, seconds: float
) -> dict[str, dict[str, float]]:
    """Steps and episodes per second of whole environments, one at a time and 64 together.

    Episodes end in three ways: cut off after ten turns, judged after one call, judged after the whole solution. The 64
    that are judged together end alike, so that their differences are worked out once; each has a verdict of its own.
    """
    actions = oracle_actions(jail, spec, task)
    steps, answer = actions[:-1], actions[-1]
    alone = make_env(spec, task, jail=jail, max_turns=10**9)
    together = vector_of(64, spec, [task], jail=jail, max_turns=10**9)
    stepped = vector_of(64, spec, [task], jail=jail, max_turns=10**9)
    ten = vector_of(64, spec, [task], jail=jail, max_turns=10)

    def replay() -> int:
        for action in steps:
            alone.step(action)
        return len(steps)

    def step_all() -> int:
        for action in steps:
            stepped.step([action] * 64)
        return 64 * len(steps)

    def cut_off() -> int:
        ended = [bool(ten.step([action] * 64)[3].all()) for action in (steps * 10)[:10]]
        if not ended[-1]:
            raise SystemExit("ten turns did not end an episode of ten turns")
        ten.step([answer] * 64)  # resets; the action is ignored
        return 64

    def one_call() -> int:
        together.step([steps[0]] * 64)
        ended = together.step([answer] * 64)[2]
        together.step([answer] * 64)
        return int(ended.sum())

    def solved() -> int:
        for action in steps:
            together.step([action] * 64)
        rewards = together.step([answer] * 64)[1]
        if list(rewards) != [1.0] * 64:
            raise SystemExit(f"a replayed solution failed: {rewards}")
        together.step([answer] * 64)
        return 64

    functions: dict[str, Callable[[], int]] = {
        "ToolEnv, steps": replay,
        "ToolEnv, resets": lambda: (alone.reset(seed=1), 1)[1],
        "64 together, steps": step_all,
        "plain SQLite in this process, steps": plain_steps(jail, spec, steps),
        "64 together, episodes of ten calls": cut_off,
        "64 together, episodes of one call and a judged answer": one_call,
        "64 together, whole solutions": solved,
    }
    for env in (alone, together, ten, stepped):
        env.reset(seed=1)
    medians, best = rates(functions, seconds)
    for env in (alone, together, ten, stepped):
        env.close()
    size = len(build_image(jail, spec.world))
    return {
        "solution": {"calls": len(steps), "image, bytes": size},
        "per_second": medians,
        "per_second_quiet": best,
    }


def plain_steps(jail: Jail, spec: EnvironmentSpec, steps: list[str]) -> Callable[[], int]:
    """The same tools on the same database without any jail, environment or checks: trusted code only."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(build_image(jail, spec.world))
    db.row_factory = lambda cursor, row: {column[0]: cell for column, cell in zip(cursor.description, row, strict=True)}

    class Refusal(Exception):
        pass

    tools: dict[str, Any] = {}
    for tool in spec.tools:
        space: dict[str, Any] = {"Refusal": Refusal}
        exec(tool.source, space)  # noqa: S102 - sources of our own author, timed without a jail
        tools[tool.name] = space[tool.name]

    def replay() -> int:
        for text in steps:
            action = json.loads(text)
            try:
                json.dumps(tools[action["tool"]](db, **action["arguments"]))
            except Refusal:
                continue
        return len(steps)

    return replay


def machine() -> dict[str, Any]:
    """What this ran on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--store", type=Path, help="a store with environments, made before")
    parser.add_argument("--count", type=int, default=10, help="environments to make without a store")
    parser.add_argument("--repeats", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each rate, in turns of one second")
    options = parser.parse_args()
    spec, task, chosen = median_environment(options.store, options.count)
    with Jail(pin=0) as jail:
        record = {
            "machine": machine(),
            "layers": jail.layers,
            **calls(jail, options.repeats),
            "environment": chosen,
            **whole(jail, spec, task, options.seconds),
        }
    text = json.dumps(record, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
