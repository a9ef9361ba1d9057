"""The experiment on costs from a plain copy of the source: `python -m envsynth.train.overhead --profile gpu --out OUT`.

It needs torch (on a GPU with triton), safetensors and numpy, and nothing else of what the command line of the house
needs. Lines of progress go to stderr, the table to stdout. Exit codes: 0 everything was measured (refusals are results),
1 it failed or the budget was over, 2 wrong usage, 130 interrupted; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from envsynth.errors import EnvsynthError, SpecError
from envsynth.train.overhead.config import PROFILES, profile
from envsynth.train.overhead.experiment import COLUMNS, Overhead, measurements, refusals, run_overhead, summary

ERROR, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment.

    Args:
        arguments: What follows the program's name; `sys.argv` when None.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        config = profile(options.profile, presets=options.presets, lengths=options.lengths, topks=options.topk)
    except SpecError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    began, count, done = time.monotonic(), len(measurements(config)), 0

    def tell(name: str) -> None:
        nonlocal done
        done += 1
        sys.stderr.write(f"{done}/{count}, {time.monotonic() - began:.1f} s: {name}\n")
        sys.stderr.flush()

    try:
        found = run_overhead(options.out, config, budget_s=options.budget_s, on_measured=tell)
    except EnvsynthError as error:
        sys.stderr.write(f"error: {error}\n")
        return ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was measured is kept; the same command goes on from there\n")
        return INTERRUPTED
    return _report(found, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envsynth.train.overhead", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dsa-overhead"), help="folder of the record")
    parser.add_argument("--profile", choices=PROFILES, default="gpu", help="smoke: seconds on a CPU; gpu: all of it")
    parser.add_argument("--presets", type=lambda text: tuple(text.split(",")), help="base,large,...")
    parser.add_argument("--lengths", type=_counts, help="tokens, ascending: 8192,16384,...")
    parser.add_argument("--topk", type=_counts, help="keys kept per query, ascending: 256,512,...")
    parser.add_argument("--budget-s", type=float, help="seconds after which no measurement starts")
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    return parser


def _counts(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them; argparse reports what is none."""
    return tuple(int(part) for part in text.split(","))


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(found: Overhead, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(found.result, indent=1) + "\n")
    else:
        rows = [COLUMNS, *summary(found.result)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
        for row in rows:
            sys.stdout.write("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n")
    sys.stderr.write(f"record: {found.file}\n")
    for line in refusals(found.result):
        sys.stderr.write(f"no time: {line}\n")
    if found.complete:
        return 0
    sys.stderr.write(
        f"{len(found.missing)} measurements were not started, from {found.missing[0]} on; go on likewise\n"
    )
    return ERROR


if __name__ == "__main__":
    raise SystemExit(main())
