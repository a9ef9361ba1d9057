"""Train the nano policy from random weights, and measure it on tasks that it has never seen.

`python benchmarks/nano.py --run FOLDER --out FILE` imitates for 210 seconds and plays: pass@1 greedy and sampled (four
draws), on names from the training distribution and on held-out names, with intervals over worlds; hardware, versions,
seed. `--steps` gives a budget of steps instead, for a machine that is not idle.

With `--grpo-seconds` it asks what rewards are worth where solutions are scarce: it imitates few lessons until more steps
hardly help, then goes on by rewards; beside it two controls go on by imitation for the same seconds, one of the same few
lessons and one of new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from envsynth.evaluate import EvaluationOptions, evaluate
from envsynth.executors import run_all
from envsynth.policy.checkpoint import git_revision, load_checkpoint
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.policy.presets import nano
from envsynth.policy.tokens import VOCABULARY_SIZE
from envsynth.rollout import make_stages
from envsynth.train.actor import policy_factory
from envsynth.train.collect import Stock
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.run_folder import METRICS, TIMINGS, RunFolder, StepReport
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.threads import choose_threads
from envsynth.train.traces import Lesson, many_lessons
from envsynth.train.training import TrainConfig, Watch, nano_pairs, run_training

RESULTS = Path(__file__).parent / "results"


def measure(checkpoint: Path, options: argparse.Namespace, threads: int, *, names_too: bool = True) -> dict:
    """Greedy and sampled pass@1 on unseen tasks by kind, and on tasks whose names no lesson has."""
    found = {}
    for names, held_out in (("unseen_tasks", False), *((("unseen_names", True),) if names_too else ())):
        pairs, kinds = nano_pairs(options.tasks, f"{options.seed}/benchmark", held_out=held_out)
        for manner, temperature, n in (("greedy", 0.0, 1), ("sampled", 1.0, options.draws)):
            factory = policy_factory(
                checkpoint, temperature=temperature, seed=options.seed, n_slots=options.slots, threads=threads
            )
            began = time.monotonic()
            report = evaluate(pairs, factory, n, (1,), options.seed, options=EvaluationOptions(slots=options.slots))
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


CONTINUATIONS = ("start", "grpo", "control", "control_with_new_lessons")
"""The start itself, and the three ways to go on from it."""


@dataclass(frozen=True)
class GoOn:
    """Goes on from a start in one way, and measures; picklable, so that the ways can run side by side."""

    options: argparse.Namespace
    begin: Path
    threads: int

    def __call__(self, name: str) -> dict:
        """Go on and measure.

        Args:
            name: One of CONTINUATIONS.

        Returns:
            What its run wrote, and its pass rates.
        """
        prepare_cpu(self.threads)
        options = self.options
        if name == "start":
            return summary(options.run / "few", "sft") | {
                "pass_rates": measure(self.begin, options, self.threads, names_too=False)
            }
        run = self.rewards() if name == "grpo" else self.imitation(name)
        phase = "grpo" if name == "grpo" else "sft"
        return summary(options.run / name, phase) | {"pass_rates": measure(run, options, self.threads, names_too=False)}

    def rewards(self) -> Path:
        """Reinforcement learning on tasks that no lesson has."""
        pairs, kinds = nano_pairs(2000, f"{self.options.seed}/grpo")
        stages = make_stages(pairs, self.options.slots)
        run = GrpoRun(
            RunFolder(self.options.run / "grpo"),
            load_checkpoint(self.begin).policy(),
            Stock(envs=stages, tasks=tuple(kinds), domains=kinds),
            GrpoRunConfig(seconds=self.options.grpo_seconds, seed=self.options.seed),
        )
        end = run.run(on_step=show)
        for stage in stages:
            stage.close()
        return end

    def imitation(self, name: str) -> Path:
        """The control: more imitation for the same seconds, of the same lessons or of new ones."""
        options = self.options
        if name == "control":
            lessons = few_lessons(options)
        else:
            lessons = many_lessons(8000, options.seed + 1000, max_tokens=256, workers=1)
        config = SftConfig(
            seconds=options.grpo_seconds,
            seed=options.seed + 1000,
            dense_share=0.0,
            indexer_start=0.0,
            optimizer=OptimizerConfig(muon_lr=4e-3, adamw_lr=3e-3),
        )
        run = SftRun(RunFolder(options.run / name), load_checkpoint(self.begin).policy(), lessons, config)
        return run.run(on_step=show)


def few_lessons(options: argparse.Namespace) -> list[Lesson]:
    """The few lessons; always the same ones of a seed."""
    return many_lessons(options.few, options.seed, max_tokens=256, workers=1)


def go_on(options: argparse.Namespace, threads: int) -> dict:
    """Few solutions, many tasks: imitate them, then rewards beside as many seconds of imitation."""
    folder = RunFolder(options.run / "few")
    done = folder.checkpoints("sft")
    config = SftConfig(steps=options.few_steps, seed=options.seed)
    start = SftRun(folder, Policy(nano(VOCABULARY_SIZE), seed=options.seed), few_lessons(options), config)
    if done:
        start.resume(load_checkpoint(done[-1]))
    begin = start.run(on_step=show)
    if options.start_only:
        return {}
    parts = run_all(GoOn(options, begin, threads), list(CONTINUATIONS), workers=options.workers)
    return {"few_lessons": options.few, "workers": options.workers} | dict(zip(CONTINUATIONS, parts, strict=True))


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


def imitate(options: argparse.Namespace) -> tuple[dict, int]:
    """Plenty of solutions: the training of `envsynth train` and of the demo."""
    began = time.monotonic()
    config = TrainConfig(
        seed=options.seed,
        sft_steps=options.steps,
        sft_seconds=None if options.steps else options.seconds,
        lessons=options.lessons,
        threads=options.threads,
    )
    trained = run_training(options.run, config, watch=Watch(on_step=show))
    wall_s = time.monotonic() - began
    found = summary(options.run, "sft") | {"lessons": options.lessons, "seconds_with_lessons": round(wall_s, 1)}
    return {"sft": found | {"pass_rates": measure(trained.best, options, trained.threads)}}, trained.threads


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=210.0, help="seconds of imitation")
    parser.add_argument("--steps", type=int, default=None, help="steps of imitation instead of seconds")
    parser.add_argument("--lessons", type=int, default=8000)
    parser.add_argument("--grpo-seconds", type=float, default=0.0, help="seconds of rewards, and of each control")
    parser.add_argument("--few", type=int, default=1000, help="lessons that are imitated before the rewards")
    parser.add_argument("--few-steps", type=int, default=1200, help="steps of that imitation")
    parser.add_argument("--start-only", action="store_true", help="only that imitation; the same command goes on later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=300, help="unseen tasks (>= 300 for a figure)")
    parser.add_argument("--draws", type=int, default=4, help="sampled episodes of each task")
    parser.add_argument("--threads", type=int, default=None, help="threads of each process")
    parser.add_argument("--start-threads", type=int, default=None, help="threads of the imitation before the rewards")
    parser.add_argument("--workers", type=int, default=1, help="continuations that run side by side")
    parser.add_argument("--slots", type=int, default=48, help="environments at the same time")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--out", type=Path, default=RESULTS / "nano.json")
    options = parser.parse_args()
    load = os.getloadavg()
    torch.manual_seed(options.seed)
    if options.grpo_seconds:
        threads = options.threads or choose_threads()
        prepare_cpu(options.start_threads or threads)
        what, found = "few solutions, then rewards beside as many seconds of imitation", go_on(options, threads)
    else:
        what = "from random weights by imitation of planner traces"
        found, threads = imitate(options)
    if not found:
        return
    parameters = sum(item.numel() for item in Policy(nano(VOCABULARY_SIZE)).parameters())
    result = {"what": f"nano policy: {what}", "seed": options.seed, "threads": threads, "parameters": parameters}
    result |= found | {"environment": machine(load)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
