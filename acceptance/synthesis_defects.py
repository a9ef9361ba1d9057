"""Claims: planted defects are flagged with the right code, sound specs are not, and so is the trip-planning text.

Full: every planted defect (one each, in hand-made specs without a task program) and 49 sound ones; a defect counts when
its code is among those that fail and nothing fails that the defect does not explain. The published trip-planning task,
in its gaps, is flagged for each of them, and the mended one passes. `--fast`: a third of the specs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from acceptance.claims import Claims
from acceptance.defects import asking, limiting, of_play, of_specs, of_verifiers, recovering
from acceptance.defects.bases import BASES
from acceptance.defects.plants import PLANTS, Plant
from acceptance.defects.trip import DISTRACTORS, GAPS, published_trip
from envsynth.environments.examples import trip_planning
from envsynth.gates import check
from envsynth.gates.wording import loose_limits, tier_faults, tier_groups
from envsynth.report import GateReport

ROOMS = (of_specs, of_play, of_verifiers, recovering, asking, limiting)
"""Importing them fills the list of planted defects."""
VARIANTS = 7
"""Variants of each base that are checked for being sound."""


def codes_of(report: GateReport) -> list[str]:
    """Codes of the gates that did not pass."""
    return [result.code for result in report.results if result.status in ("fail", "void")]


def right(item: Plant, found: list[str]) -> bool:
    """Whether a defect is flagged for what it is."""
    return item.code in found and set(found) <= {item.code, *item.also}


def planted(claims: Claims, items: Iterable[Plant]) -> None:
    """Check specs with a defect, and print a line for each."""
    for item in items:
        found = codes_of(check(*item.pair()))
        if item.pending:
            print(
                f"LATER {item.name} ({item.base}): {' '.join(found) or 'nothing'}  ({item.code} is to come)", flush=True
            )
            continue
        target = item.code + (f", perhaps {' '.join(sorted(item.also))}" if item.also else ", nothing else")
        claims.line(f"{item.name} ({item.base})", " ".join(found) or "nothing", target, right(item, found))


def sound(claims: Claims, pairs: Iterable[tuple[str, int]]) -> None:
    """Check sound specs, and print a line for those that are flagged."""
    wanted = list(pairs)
    passed = 0
    for name, variant in wanted:
        report = check(*BASES[name](variant))
        passed += report.ok
        if not report.ok:
            told = "; ".join(f"{finding.code} {finding.message}" for finding in report.findings)
            print(f"      {name} {variant}: {told}", flush=True)
    claims.line(
        "sound specs that pass every gate", f"{passed} of {len(wanted)}", "all", bool(wanted) and passed == len(wanted)
    )


def command_line(claims: Claims) -> None:
    """Check a file of an environment with its task as a user would: exit code 3 and the code, or 0."""
    broken = next(item for item in PLANTS if item.code == "SP109")
    for name, pair, wanted in (("a defect", broken.pair(), 3), ("a sound spec", BASES[broken.base](0), 0)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "spec.json")
            path.write_text(f'{{"environment": {pair[0].to_json()}, "task": {pair[1].to_json()}}}', encoding="utf-8")
            command = [sys.executable, "-m", "envsynth.cli", "check", str(path), "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [item["code"] for item in json.loads(done.stdout)[0]["results"] if item["status"] == "fail"]
        target = f"{wanted} {broken.code}" if wanted else "0"
        told = " ".join(map(str, (done.returncode, *found)))
        claims.line(f"`envsynth check` on a file with {name}: exit code, codes", told, target, told == target)


def trip(claims: Claims) -> None:
    """Check the trip-planning task as published, and mended."""
    report = check(*published_trip())
    for gap, (code, words) in GAPS.items():
        told = [finding.message for finding in report.findings if finding.code == code and words in finding.message]
        claims.line(f"trip, {gap}", told[0] if told else "not flagged", code, bool(told))
    found, wanted = codes_of(report), sorted({code for code, _ in GAPS.values()})
    claims.line("trip, gates that fail", " ".join(found), f"exactly {' '.join(wanted)}", found == wanted)
    unused = cast("list[str]", report.evidence("SP111")["unused_tools"])
    distractors = [name for name in DISTRACTORS if name in unused]
    claims.line(
        "trip, tools told as distractors",
        " ".join(distractors),
        " ".join(DISTRACTORS),
        len(distractors) == len(DISTRACTORS),
    )
    mended = codes_of(check(*trip_planning()))
    claims.line("mended trip, gates that fail", " ".join(mended) or "none", "none", not mended)


def prompts(claims: Claims) -> None:
    """Read the wording of the fifty prompts of the reference, which people have read."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "prompts.md").read_text(encoding="utf-8")
    texts = re.findall(r"^\d+\. (.+)$", page, re.M)
    flagged = [
        text for text in texts if loose_limits(text) or any(tier_faults(group, text) for group in tier_groups(text))
    ]
    claims.line(
        "prompts of the reference flagged for their wording",
        f"{len(flagged)} of {len(texts)}",
        "0 of >= 50",
        not flagged and len(texts) >= 50,
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--only", default="", help="only defects whose name holds this")
    options = parser.parse_args()
    claims, began = Claims(), time.monotonic()
    step = 3 if options.fast else 1
    planted(claims, [item for item in PLANTS if options.only in item.name][::step])
    if not options.only:
        counted = [item for item in PLANTS if not item.pending]
        claims.line("planted defects in the list", len(counted), ">= 40", len(counted) >= 40)
        command_line(claims)
        trip(claims)
        prompts(claims)
        every = [(name, variant) for variant in range(VARIANTS) for name in BASES]
        # Seven bases: every third of them, another one in each variant.
        sound(claims, [pair for place, pair in enumerate(every) if (place + pair[1]) % step == 0])
    print(f"      {time.monotonic() - began:.0f} s", flush=True)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
