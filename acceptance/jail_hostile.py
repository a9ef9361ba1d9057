"""Claims: hostile programs are contained in every row of a matrix of users and layers, and so are thousands from a grammar.

Full: the public programs and our own in each row, and 10,000 programs of the grammar, each in an exposed and in a default
jail. `--fast`: all layers, as the present user, and 150 programs. `--record` also writes what stopped each program to
`benchmarks/results/contained.json`, from which a page of the documentation is made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from acceptance.hostile_rows import PLAIN, ROOT, play_rows
from tests.sandbox.hostile_programs import HOSTILE, MORE
from tests.sandbox.playing import JAILS, STALL_S, play_many
from tests.sandbox.stoppers import LAYERS

ROWS = (
    (ROOT, "default"),
    (PLAIN, "default"),
    (PLAIN, "no namespaces"),
    (ROOT, "seccomp only"),
    (PLAIN, "seccomp only"),
    (ROOT, "exposed"),
    (PLAIN, "exposed"),
)
"""Who opens the jail, and a mode of `tests.sandbox.containment`."""

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "contained.json"


def record(rows: list[tuple[str, str, list[dict[str, Any]]]]) -> None:
    """Write what was found in each row, without the evidence: that holds paths of this machine."""
    listed = [
        {
            "who": who,
            "mode": mode,
            "off": sorted({layer for finding in findings for layer in finding["off"]}),
            "contained": sum(not finding["leaks"] for finding in findings),
            "found": {
                finding["name"]: {"status": finding["status"], "stopped_by": finding["stopped_by"]}
                for finding in findings
            },
        }
        for who, mode, findings in rows
    ]
    programs = {name: {"meaning": text[1], "public": name in HOSTILE} for name, text in (HOSTILE | MORE).items()}
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "layers": LAYERS,
        "programs": programs,
        "rows": listed,
    }
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


GROWTH_MB = 50
"""Growth of the host's memory that is no leak: what allocators keep of large replies."""


def play_grammar(claims: Claims, count: int, first: int) -> None:
    """Play programs of the grammar and print what they showed; a program that failed is printed whole."""
    began = time.monotonic()
    report = play_many(range(first, first + count))
    seconds = time.monotonic() - began
    ends = ", ".join(f"{number} {name}" for name, number in sorted(report.ends.items()))
    print(f"      {count} programs in {len(JAILS)} jails: {seconds:.0f} s, {count * len(JAILS) / seconds:.0f} plays/s")
    print(f"      as {'root' if os.geteuid() == 0 else 'a plain user'}; requests ended: {ends}")
    for program, mode, problem in report.problems:
        print(f"      {mode}: {problem}")
        if program is not None:
            print(
                f"      number {program.number}, {program.way}, {program.target}, {program.wrappers}\n{program.source}"
            )
    wrong = len({program.number for program, _, _ in report.problems if program is not None})
    what = f"programs of the grammar, numbers {first} to {first + count - 1}, each in {' and '.join(JAILS)}"
    claims.line(what, f"{report.played - wrong} of {count} contained", f"{count} of {count}", wrong == 0)
    unsound = sum(program is None for program, _, _ in report.problems)
    claims.line("fresh workers in between", f"{report.checks - unsound} of {report.checks} sound", "all", unsound == 0)
    claims.line("longest program", f"{report.longest_s:.2f} s", f"<= {STALL_S:g} s", 0 < report.longest_s <= STALL_S)
    claims.line("processes left", report.processes, "0", report.processes == 0)
    claims.line("descriptors left", report.descriptors, "0", report.descriptors == 0)
    claims.line(
        "growth of the host's memory", f"{report.grown_mb:.1f} MiB", f"< {GROWTH_MB} MiB", report.grown_mb < GROWTH_MB
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="all layers as the present user")
    parser.add_argument("--record", action="store_true", help="write what stopped each program; needs root")
    parser.add_argument("--programs", type=int, help="programs of the grammar; 10,000, or 150 with --fast")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    options = parser.parse_args()
    claims = Claims()
    present = ROOT if os.geteuid() == 0 else PLAIN
    rows = list(play_rows(claims, [(present, "default")] if options.fast else ROWS))
    if options.record and len(rows) == len(ROWS):
        record(rows)
    elif options.record:
        print("      nothing is recorded: that needs every row, so root and no --fast")
    count = options.programs if options.programs is not None else 150 if options.fast else 10_000
    if count > 0:
        play_grammar(claims, count, options.first)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
