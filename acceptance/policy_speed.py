"""Training on the CPU is at least as fast as with transformers' deepseek_v32 of the same weights.

Full: measures (`benchmarks/policy.py`), which takes ten minutes on an idle machine. `--fast`: what
`benchmarks/results/policy.json` holds, and ten seconds of the nano policy beside the peer. The quietest turns of
competitors that take turns decide: other tenants slow a machine down for seconds at a time.
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
from benchmarks.policy import COMPETITORS, OURS, RESULTS, SETTINGS, THREADS, TWIN, best_peer, measure, ratio, settings

ROOT = Path(__file__).resolve().parent.parent
RECORDED = RESULTS / "policy.json"


def measured() -> dict[str, Any]:
    """Run the benchmark.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "policy.json")
        command = [sys.executable, "-m", "benchmarks.policy", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the benchmark ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def told(case: dict[str, Any], other: str) -> str:
    """Rates of ours and of another, and what they are to each other."""
    rates, theirs = case["tokens_per_s"][OURS], case["tokens_per_s"][other]
    return (
        f"{ratio(case, other):.2f}; {ratio(case, other, 'median'):.2f} by medians; "
        f"{rates['quietest']:,.0f} to {theirs['quietest']:,.0f} tokens/s of {other}"
    )


def complete(record: dict[str, Any]) -> bool:
    """Whether a record is of today's settings, with every competitor at each of them."""
    same = record["settings"] == json.loads(json.dumps(settings()))
    cases = [record["cases"][name][str(threads)] for name in SETTINGS for threads in THREADS]
    return same and all(set(case["tokens_per_s"]) == set(COMPETITORS) for case in cases)


def recorded() -> dict[str, Any]:
    """Read the record.

    Raises:
        SystemExit: there is none.
    """
    if not RECORDED.exists():
        raise SystemExit(f"{RECORDED.relative_to(ROOT)} is missing: run python -m benchmarks.policy")
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    record = recorded() if fast else measured()
    print(f"      {'recorded' if fast else 'measured'} on {json.dumps(record['machine'])}")
    claims = Claims()
    ok = complete(record)
    claims.line("settings and competitors of the record", "today's" if ok else "others", "today's", ok)
    if not ok:
        return claims.exit_code()
    for name in SETTINGS:
        for threads in THREADS:
            case = record["cases"][name][str(threads)]
            best, where = best_peer(case), f"{name}, threads {threads}"
            claims.line(
                f"{where}: ours beside transformers' best", told(case, best), ">= 1.0", ratio(case, best) >= 1.0
            )
            claims.line(f"{where}: ours beside the dense twin", told(case, TWIN), ">= 0", ratio(case, TWIN) >= 0)
    if fast:
        best = best_peer(record["cases"]["nano"]["1"])
        case = measure("nano", 1, 5.0, (OURS, best))
        claims.line("nano, threads 1, measured now", told(case, best), ">= 1.0", ratio(case, best) >= 1.0)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
