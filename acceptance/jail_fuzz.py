"""Claim: no bytes from a worker make the host's frame decoder escape its documented form, hang or crash.

Full: an hour, guided by coverage, which needs atheris (the extra `fuzz`). `--fast`: ten seconds; where atheris is
missing, of the same harness on seeded random mutations. Which of the two ran is printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from scripts.fuzz_frames import atheris

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "fuzz-frames.json"
FULL_S, FAST_S = 3600, 10
MIN_PER_SECOND = 100
"""Fewer executions than this mean that the harness waits, which the decoder must not."""
MAX_MB = 256
PATTERNS = {
    "executions": r"Done (\d+) runs",
    "seconds": r"runs in (\d+) second",
    "edges": r"DONE +cov: (\d+)",
    "features": r"DONE .* ft: (\d+)",
    "corpus": r"DONE .* corp: (\d+)",
    "peak_mb": r"peak_rss_mb: +(\d+)",
}
"""Where libFuzzer says what, on standard error."""


def run_fuzzer(seconds: int, seed: int, blind: bool) -> tuple[int, str, str]:
    """Fuzz in a process of its own, as libFuzzer ends the one that it runs in.

    Args:
        seconds: How long.
        seed: Of the mutations.
        blind: Whether to do without coverage guidance.

    Returns:
        Exit code, standard output and standard error.
    """
    command = [sys.executable, "-m", "scripts.fuzz_frames", f"--seconds={seconds}", f"--seed={seed}"]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        command += ["--blind"] if blind else ["--folder", folder]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def read_report(code: int, out: str, err: str, blind: bool) -> dict[str, Any]:
    """Read what a run says of itself.

    Args:
        code: Exit code.
        out: Standard output.
        err: Standard error.
        blind: Whether it was without coverage guidance.

    Returns:
        Facts of the run; `finding` is empty when there was none.
    """
    facts: dict[str, Any] = {"guided": not blind, "finding": "" if code == 0 else err[-3000:]}
    if code:
        return facts
    if blind:
        return facts | json.loads(out)
    found = {name: re.search(pattern, err) for name, pattern in PATTERNS.items()}
    return facts | {name: int(match[1]) for name, match in found.items() if match is not None}


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seconds", type=int, default=0, help="instead of the usual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help=f"write {OUT.relative_to(ROOT)}")
    options = parser.parse_args()
    blind = atheris is None
    if blind:
        print("      atheris is missing: seeded random mutations, WITHOUT coverage guidance")
    else:
        print(f"      coverage-guided by atheris {importlib.metadata.version('atheris')}")
    seconds = options.seconds or (FAST_S if options.fast else FULL_S)
    facts = read_report(*run_fuzzer(seconds, options.seed, blind), blind)
    claims = Claims()
    if facts["finding"]:
        print(facts["finding"])
    claims.line("escapes, hangs, crashes", "see above" if facts["finding"] else 0, "0", not facts["finding"])
    if facts["finding"]:
        return claims.exit_code()
    rate = facts["executions"] / max(facts["seconds"], 1)
    ran = f"{facts['executions']} in {facts['seconds']:g} s, {rate:.0f}/s"
    claims.line("executions", ran, f">= {MIN_PER_SECOND}/s", rate >= MIN_PER_SECOND)
    claims.line("peak memory", f"{facts['peak_mb']} MiB", f"<= {MAX_MB} MiB", facts["peak_mb"] <= MAX_MB)
    if blind:
        kinds = len(facts["ends"])
        claims.line("different ends reached (coverage not measured)", kinds, ">= 10", kinds >= 10)
    else:
        reached = f"{facts['edges']} edges, {facts['features']} features, {facts['corpus']} inputs kept"
        claims.line("coverage of the decoder", reached, ">= 80 edges", facts["edges"] >= 80)
    if not options.fast and not options.seconds:
        claims.line("coverage guidance", "no" if blind else "yes", "yes", not blind)
    print("      no escape, hang, crash")
    if options.record:
        record = {name: value for name, value in facts.items() if name != "finding"} | {
            "per_second": round(rate),
            "findings": 0,
            "seed": options.seed,
            "python": platform.python_version(),
            "atheris": None if blind else importlib.metadata.version("atheris"),
        }
        OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
