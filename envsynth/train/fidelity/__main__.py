"""The experiment from a plain copy of the source: `python -m envsynth.train.fidelity OUT --profile gpu --devices 4`.

It needs torch, safetensors and numpy, and nothing else of what the command line of the house needs. Lines of progress go
to stderr, the table to stdout. Exit codes: 0 every job is finished (cells that fail the break condition are results), 1
a job failed or was not started, 2 wrong usage, 130 interrupted; the same command goes on.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from envsynth.errors import EnvsynthError
from envsynth.train.fidelity.config import PROFILES, profile, with_steps
from envsynth.train.fidelity.experiment import COLUMNS, Experiment, describe, run_experiment, summary
from envsynth.train.fidelity.grid import Event, find_devices

ERROR, INTERRUPTED = 1, 130
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
        config = with_steps(
            profile(options.profile, seeds=options.seeds),
            pretrain=options.pretrain_steps,
            warmup=options.warmup_steps,
            sparse=options.sparse_steps,
        )
        changed = {name: value for name in ("heads", "topks") if (value := getattr(options, name)) is not None}
        config = replace(config, **changed)
        kind = options.on or ("cuda" if options.profile == "gpu" else "cpu")
        devices = find_devices(kind, options.devices)
        done = run_experiment(options.out, config, devices, deadline_s=options.deadline_s, on_event=_tell)
    except EnvsynthError as error:
        sys.stderr.write(f"error: {error}\n")
        return ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: finished jobs are kept; the same command goes on from there\n")
        return INTERRUPTED
    return _report(done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envsynth.train.fidelity", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the experiment; one of equal settings goes on")
    parser.add_argument("--profile", choices=PROFILES, default="cpu", help="how large it is")
    parser.add_argument("--devices", type=int, help="processes, each on a device of its own; default: all, or one CPU")
    parser.add_argument("--on", choices=("cpu", "cuda"), help="kind of device; default: cuda for gpu, cpu for others")
    parser.add_argument("--seeds", type=int, help="repetitions; default: the profile's")
    parser.add_argument("--deadline-s", type=float, help="seconds after which nothing should run")
    for stage in ("pretrain", "warmup", "sparse"):
        parser.add_argument(f"--{stage}-steps", type=int, help=f"steps of this stage ({stage}); default: the profile's")
    parser.add_argument("--heads", type=_counts, help="heads of the indexer, 1,2,...; default: the profile's")
    parser.add_argument("--topks", type=_counts, help="selected keys, 32,64,...; default: the profile's")
    return parser


def _counts(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them; argparse reports what is none."""
    return tuple(int(part) for part in text.split(","))


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(event: Event) -> None:
    sys.stderr.write(f"{describe(event)}\n")
    sys.stderr.flush()


def _report(done: Experiment) -> int:
    rows = [COLUMNS, *summary(done.result)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    sys.stdout.write(f"result: {done.file}\n")
    if done.complete:
        return 0
    for name, reason in {**done.outcome.failed, **done.outcome.skipped}.items():
        sys.stderr.write(f"not finished: {name}: {reason}\n")
    sys.stderr.write("the same command goes on with what is not finished\n")
    return ERROR


if __name__ == "__main__":
    raise SystemExit(main())
