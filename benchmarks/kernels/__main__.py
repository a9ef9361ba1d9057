"""Run every script of this folder one after the other on a GPU, and keep what each finds.

`python -m benchmarks.kernels FOLDER` writes `FOLDER/kernels-NAME.json` and `FOLDER/kernels-NAME.log`; names may follow to
run only some. A script whose checks are red reports nothing; this one then ends with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("topk", "indexer", "sparse_attention", "dense_kl", "experts", "logprobs", "repeats")


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--peer", type=Path, help="for sparse_attention: Python file of another implementation")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.names or NAMES
    began = time.monotonic()
    # Most of a check is compiling, so all run at once; compiled kernels are kept, and nothing is timed here.
    running = {name: start(name, options.folder, [*arguments_of(name, options), "--quick"]) for name in names}
    failed = [name for name, process in running.items() if process.wait()]
    print(f"checks: {time.monotonic() - began:.0f} s, {f'FAILED: {failed}' if failed else 'all green'}", flush=True)
    for name in names:
        if name in failed:
            continue
        began = time.monotonic()
        out = options.folder / f"kernels-{name}.json"
        code = start(name, options.folder, [*arguments_of(name, options), "--out", str(out)]).wait()
        print(
            f"{name}: {'done' if code == 0 else f'FAILED with {code}'} in {time.monotonic() - began:.0f} s", flush=True
        )
        if code:
            failed.append(name)
    return 1 if failed else 0


def arguments_of(name: str, options: argparse.Namespace) -> list[str]:
    """Give what a script takes beside the common options."""
    return ["--peer", str(options.peer)] if name == "sparse_attention" and options.peer is not None else []


def start(name: str, folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a script; what it prints goes to a file."""
    with (folder / f"kernels-{name}.log").open("w") as log:
        command = [sys.executable, "-m", f"benchmarks.kernels.{name}", *arguments]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main())
