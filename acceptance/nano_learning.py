"""The policy learns on two cores: imitation in the demo's minutes; rewards beside their control, as they were measured.

Full: trains as `envsynth demo` does, from random weights, and plays unseen tasks; the machine should be idle. `--fast`
reads what the benchmark wrote on the machine that it names.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from acceptance.claims import Claims

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
GREEDY, SECONDS = 0.5, 240.0
SEEDS = 3


def demo_trains(claims: Claims) -> None:
    """Train and play as the demo does."""
    from envsynth.train.showcase import ShowcaseConfig, run_showcase  # noqa: PLC0415 (--fast needs no torch)

    config = ShowcaseConfig()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        section = run_showcase(Path(folder), config)
        seconds = time.monotonic() - began
    greedy = {row.stage: row for row in section.rows if row.manner == "greedy"}
    row = greedy["after imitation (SFT)"]
    claims.line(
        f"greedy pass@1 on {row.tasks} unseen tasks after {config.sft_seconds:g} s of imitation from random weights",
        f"{row.rate:.2f} [{row.low:.2f}, {row.high:.2f}]",
        f">= {GREEDY}",
        row.rate >= GREEDY,
    )
    print(f"      names that no lesson has: {greedy['after imitation; names that no lesson has'].rate:.2f}")
    claims.line(
        f"training of the demo: imitation, rewards, control ({seconds:.0f} s with lessons and playing,"
        f" {section.threads} threads)",
        f"{config.sft_seconds + 2 * config.grpo_seconds:g} s",
        f"<= {SECONDS:g} s",
        config.sft_seconds + 2 * config.grpo_seconds <= SECONDS,
    )


def recorded(claims: Claims) -> None:
    """What the benchmark found, seed by seed."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("nano-seed*.json"))]
    rates = [item["sft"]["pass_rates"]["unseen_tasks/greedy"]["pass_at_1"] for item in found]
    claims.line(
        "recorded: greedy pass@1 on unseen tasks after imitation, by seed",
        ", ".join(f"{rate:.3f}" for rate in rates),
        f">= {GREEDY} each",
        bool(rates) and min(rates) >= GREEDY,
    )
    measured = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("nano-rewards-seed*.json"))]
    gains = []
    for item in measured:
        sampled = [item[part]["pass_rates"]["unseen_tasks/sampled"] for part in ("start", "grpo", "control")]
        gains.append(sampled[1]["pass_at_1"] - sampled[2]["pass_at_1"])
        shown = "; ".join(
            f"{name} {rate['pass_at_1']:.3f} [{rate['interval_95'][0]:.3f}, {rate['interval_95'][1]:.3f}]"
            for name, rate in zip(("start", "rewards", "control"), sampled, strict=True)
        )
        print(f"      seed {item['seed']}: {shown}; {sampled[0]['tasks']} tasks, {sampled[0]['episodes']} episodes")
    full = [
        item
        for item in measured
        if item["grpo"]["pass_rates"]["unseen_tasks/sampled"]["tasks"] >= 300
        and item["grpo"]["pass_rates"]["unseen_tasks/sampled"]["episodes"] >= 1200
    ]
    claims.line(
        "recorded: rewards beside an equal time of imitation, seeds with >= 300 tasks x 4 draws (gains: "
        + ", ".join(f"{gain:+.3f}" for gain in gains)
        + ")",
        str(len(full)),
        f">= {SEEDS}",
        len(full) >= SEEDS,
    )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    claims = Claims()
    if not fast:
        demo_trains(claims)
    recorded(claims)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
