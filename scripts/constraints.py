"""Write `constraints.txt` from the packages of this virtual environment: `python scripts/constraints.py`.

torch and triton are pinned as a pair and by hand: their kernels and interpreter were tried together. What extras need that
not every environment has is pinned by hand too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAIR = ("torch==2.13.0", "triton==3.6.0")
EXTRAS = (
    "atheris==3.0.0",
    "msgpack==1.2.4",
    "protobuf==7.36.2",
    "psycopg==3.3.9",
    "psycopg-binary==3.3.9",
    "ray==2.60.0",
)
"""Of the extras `fuzz`, `postgres` and `ray`, without which the tests run too."""
HEADER = (
    "# Exact versions that the tests ran with; made by scripts/constraints.py. Loose bounds are in pyproject.toml.\n"
)


def main() -> int:
    """Write the file; return 0."""
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--exclude", "envsynth"]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    by_hand = tuple(f"{pin.partition('==')[0]}==" for pin in (*PAIR, *EXTRAS))
    pins = {line for line in frozen if "==" in line and not line.lower().startswith(by_hand)}
    lines = sorted([*pins, *PAIR, *EXTRAS], key=str.lower)
    Path(__file__).resolve().parent.parent.joinpath("constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
