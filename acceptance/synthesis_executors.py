"""Executors: serial, pool of processes, Ray, killed and resumed runs, and PostgreSQL give the same data set and rows.

Each run is the command line in a process of its own with a store of its own. A data set is compared by the hash that the
command prints, and by all rows: environments, tasks, reports and refusals with run and unit, each record read back and
checked against its hash. `kill -9` hits the whole process group of a run, workers included, at a random moment
of its start or of one of the next units; the same command is given again until it ends.

What cannot run here (Ray or a PostgreSQL server not installed) is NOT RUN: counted apart, and the script does not pass.
Full: 6 environments of tier full, five kills. `--fast`: 6 of tier nano, serial and pool and one kill.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from acceptance.postgres_server import programs, server
from envsynth.store import Store

SEED = "executors"
KILLS = 5
COUNT = 6
TIERS = {
    True: ["small tables", "--tier", "nano", "--lineages", "4"],
    False: ["booking laboratory equipment", "--lineages", "1", "--steps", "2"],
}


@dataclass
class Runs:
    """Runs of the same units in different ways."""

    fast: bool
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def start(self, store: str, *options: str) -> subprocess.Popen[str]:
        """Start the command line in a process group of its own."""
        command = [sys.executable, "-m", "envsynth.cli", "synthesize", *TIERS[self.fast], "--count", str(COUNT)]
        command += ["--seed", "5", "--db", store, "--json", *options]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=dict(os.environ),
        )

    def whole(self, name: str, store: str, *options: str) -> dict[str, Any]:
        """Run to the end; return what it prints.

        Raises:
            SystemExit: it failed.
        """
        began = time.monotonic()
        process = self.start(store, *options)
        out, err = process.communicate()
        self.seconds[name] = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{name}: synthesize ended with {process.returncode}: {err[-2000:]}")
        return json.loads(out)

    def killed(self, store: str, kills: int, chance: random.Random) -> tuple[dict[str, Any], list[str]]:
        """Kill the run so many times at random moments of random units; then let it end."""
        told: list[str] = []
        unit_s = self.seconds["pool"] / COUNT
        for _ in range(kills):
            wanted = min(units_done(store) + chance.randint(0, 1), COUNT - 1)
            process = self.start(store, "--workers", "2")
            while units_done(store) < wanted and process.poll() is None:
                time.sleep(0.1)
            time.sleep(chance.uniform(0, 2) * unit_s)
            finished = process.poll() is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            told.append("after its end" if finished else f"with {units_done(store)} of {COUNT} units done")
        return self.whole("killed", store, "--workers", "2"), told


def units_done(store: str) -> int:
    """Units that a store holds; 0 when the run did not come to making it."""
    if not Path(store).exists() or not Path(store).stat().st_size:
        return 0
    with Store.open(store) as opened:  # writing, because a killed run may have left the tables half made
        return sum(run.n_units for run in opened.runs())


def rows(store: str) -> Counter[str]:
    """Everything that a store holds, each record checked against its hash, with how often it is there."""
    found = Counter[str]()
    with Store.open(store, readonly=True) as opened:
        found.update(f"environment {item.hash}" for item in opened.environments())
        found.update(f"task {item.hash}" for item in opened.tasks())
        for entry in opened.task_entries():
            found.update(f"report {item.hash}" for item in opened.reports(entry.hash))
        for run in opened.runs():
            found.update(f"rejection {run.key} {item.hash}" for item in opened.rejections(run=run.key))
            found.update(f"unit {run.key} {unit}" for unit in opened.units(run.key))
            found[f"run {run.key} {run.finished}"] += 1
    return found


def compare(
    claims: Claims, name: str, made: dict[str, Any], store: str, first: dict[str, Any], want: Counter[str]
) -> None:
    """Print the lines of one way to run."""
    claims.line(f"{name}: hash of the data set", made["dataset"], first["dataset"], made["dataset"] == first["dataset"])
    have = rows(store)
    missing, surplus = want - have, have - want
    claims.line(
        f"{name}: rows of all kinds, each once",
        f"{have.total()}, {missing.total()} missing, {surplus.total()} too many",
        f"{want.total()}, 0, 0",
        not missing and not surplus,
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="tier nano, one kill, neither Ray nor PostgreSQL")
    fast = parser.parse_args().fast
    claims, idle = Claims(), list[str]()
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(fast, Path(name))
        path = str(runs.folder / "serial.db")
        first = runs.whole("serial", path, "--executor", "serial")
        want = rows(path)
        n_units = sum(line.startswith("unit") for line in want)
        claims.line("serial: units, and tasks in them", f"{n_units}, {len(first['tasks'])}", f"{COUNT}, >= {COUNT}",
                    n_units == COUNT <= len(first["tasks"]))  # fmt: skip
        path = str(runs.folder / "pool.db")
        compare(claims, "pool of 2", runs.whole("pool", path, "--workers", "2"), path, first, want)
        kills = 1 if fast else KILLS
        path = str(runs.folder / "killed.db")
        made, told = runs.killed(path, kills, random.Random(SEED))
        compare(claims, f"{kills} x kill -9 and resumed", made, path, first, want)
        print(f"      killed {', '.join(told)}")
        hit = sum(not text.startswith("after") for text in told)
        claims.line("kills that hit a running process", f"{hit} of {kills}", ">= 1", hit >= 1)
        if not fast:
            idle = _others(runs, claims, first, want)
    times = ", ".join(f"{name} {seconds:.0f}" for name, seconds in runs.seconds.items())
    print(f"      seconds: {times}")
    if idle:
        print(f"      {len(idle)} NOT RUN: {', '.join(idle)}")
    return 1 if idle else claims.exit_code()


def _others(runs: Runs, claims: Claims, first: dict[str, Any], want: Counter[str]) -> list[str]:
    """Ray and PostgreSQL, where they are installed; return what did not run."""
    idle: list[str] = []
    if importlib.util.find_spec("ray") is None:
        idle.append(_not_run("Ray", "pip install 'envsynth[ray]'"))
    else:
        path = str(runs.folder / "ray.db")
        made = runs.whole("ray", path, "--executor", "ray", "--workers", "2")
        compare(claims, "Ray", made, path, first, want)
    if importlib.util.find_spec("psycopg") is None or programs() is None:
        idle.append(_not_run("PostgreSQL", "pip install 'envsynth[postgres]', and the programs of a server"))
        return idle
    with server() as running:
        url = running.new_database("one")
        compare(claims, "PostgreSQL", runs.whole("postgresql", url, "--workers", "2"), url, first, want)
        # Two writers with the same command: both make what is missing, each unit is stored once.
        url = running.new_database("two")
        began = time.monotonic()
        pair = [runs.start(url, "--workers", "1") for _ in range(2)]
        ended = [process.communicate() for process in pair]
        runs.seconds["two writers"] = time.monotonic() - began
        claims.line("PostgreSQL, two writers at once: exit codes", [item.returncode for item in pair], "[0, 0]",
                    not any(item.returncode for item in pair))  # fmt: skip
        if not any(item.returncode for item in pair):
            compare(claims, "PostgreSQL, two writers at once", json.loads(ended[0][0]), url, first, want)
        else:
            print("\n".join(err[-1000:] for _, err in ended))
    return idle


def _not_run(name: str, wanted: str) -> str:
    print(f"NOT RUN  {name}: {wanted}")
    return name


if __name__ == "__main__":
    raise SystemExit(main())
