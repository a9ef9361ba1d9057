"""Run the acceptance scripts of a topic: `python -m acceptance foundation [--fast]`.

Every script `acceptance/<topic>*.py` is a command of its own. It prints one line per claim and exits with 1 when one
fails; `--fast` asks for the lines that run within seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Run all scripts of the topic; return 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic")
    parser.add_argument("--fast", action="store_true", help="only what runs within seconds")
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent
    scripts = sorted(folder.glob(f"{options.topic}*.py"))
    if not scripts:
        print(f"no acceptance script begins with {options.topic!r}", file=sys.stderr)
        return 2
    failed: list[str] = []
    for script in scripts:
        print(f"--- {script.stem}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", f"acceptance.{script.stem}", *(["--fast"] if options.fast else [])]
        code = subprocess.run(command, cwd=folder.parent, check=False).returncode
        print(f"    ({time.monotonic() - began:.0f} s)", flush=True)
        if code:
            failed.append(script.stem)
    print(
        f"{len(scripts) - len(failed)} of {len(scripts)} scripts pass"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
