"""Train the nano policy from random weights by imitation, and measure it on tasks that it has never seen.

`python benchmarks/nano.py --seconds 150 --run FOLDER` writes `benchmarks/results/nano.json`: pass@1 greedy and sampled
(four draws), on names from the training distribution and on held-out names, with intervals over worlds; hardware,
versions, seed. With `--grpo-seconds` it goes on from there by rewards and measures again, beside a control that goes on
by imitation for the same seconds. `--steps` gives imitation a budget of steps instead, for a machine that is not idle.
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
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.rollout import Stage
from envsynth.train.actor import policy_factory
from envsynth.train.collect import Stock
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.run_folder import METRICS, TIMINGS, RunFolder, StepReport
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.traces import many_lessons
from envsynth.train.training import TrainConfig, Watch, nano_pairs, run_training

RESULTS = Path(__file__).parent / "results"
SLOTS = 48


def measure(checkpoint: Path, options: argparse.Namespace, threads: int) -> dict:
    """Greedy and sampled pass@1 on unseen tasks, by names and by kind."""
    found = {}
    for names, held_out in (("unseen_tasks", False), ("unseen_names", True)):
        pairs, kinds = nano_pairs(options.tasks, f"{options.seed}/benchmark", held_out=held_out)
        for manner, temperature, n in (("greedy", 0.0, 1), ("sampled", 1.0, options.draws)):
            factory = policy_factory(
                checkpoint, temperature=temperature, seed=options.seed, n_slots=SLOTS, threads=threads
            )
            began = time.monotonic()
            report = evaluate(pairs, factory, n, (1,), options.seed, options=EvaluationOptions(slots=SLOTS))
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
    if report.step % (25 if report.phase == "sft" else 1) == 0:
        names = ("loss/sft", "accuracy/action", "loss/indexer", "reward/mean", "groups/flat_share", "entropy")
        shown = {name: round(report.metrics[name], 3) for name in names if name in report.metrics}
        print(f"{report.phase} {report.step} t={report.elapsed_s:.0f}", shown, flush=True)


def summary(run: Path, phase: str) -> dict:
    """Steps, tokens, rate, and forty points of the curve, from what the run wrote; a run that was resumed is whole."""
    shown = ("accuracy/action", "loss/action", "reward/mean")
    metrics = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    steps = {line["step"]: line for line in metrics if line["phase"] == phase}
    timings = [json.loads(line) for line in (run / TIMINGS).read_text().splitlines()]
    times = {line["step"]: line for line in timings if line["phase"] == phase}
    tokens, seconds = sum(times[step]["tokens"] for step in steps), times[max(steps)]["elapsed_s"]
    return {
        "steps": len(steps),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_s": round(tokens / max(seconds, 1e-9), 1),
        "curve": [
            {"step": step, "s": times[step]["elapsed_s"]}
            | {name: round(line[name], 3) for name in shown if name in line}
            for step, line in list(steps.items())[:: max(len(steps) // 40, 1)]
        ],
    }


def go_on(start: Path, options: argparse.Namespace, threads: int) -> dict:
    """From the same weights for the same seconds: by rewards, and by imitation."""
    pairs, kinds = nano_pairs(2000, f"{options.seed}/grpo")
    found = {}
    stages = [Stage(pairs) for _ in range(SLOTS)]
    rewards = GrpoRun(
        RunFolder(options.run / "by-rewards"),
        load_checkpoint(start).policy(),
        Stock(envs=stages, tasks=tuple(kinds), domains=kinds),
        GrpoRunConfig(seconds=options.grpo_seconds, seed=options.seed),
    )
    end = rewards.run(on_step=show)
    for stage in stages:
        stage.close()
    found["grpo"] = summary(rewards.folder.path, "grpo") | {"pass_rates": measure(end, options, threads)}
    control = SftRun(
        RunFolder(options.run / "by-imitation"),
        load_checkpoint(start).policy(),
        many_lessons(options.lessons, options.seed + 1000, max_tokens=256, workers=2),
        SftConfig(
            seconds=options.grpo_seconds,
            seed=options.seed + 1000,
            dense_share=0.0,
            optimizer=OptimizerConfig(muon_lr=6e-3, adamw_lr=1e-3),
        ),
    )
    end = control.run(on_step=show)
    found["control"] = summary(control.folder.path, "sft") | {"pass_rates": measure(end, options, threads)}
    return found


def machine(load_before: tuple[float, float, float]) -> dict:
    """Where it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": model,
        "cpus_usable": len(os.sched_getaffinity(0)),
        "load_before": load_before,
        "load_after": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "revision": git_revision(Path(__file__).resolve().parents[1]),
    }


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="seconds of imitation")
    parser.add_argument("--steps", type=int, default=None, help="steps of imitation instead of seconds")
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
    config = TrainConfig(
        seed=options.seed,
        sft_steps=options.steps,
        sft_seconds=None if options.steps else options.seconds,
        lessons=options.lessons,
        threads=options.threads,
    )
    trained = run_training(options.run, config, watch=Watch(on_step=show))
    wall_s, policy = time.monotonic() - began, load_checkpoint(trained.best).policy()
    result = {
        "what": "nano policy from random weights by imitation of planner traces",
        "seed": options.seed,
        "threads": trained.threads,
        "parameters": sum(item.numel() for item in policy.parameters()),
        "sft": summary(options.run, "sft")
        | {"lessons": options.lessons, "seconds_with_lessons": round(wall_s, 1)}
        | {"pass_rates": measure(trained.best, options, trained.threads)},
    }
    if options.grpo_seconds:
        result |= go_on(trained.best, options, trained.threads)
    result["environment"] = machine(load)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
