"""How many different worlds and programs the procedural author reaches, by structure alone.

Worlds: the first compositions of forty categories in turn, names, constants, optional columns and the way ids are written
stripped; no gate runs, so a world may hold no task that passes. Programs: chains of a root and up to four edits that the
author accepts, before any gate that plays them. `--fast`: a tenth of the worlds and two hundred programs, without targets
for numbers that only a full run reaches.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
from collections.abc import Iterator

from acceptance.claims import Claims
from envsynth.author.procedural.author import Draft, ProceduralAuthor
from envsynth.author.procedural.ir import from_json
from envsynth.author.procedural.signature import skeleton, structure
from envsynth.errors import Rejected
from envsynth.executors import run_all
from envsynth.spec import TaskVersion

CATEGORIES = (
    "planning a travel itinerary", "hospital bed management", "warehouse restocking", "software licence audits",
    "library loans", "university exams", "hotel reservations", "fleet maintenance", "insurance claims", "grant proposals",
    "court hearings", "event catering", "freight forwarding", "bank transfers", "phone plans", "help desk incidents",
    "folder permissions", "restaurant recipes", "customer contacts", "sensor alarms", "package releases", "museum tours",
    "kindergarten places", "theatre tickets", "farm supplies", "clinic appointments", "car rental", "gym memberships",
    "airport gates", "newsroom shifts", "charity donations", "recycling routes", "real estate viewings", "game servers",
    "space station experiments", "water meters", "port berths", "tax returns", "fashion orders", "laboratory equipment",
)  # fmt: skip
WORLDS, DISTINCT_RULES = 1_827, 1_000
CURVE = (100, 200, 500, 1_000, 1_827, 2_500, 5_000)
SKELETONS = 5_000
EDITS = 4
CHAINS = 24
"""Programs that are begun in each world."""
SEED = "diversity"


@functools.cache
def _author(category: str) -> ProceduralAuthor:
    return ProceduralAuthor(category, SEED)


def _draft(number: int) -> tuple[ProceduralAuthor, Draft]:
    author = _author(CATEGORIES[number % len(CATEGORIES)])
    return author, author.draft(number // len(CATEGORIES))


def structures(number: int) -> tuple[str, str]:
    """Return the structure of a world with and without its interface."""
    composition = _draft(number)[1].composition
    return structure(composition, interface=True), structure(composition, interface=False)


def programs(number: int) -> list[str]:
    """Return the skeletons of chains of programs over one world."""
    author, draft = _draft(number)
    return [skeleton(from_json(task.ir)) for chain in range(CHAINS) for task in _chain(author, draft, chain)]


def _chain(author: ProceduralAuthor, draft: Draft, chain: int) -> Iterator[TaskVersion]:
    """A root and its edits, each by an operator drawn at random; refused draws are skipped."""
    rng = random.Random(f"{SEED}/{draft.environment.hash}/{chain}")
    task = _root(author, draft, chain)
    if task is None:
        return
    yield task
    edits = 0
    for attempt in range(3 * EDITS):
        operators = author.operators(task)
        if not operators or edits == EDITS:
            return
        try:
            task = author.propose(draft, task, rng.choice(operators), attempt)
        except Rejected:
            continue
        edits += 1
        yield task


def _root(author: ProceduralAuthor, draft: Draft, chain: int) -> TaskVersion | None:
    for attempt in range(12):
        try:
            return author.root(draft, chain, attempt)
        except Rejected:
            continue
    return None


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    claims = Claims()
    curve = [size // 10 for size in CURVE[:5]] if options.fast else list(CURVE)
    worlds = WORLDS // 10 if options.fast else WORLDS
    found = run_all(structures, list(range(max(curve))), workers=options.workers)
    for size in sorted({*curve, worlds}):
        both = len({item[0] for item in found[:size]}), len({item[1] for item in found[:size]})
        print(f"      of {size:,} worlds {both[0]:,} differ with the interface, {both[1]:,} by schema and rules alone")
    with_interface = len({item[0] for item in found[:worlds]}) / worlds
    alone = len({item[1] for item in found[:worlds]})
    claims.line(f"different among {worlds:,} worlds", f"{with_interface:.3f}", ">= 0.90", with_interface >= 0.9)
    wanted = DISTINCT_RULES * worlds // WORLDS
    claims.line("different by schema and rules alone", f"{alone:,}", f">= {wanted:,}", alone >= wanted)
    goal, seen, drawn = 200 if options.fast else SKELETONS, set[str](), 0
    for start in itertools.count(0, 8):
        for skeletons in run_all(programs, list(range(start, start + 8)), workers=options.workers):
            seen.update(skeletons)
            drawn += len(skeletons)
        if not options.fast:
            print(f"      {start + 8} worlds: {len(seen):,} skeletons among {drawn:,} programs", flush=True)
        if len(seen) >= goal or start > 800:
            break
    claims.line(f"skeletons among {drawn:,} programs", f"{len(seen):,}", f">= {goal:,}", len(seen) >= goal)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
