"""Claims: on random tasks over every mechanism, alone and in every pair, the three backends agree; rules matter.

Full: until 2,000 random tasks of each mechanism, alone and in its pairs, were compared. `--fast`: 40 draws of each
mechanism alone. A draw that fits no data is not compared and not counted. A quarter as many draws again, counted apart,
start with a description that compares groups of rows.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import Counter

from acceptance.claims import Claims
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.errors import EnvsynthError
from tests.author.procedural.random_tasks import tally

WANTED = 2_000
"""Compared tasks of each mechanism in a full run; a task over a pair counts for both."""
DRAWS = 60
"""Draws in one world, whose composition takes as long as some of them."""


def compared(found: Counter[str]) -> int:
    """Tasks on which all three backends gave an outcome."""
    return found["agree"]


def one_world(names: tuple[str, ...], label: str, draws: int) -> tuple[Counter[str], str]:
    """Compare draws of one world; the second value says what disagreed."""
    mechanisms = tuple(MECHANISMS[name] for name in names)
    try:
        found = tally(mechanisms, 1, draws, label)
        grouped = tally(mechanisms, 1, draws // 4, f"{label}/groups", ("group",))
    except (AssertionError, EnvsynthError, LookupError, TypeError, ValueError) as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        return Counter(), f"{'+'.join(names)}: {type(error).__name__}: {str(error)[:300]} {notes[:300]}"
    found["agree on groups"] = compared(grouped)
    return found, ""


def claim_changes(claims: Claims, names: tuple[str, ...], with_changes: Counter[str], *, fast: bool) -> None:
    """Print the line about tasks that change something."""
    few = min(names, key=lambda name: with_changes[name])
    told = f"{with_changes[few]:,} ({few})"
    if not fast:
        claims.line("fewest of them with changes", told, ">= 1", with_changes[few] >= 1)
        return
    acting = sum(with_changes[name] > 0 for name in names)  # forty draws hold no change of some mechanisms
    wanted = len(names) - 3
    claims.line(
        "mechanisms with tasks that change something", f"{acting}; fewest {told}", f">= {wanted}", acting >= wanted
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--wanted", type=int, default=WANTED, help="compared tasks of each mechanism")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    claims, began = Claims(), time.monotonic()
    names = tuple(MECHANISMS)
    groups = [(name,) for name in names]
    if not options.fast:
        groups += list(itertools.combinations(names, 2))
    per_mechanism: Counter[str] = Counter()
    with_changes: Counter[str] = Counter()
    disagreements: list[str] = []
    n_groups = 0
    rng = random.Random(options.seed)
    for turn in itertools.count():
        left = [group for group in groups if any(per_mechanism[name] < options.wanted for name in group)]
        if not left or (options.fast and turn):
            break
        for group in left:
            label = f"acceptance/{options.seed}/{turn}/{'+'.join(group)}/{rng.random()}"
            found, problem = one_world(group, label, 40 if options.fast else DRAWS)
            disagreements += [problem] if problem else []
            n_groups += found["agree on groups"]
            for name in group:
                per_mechanism[name] += compared(found)
                with_changes[name] += found["agree with changes"]
        total = sum(per_mechanism.values())
        print(f"      turn {turn}: {total:,} comparisons, {time.monotonic() - began:.0f} s", flush=True)
    for problem in disagreements[:10]:
        print(f"      {problem}")
    pairs = len(groups) - len(names)
    claims.line("worlds in which two backends disagree", len(disagreements), "0", not disagreements)
    least = min(per_mechanism, key=lambda name: per_mechanism[name])
    target = 5 if options.fast else options.wanted
    told = f"{per_mechanism[least]:,} ({least}); in all {sum(per_mechanism.values()):,}, {len(names)} mechanisms, {pairs} pairs"
    claims.line("fewest tasks compared of a mechanism", told, f">= {target:,}", per_mechanism[least] >= target)
    wanted = 30 if options.fast else 300
    claims.line("tasks compared that compare groups of rows", f"{n_groups:,}", f">= {wanted}", n_groups >= wanted)
    claim_changes(claims, names, with_changes, fast=options.fast)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
