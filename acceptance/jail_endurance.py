"""Claims: a thousand living environments fit into 4 GiB; millions of steps leave memory, descriptors and processes alone.

Full: 10 million steps. `--fast`: 100 environments and 100,000 steps.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

from acceptance.claims import Claims
from benchmarks.jail import median_environment, oracle_actions
from envsynth.environments import make_env
from envsynth.environments.making import vector_of
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion

SLOTS = 64
LIMIT_MB = 4096
GROWTH_MB = 32
"""Growth that is no leak: caches that fill, memory that the allocators keep."""


@dataclass(frozen=True)
class Use:
    """What this process and all below it use."""

    memory_mb: float
    """Proportional share of memory, so that pages shared with the zygote count once."""
    descriptors: int
    processes: int


def used() -> Use:
    """Measure this process and its descendants."""
    gc.collect()
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").glob("[0-9]*")}
    family, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    memory = sum(_share_kb(pid) for pid in family) / 1024
    return Use(memory, len(list(Path("/proc/self/fd").iterdir())), len(family))


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return -1


def _share_kb(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def living(
    claims: Claims, jail: Jail, spec: EnvironmentSpec, task: TaskVersion, count: int, actions: list[str]
) -> None:
    """Keep many environments alive at once, each in the middle of an episode, in both modes of reset."""
    for mode in ("reload", "fork"):
        before = used()
        if mode == "reload":
            vector = vector_of(count, spec, [task], jail=jail, max_turns=10**6)
            vector.reset(seed=1)
            vector.step([actions[0]] * count)
            after = used()
            vector.close()
        else:
            envs = [make_env(spec, task, jail=jail, reset_mode="fork", max_turns=10**6) for _ in range(count)]
            for env in envs:
                env.reset(seed=1)
                env.step(actions[0])
            after = used()
            for env in envs:
                env.close()
        extra = f"{after.processes - before.processes} processes more"
        claims.line(
            f"{count} living environments, reset by {mode} ({extra})",
            f"{after.memory_mb - before.memory_mb:.0f} MiB more, {after.memory_mb:.0f} in all",
            f"<= {LIMIT_MB} MiB",
            after.memory_mb <= LIMIT_MB,
        )


def endure(
    claims: Claims, jail: Jail, spec: EnvironmentSpec, task: TaskVersion, wanted: int, actions: list[str]
) -> None:
    """Play whole solutions until enough steps are made, and compare what is used early with what is used at the end.

    Raises:
        SystemExit: nothing was played.
    """
    envs = vector_of(SLOTS, spec, [task], jail=jail, max_turns=10**6)
    steps, rewards, early = 0, 0, None
    began = time.monotonic()
    while steps < wanted:
        envs.reset(seed=steps)
        for action in actions:
            result = envs.step([action] * SLOTS)
            steps += SLOTS
        rewards += int(result[1].sum())
        if early is None and steps >= wanted // 10:
            early = used()
    late = used()
    envs.close()
    episodes = steps // len(actions)
    print(f"      {steps} steps, {episodes} episodes in {time.monotonic() - began:.0f} s; {early} -> {late}")
    if early is None:
        raise SystemExit("nothing was played")
    claims.line("episodes with reward 1", f"{rewards} of {episodes}", "all", rewards == episodes)
    grown = late.memory_mb - early.memory_mb
    claims.line("growth of memory after the first tenth", f"{grown:.1f} MiB", f"<= {GROWTH_MB} MiB", grown <= GROWTH_MB)
    claims.line(
        "descriptors",
        f"{early.descriptors} -> {late.descriptors}",
        "+- 8",
        abs(late.descriptors - early.descriptors) <= 8,
    )
    claims.line(
        "processes", f"{early.processes} -> {late.processes}", "+- 8", abs(late.processes - early.processes) <= 8
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--steps", type=int, default=0, help="steps instead of the usual number")
    options = parser.parse_args()
    spec, task, _ = median_environment(options.store, 2 if options.fast else 10)
    claims = Claims()
    with Jail(pin=0) as jail:
        actions = oracle_actions(jail, spec, task)
        living(claims, jail, spec, task, 100 if options.fast else 1_000, actions)
        endure(claims, jail, spec, task, options.steps or (100_000 if options.fast else 10_000_000), actions)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
