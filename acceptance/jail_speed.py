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
    print(
        "      each figure: over all calls or turns; in the quietest block or turn, which decides: see how the loop's time varies"
    )
    others, quiet_others = record["others_us"], record["others_quiet_us"]
    ours, quiet = record["calls_us"], record["calls_quiet_us"]
    rates, best = record["per_second"], record["per_second_quiet"]
    raw = others["raw socket pair and JSON"]
    for name, value in others.items():
        least = f"; {quiet_others[name]:.1f}" if name in quiet_others else ""
        print(f"      {name}: {value:.1f}{least} us ({value / raw:.2f} of the raw round trip)")
    ratio = ours["call"] / raw
    forked = ours["call"] / others["the same, forked from this process"]
    told = f"{ours['call']:.1f} us, {ratio:.2f} of it; {forked:.2f} of one to a fork of the host"
    claims.line("tool call beside the raw round trip to another program, median", told, "<= 1.6", ratio <= 1.6)
    for name, target in (
        ("fresh episode from the pool", 600),
        ("reset of the image", 60),
        ("call in a batch", 10),
    ):
        told = f"{ours[name]:.1f}; {quiet[name]:.1f} us"
        claims.line(f"{name}, median", told, f"<= {target} us", quiet[name] <= target)
    for name in (
        "reset of the image",
        "call with a query",
        "call with a query in a batch",
        "fresh episode from the pool, database sent",
    ):
        print(f"      {name}: {ours[name]:.1f}; {quiet[name]:.1f} us")
    print(f"      fresh episodes without a pause: {ours['fresh episodes without a pause']:.0f} us")
    print(f"      the image has {ours['image, bytes']:.0f} bytes; environment {json.dumps(record['environment'])}")
    for name, value in rates.items():
        print(f"      {name}: {value:,.0f}; {best[name]:,.0f} per second")
    for name, told, target in (
        ("64 together, steps", "steps per second of whole environments, 64 together", 15_000),
        ("64 together, episodes of ten calls", "episodes of ten calls per second, reset by reload", 1_500),
        ("64 together, episodes of one call and a judged answer", "judged episodes of one call per second", 1_500),
    ):
        claims.line(told, f"{rates[name]:,.0f}; {best[name]:,.0f}", f">= {target:,}", best[name] >= target)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
