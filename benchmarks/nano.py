"""Train the nano policy from random weights by imitation, and measure it on tasks that it has never seen.

`python benchmarks/nano.py --seconds 150` writes `benchmarks/results/nano.json`: pass@1 greedy and sampled (four draws),
on names from the training distribution and on held-out names, with intervals over worlds; hardware, versions, seed.
With `--grpo-seconds` it goes on by rewards and measures again, beside a control that gets the same seconds of imitation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from envsynth.evaluate import EvaluationOptions, evaluate
from envsynth.policy.checkpoint import git_revision, load_checkpoint
from envsynth.train.actor import policy_factory
from envsynth.train.run_folder import StepReport
from envsynth.train.training import TrainConfig, Watch, nano_pairs, run_training

RESULTS = Path(__file__).parent / "results"


def measure(checkpoint: Path, tasks: int, draws: int, seed: int, threads: int) -> dict:
    """Greedy and sampled pass@1 on unseen tasks, by names and by kind."""
    found = {}
    for names, held_out in (("unseen_tasks", False), ("unseen_names", True)):
        pairs, kinds = nano_pairs(tasks, f"{seed}/benchmark", held_out=held_out)
        for manner, temperature, n in (("greedy", 0.0, 1), ("sampled", 1.0, draws)):
            factory = policy_factory(checkpoint, temperature=temperature, seed=seed, n_slots=48, threads=threads)
            began = time.monotonic()
            report = evaluate(pairs, factory, n, (1,), seed, options=EvaluationOptions(slots=48))
            rate = report.rate(1)
            by_kind: dict[str, list[float]] = {}
            for score in report.tasks:
                by_kind.setdefault(kinds[score.task], []).append(score.c / max(score.n, 1))
            found[f"{names}/{manner}"] = {
                "pass_at_1": rate.pass_at,
                "interval_95": rate.pass_at_interval,
                "tasks": rate.tasks,
                "episodes": report.episodes,
                "void": report.void,
                "stops": report.stops,
                "by_kind": {kind: round(sum(values) / len(values), 3) for kind, values in sorted(by_kind.items())},
                "seconds": round(time.monotonic() - began, 1),
            }
            print(names, manner, json.dumps(found[f"{names}/{manner}"]), flush=True)
    return found


def show(report: StepReport) -> None:
    """One line now and then."""
    every = 25 if report.phase == "sft" else 1
    if report.step % every == 0:
        names = ("loss/sft", "accuracy/action", "loss/indexer", "reward/mean", "groups/flat_share", "entropy")
        shown = {name: round(report.metrics[name], 3) for name in names if name in report.metrics}
        print(f"{report.phase} {report.step} t={report.elapsed_s:.0f}", shown, flush=True)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="seconds of imitation")
    parser.add_argument("--grpo-seconds", type=float, default=0.0, help="seconds of reinforcement learning after it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=300, help="unseen tasks (>= 300 for a figure)")
    parser.add_argument("--draws", type=int, default=4, help="sampled episodes of each task")
    parser.add_argument("--lessons", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--out", type=Path, default=RESULTS / "nano.json")
    options = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()
    steps: list[StepReport] = []

    def step(report: StepReport) -> None:
        steps.append(report)
        show(report)

    config = TrainConfig(
        seed=options.seed, sft_seconds=options.seconds, lessons=options.lessons, threads=options.threads
    )
    trained = run_training(options.run, config, watch=Watch(on_step=step))
    total = time.monotonic() - began
    tokens = sum(item.tokens for item in steps)
    policy = load_checkpoint(trained.best).policy()
    result = {
        "what": "nano policy from random weights by imitation of planner traces",
        "seed": options.seed,
        "threads": trained.threads,
        "parameters": sum(item.numel() for item in policy.parameters()),
        "sft": {
            "seconds": options.seconds,
            "steps": len(steps),
            "tokens": tokens,
            "tokens_per_s": round(tokens / max(steps[-1].elapsed_s, 1e-9), 1),
            "lessons": options.lessons,
            "seconds_with_lessons": round(total, 1),
            "curve": [
                [round(item.elapsed_s, 1), round(item.metrics["accuracy/action"], 3)]
                for item in steps[:: max(len(steps) // 40, 1)]
            ],
        },
        "pass_rates": measure(trained.best, options.tasks, options.draws, options.seed, trained.threads),
        "environment": {
            "cpu": _cpu(),
            "cpus_usable": len(os.sched_getaffinity(0)),
            "load_before": load,
            "load_after": os.getloadavg(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "revision": git_revision(Path(__file__).resolve()),
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
