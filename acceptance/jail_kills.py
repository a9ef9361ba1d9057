"""Claim: whatever is killed and whenever, an episode ends right or VOID; no wrong reward, no long stall.

64 slots play solutions and failures, whose rewards are known, while a thread kills workers of tools, verifiers and idle
ones, and now and then the zygote. Full: 100,000 steps. `--fast`: 20,000.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from acceptance.claims import Claims
from benchmarks.jail import median_environment, oracle_actions
from envsynth.environments import ToolVectorEnv, make_env
from envsynth.environments.hosts import WorldHosts
from envsynth.environments.making import vector_of
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion

SLOTS = 64
STALL_S = 3.0
ENOUGH = 20
"""Kills without which the claim would say little."""


class Killer(threading.Thread):
    """Kills random workers of a jail until it is stopped."""

    def __init__(self, jail: Jail, seed: int) -> None:
        super().__init__(daemon=True)
        self._jail = jail
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        """Kill, until `stop` is called."""
        while not self._stopped.wait(self._random.expovariate(1 / 0.2)):
            if self._random.random() < 0.02:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._jail._zygote.pid, signal.SIGKILL)
                self.killed["zygote"] += 1
                continue
            workers = [worker for worker in list(self._jail._workers) if worker.alive]
            if workers:
                worker = self._random.choice(workers)
                with contextlib.suppress(OSError):  # it has just been closed
                    worker._process.kill()
                self.killed[worker.role] += 1

    def stop(self) -> None:
        """End the killing."""
        self._stopped.set()
        self.join()


def judged(jail: Jail, spec: EnvironmentSpec, task: TaskVersion, actions: list[str]) -> float:
    """Play actions with nothing killed; return the reward."""
    env = make_env(spec, task, jail=jail, max_turns=10**6)
    env.reset(seed=1)
    reward = [float(env.step(action)[1]) for action in actions][-1]
    env.close()
    return reward


@dataclass
class Tally:
    """What happened."""

    steps: int = 0
    longest_s: float = 0.0
    wrong: int = 0
    ends: Counter[str] = field(default_factory=Counter)


def play(
    envs: ToolVectorEnv, plans: list[list[str]], expected: list[float], wanted: int, seed: int, killer: Killer
) -> Tally:
    """Play plans in all slots until enough steps are made and enough was killed, however fast the machine is.

    Slots reset themselves in the step after an end.
    """
    rng = random.Random(seed)
    tally = Tally()
    ended = [True] * SLOTS
    plan, place = [0] * SLOTS, [0] * SLOTS
    first = True
    while tally.steps < wanted or killer.killed.total() < ENOUGH:
        actions = [plans[plan[slot]][min(place[slot], len(plans[plan[slot]]) - 1)] for slot in range(SLOTS)]
        began = time.monotonic()
        _, rewards, terminations, truncations, _ = envs.step(actions)
        tally.longest_s = max(tally.longest_s, time.monotonic() - began)
        for slot in range(SLOTS):
            if ended[slot] and not first:  # this step was its reset
                plan[slot], place[slot] = rng.randrange(len(plans)), 0
                ended[slot] = bool(truncations[slot])
                continue
            tally.steps += 1
            place[slot] += 1
            ended[slot] = bool(terminations[slot] or truncations[slot])
            if truncations[slot]:
                tally.ends["void"] += 1
                tally.wrong += not math.isnan(rewards[slot])
            elif terminations[slot]:
                tally.ends[f"reward {rewards[slot]:g}"] += 1
                tally.wrong += rewards[slot] != expected[plan[slot]]
        first = False
    return tally


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    spec, task, _ = median_environment(options.store, 2 if options.fast else 10)
    claims = Claims()
    with Jail() as jail:
        solution = oracle_actions(jail, spec, task)
        # Whole; without the last call; only the answer, which suffices where nothing is to be changed; an answer of no
        # known form.
        plans = [solution, [*solution[:-2], solution[-1]], solution[-1:], [*solution[:-1], '{"answer":{"no such":1}}']]
        expected = [judged(jail, spec, task, plan) for plan in plans]
        hosts = WorldHosts(jail, spec, share=8)
        envs = vector_of(SLOTS, spec, [task], jail=jail, hosts=hosts, max_turns=10**6)
        envs.reset(seed=options.seed)
        killer = Killer(jail, options.seed)
        killer.start()
        tally = play(envs, plans, expected, 20_000 if options.fast else 100_000, options.seed, killer)
        killer.stop()
        envs.close()
    told = ", ".join(f"{count} {name}" for name, count in sorted(tally.ends.items()))
    print(f"      {tally.steps} steps; killed {dict(killer.killed)}; episodes: {told}; rewards by plan {expected}")
    claims.line("episodes that ended wrong", tally.wrong, "0", tally.wrong == 0)
    killed = killer.killed.total()
    claims.line("workers killed", killed, f">= {ENOUGH}", killed >= ENOUGH)
    for reward in (1, 0):
        count = tally.ends[f"reward {reward}"]
        claims.line(f"episodes that ended right with reward {reward}", count, ">= 20", count >= 20)
    claims.line("longest step of 64 slots", f"{tally.longest_s:.2f} s", f"<= {STALL_S:g} s", tally.longest_s <= STALL_S)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
