"""What the jail costs, measured beside what others pay, in one run of `benchmarks/jail.py` on one processor.

Full: measures, which needs an idle machine and bubblewrap. `--fast`: what `benchmarks/results/jail.json` holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from acceptance.claims import Claims

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "benchmarks" / "results" / "jail.json"


def measured() -> dict[str, Any]:
    """Run the benchmark.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "jail.json")
        command = [sys.executable, "-m", "benchmarks.jail", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the benchmark ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    record = json.loads(RECORDED.read_text(encoding="utf-8")) if fast else measured()
    print(f"      {'recorded' if fast else 'measured'} on {json.dumps(record['machine'])}")
    claims = Claims()
    others, ours, rates = record["others_us"], record["calls_us"], record["per_second"]
    raw = others["raw socket pair and JSON"]
    for name, value in others.items():
        print(f"      {name}: {value:.1f} us ({value / raw:.2f} of the raw round trip)")
    ratio, forked = ours["call"] / raw, ours["call"] / others["the same, forked from this process"]
    told = f"{ours['call']:.1f} us, {ratio:.2f} of it; {forked:.2f} of one to a fork of the host"
    claims.line("tool call beside the raw round trip to another program", told, "<= 1.6", ratio <= 1.6)
    for name, target in (
        ("fresh episode from the pool", 600),
        ("reset of the image", 60),
        ("call in a batch", 10),
    ):
        claims.line(name, f"{ours[name]:.1f} us", f"<= {target} us", ours[name] <= target)
    print(f"      the image has {ours['image, bytes']:.0f} bytes; environment {json.dumps(record['environment'])}")
    for name, value in rates.items():
        print(f"      {name}: {value:,.0f}")
    steps = rates["64 together, steps"]
    claims.line("steps per second of whole environments, 64 together", f"{steps:,.0f}", ">= 15,000", steps >= 15_000)
    episodes = rates["64 together, episodes of one call and a judged answer"]
    claims.line("episodes per second, reset by reload, judged", f"{episodes:,.0f}", ">= 1,500", episodes >= 1_500)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
