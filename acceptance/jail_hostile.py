"""Claims: hostile programs are contained in every row of a matrix of users and layers.

Full: the public programs and our own in each row. `--fast`: all layers, as the present user. `--record` also writes what
stopped each program to `benchmarks/results/contained.json`, from which a page of the documentation is made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from acceptance.hostile_rows import PLAIN, ROOT, play_rows
from tests.sandbox.hostile_programs import HOSTILE, MORE
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


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="all layers as the present user")
    parser.add_argument("--record", action="store_true", help="write what stopped each program; needs root")
    options = parser.parse_args()
    claims = Claims()
    present = ROOT if os.geteuid() == 0 else PLAIN
    rows = list(play_rows(claims, [(present, "default")] if options.fast else ROWS))
    if options.record and len(rows) == len(ROWS):
        record(rows)
    elif options.record:
        print("      nothing is recorded: that needs every row, so root and no --fast")
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
