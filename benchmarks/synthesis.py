"""What synthesis costs, and how fast its environments step: `python -m benchmarks.synthesis [--peers PYTHON] [--out FILE]`.

Tuples (environment, tools, task, verifier) per core second, by the wall time of one process and the jailed workers that it
waits for: the kernel's account of processor time leaves out workers that nobody waited for. Then calls per second of the
same solution in one environment: ours, the same tools on plain SQLite in memory without any jail, an MCP server over stdio,
and OpenEnv's WebSocket. The peers run in the interpreter that `--peers` names:

    python -m venv peers && peers/bin/pip install mcp openenv-core

Clients and servers share one processor and take turns; nobody resets between two replays, so writes are refused from the
second one on, in all of them alike. The first replay must return the same everywhere, or nothing is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acceptance.process_tree import measure
from acceptance.synthesis_diversity import CATEGORIES
from benchmarks import peer_servers
from benchmarks.jail import machine, oracle_actions
from envsynth import __version__
from envsynth.delivery import AS_IT_IS
from envsynth.environments import build_image, make_env
from envsynth.environments.making import vector_of
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskQuery

PEERS = {"mcp": "MCP server over stdio", "openenv": "OpenEnv over its WebSocket"}
SLOTS = 64
START_S = 120
"""Seconds that a peer may take to start and to replay once."""

Rate = Callable[[float], float]


def tuples(store: Path, count: int, seed: int) -> dict[str, float]:
    """Make environments of as many categories, in one process and its jail, and say what each costs.

    Raises:
        SystemExit: synthesis failed.
    """
    listed = store.with_suffix(".txt")
    listed.write_text("".join(f"{item}\n" for item in CATEGORIES[:count]), encoding="utf-8")
    command = [sys.executable, "-m", "envsynth.cli", "synthesize", "--categories", str(listed), "--count", str(count)]
    command += ["--lineages", "3", "--seed", str(seed), "--workers", "1", "--store", str(store), "--json"]
    found = measure(command, quiet=True)
    if found.code:
        raise SystemExit(f"synthesize ended with {found.code}")
    with Store.open(store, readonly=True) as opened:
        versions, leaves = len(opened.task_entries()), len(opened.task_entries(TaskQuery(leaves_only=True)))
    return {
        "environments": count,
        "task versions": versions,
        "leaf tasks": leaves,
        "wall, s": found.wall_s,
        "task versions per core second": versions / found.wall_s,
        "leaf tasks per core second": leaves / found.wall_s,
        "core seconds per environment": found.wall_s / count,
        "greatest memory, MiB": found.peak_bytes / 2**20,
    }


def chosen(store: Path) -> tuple[EnvironmentSpec, TaskVersion]:
    """Take an environment with a number of rows near the median, and its plain leaf with the longest lineage.

    Plain: without limited calls, which end at the limit, without planted faults and a user, which peers do not have.

    Raises:
        SystemExit: no environment has one.
    """
    with Store.open(store, readonly=True) as opened:
        entries = sorted(opened.environment_entries(), key=lambda item: item.n_rows)
        middle = entries[len(entries) // 2].n_rows
        for entry in sorted(entries, key=lambda item: abs(item.n_rows - middle)):
            tasks = opened.tasks(environment=entry.hash, leaves_only=True)
            plain = [task for task in tasks if task.delivery == AS_IT_IS and not task.faults]
            if plain:
                return opened.environment(entry.hash), max(plain, key=lambda task: task.lineage.depth)
    raise SystemExit("no environment has a plain task: make more with --count")


# -------------------------------------------------------------------------------------------------------------- players


def counted(replay: Callable[[], int]) -> Rate:
    """Make a rate of something that says how many calls it did."""

    def rate(seconds: float) -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += replay()
        return done / (time.perf_counter() - began)

    return rate


@contextlib.contextmanager
def ours(jail: Jail, spec: EnvironmentSpec, task: TaskVersion, steps: list[str]) -> Iterator[dict[str, Rate]]:
    """Our environment, one at a time and many together; both check arguments, count turns and contain the tools."""
    alone = make_env(spec, task, jail=jail, max_turns=10**9)
    together = vector_of(SLOTS, spec, [task], jail=jail, max_turns=10**9)
    for env in (alone, together):
        env.reset(seed=1)

    def one() -> int:
        for action in steps:
            alone.step(action)
        return len(steps)

    def many() -> int:
        for action in steps:
            together.step([action] * SLOTS)
        return SLOTS * len(steps)

    try:
        yield {"envsynth, one environment": counted(one), f"envsynth, {SLOTS} together": counted(many)}
    finally:
        alone.close()
        together.close()


@contextlib.contextmanager
def peer(python: str, kind: str, world: Path, wanted: str) -> Iterator[tuple[Rate, str]]:
    """A peer's client in its own interpreter, with its version.

    Raises:
        LookupError: it cannot run there, or its first replay returned something else; the message says why.
    """
    command = [python, str(Path(peer_servers.__file__).resolve()), "client", kind, str(world)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryFile("w+") as complaints:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
            )
        except OSError as error:
            raise LookupError(f"cannot start {python}: {error.strerror}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                process.wait(START_S)
                complaints.seek(0)
                raise LookupError(complaints.read().strip().rpartition("\n")[2] or f"ended with {process.returncode}")
            hello = json.loads(line)
            if hello["returned"] != wanted:
                raise LookupError("its calls returned something else than the tools in this process")
            stdin, stdout = process.stdin, process.stdout

            def rate(seconds: float) -> float:
                stdin.write(f"{seconds}\n")
                stdin.flush()
                return float(stdout.readline())

            yield rate, hello["version"]
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def steps_per_second(
    jail: Jail, spec: EnvironmentSpec, task: TaskVersion, folder: Path, python: str, seconds: int
) -> dict[str, Any]:
    """Let all players take turns of a second."""
    actions = [json.loads(action) for action in oracle_actions(jail, spec, task)[:-1]]
    path = folder / "world.json"
    tools = [{"name": tool.name, "parameters": tool.parameters, "source": tool.source} for tool in spec.tools]
    image = build_image(jail, spec.world)
    path.write_text(json.dumps({"image": image.hex(), "tools": tools, "steps": actions}), encoding="utf-8")
    world = peer_servers.World(str(path))
    calls = [(action["tool"], action["arguments"]) for action in actions]
    wanted = peer_servers.digest([world.call(*call) for call in calls])
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        players = stack.enter_context(ours(jail, spec, task, [json.dumps(action) for action in actions]))
        players["plain SQLite in this process"] = counted(lambda: len([world.call(*call) for call in calls]))
        for kind, name in PEERS.items():
            try:
                players[name], versions[name] = stack.enter_context(peer(python, kind, path, wanted))
            except LookupError as reason:
                missing[name] = str(reason)
        turns: dict[str, list[float]] = {name: [] for name in players}
        for rate in players.values():
            rate(0.3)
        for _ in range(seconds):
            for name, rate in players.items():
                turns[name].append(rate(1.0))
    return {
        "solution, calls": len(calls),
        "image, bytes": len(image),
        "per_second": {name: statistics.median(found) for name, found in turns.items()},
        "per_second_quiet": {name: max(found) for name, found in turns.items()},
        "versions": versions,
        "not_measured": missing,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peers", default=sys.executable, help="interpreter with mcp and openenv-core")
    parser.add_argument("--count", type=int, default=6, help="environments to make")
    parser.add_argument("--seconds", type=int, default=10, help="turns of a second of each player")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = tuples(folder / "made.db", options.count, options.seed)
        spec, task = chosen(folder / "made.db")
        # Every process from here on shares one processor, as a synchronous loop with its server does best.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with Jail(pin=min(os.sched_getaffinity(0))) as jail:
            played = steps_per_second(jail, spec, task, folder, options.peers, options.seconds)
    record = {
        "machine": machine(),
        "envsynth": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "synthesis": made,
        "environment": {"tools": len(spec.tools), "rows": sum(map(len, spec.world.rows.values()))},
        "steps": played,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
