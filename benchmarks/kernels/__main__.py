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

NAMES = ("topk", "indexer", "sparse_attention", "dense_kl", "experts", "logprobs")


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
    failed = []
    for name in options.names or NAMES:
        out = options.folder / f"kernels-{name}.json"
        command = [sys.executable, "-m", f"benchmarks.kernels.{name}", "--out", str(out)]
        if name == "sparse_attention" and options.peer is not None:
            command += ["--peer", str(options.peer)]
        began = time.monotonic()
        with (options.folder / f"kernels-{name}.log").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        print(
            f"{name}: {'done' if code == 0 else f'FAILED with {code}'} in {time.monotonic() - began:.0f} s", flush=True
        )
        if code:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
