"""A policy learns, from random weights, in minutes: what `envsynth demo` shows of training.

Imitation with a curve, a short while of rewards, and beside it the same while of more imitation; pass@1 on tasks that no
lesson held, greedy and sampled, before and after each, and on tasks whose names stand in no lesson. The result is kept in
the folder, so that a demo that is run again shows the same figures.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from envsynth.errors import SpecError
from envsynth.evaluate import EvaluationOptions, evaluate
from envsynth.policy.checkpoint import CheckpointRecord, git_revision, load_checkpoint, save_checkpoint
from envsynth.policy.model import Policy
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.policy.presets import nano
from envsynth.policy.tokens import VOCABULARY_HASH, VOCABULARY_SIZE
from envsynth.rollout import make_stages
from envsynth.train import sft
from envsynth.train.actor import policy_factory
from envsynth.train.collect import Stock
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.run_folder import CONFIG, TIMINGS, RunFolder, StepReport
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.traces import Lesson, many_lessons
from envsynth.train.training import TrainConfig, Watch, nano_pairs, run_training
from envsynth.view import PolicyRow, TrainingSection

CURVE_POINTS: Final = 120
"""Points of the learning curve that a report shows."""
RANDOM: Final = "random weights"
"""The stage before any training."""
CONTROL_LESSONS: Final = 1500
"""Lessons of the control without few: the first ones of the imitation, more than half a minute gets through."""
RESULT: Final = "showcase.json"
"""File that keeps the result."""


@dataclass(frozen=True, kw_only=True)
class ShowcaseConfig:
    """How long and on how much.

    Raises:
        SpecError: a value is out of range.
    """

    sft_seconds: float = 170.0
    """Seconds of imitation, without the making of lessons."""
    grpo_seconds: float = 30.0
    """Seconds of rewards, and again of the control."""
    few: int = 0
    """Lessons of another imitation, from which rewards and control go on: rewards are for where solutions are scarce
    (count); 0 goes on from the imitation of all lessons."""
    few_steps: int = 1200
    """Steps of that other imitation (count)."""
    lessons: int = 8000
    """Tasks whose solutions are imitated (count)."""
    tasks: int = 60
    """Unseen tasks that are played (count)."""
    draws: int = 4
    """Sampled episodes of each (count)."""
    slots: int = 48
    """Episodes at the same time (count)."""
    groups: int = 12
    """Groups of episodes that are played first in a step of rewards (count)."""
    seed: int = 0
    """Seed of everything but the clock."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name in ("seed", "few") else 1):
                raise SpecError(f"ShowcaseConfig.{name} is {value}, which is out of range")


def run_showcase(
    folder: Path,
    config: ShowcaseConfig | None = None,
    *,
    say: Callable[[str], None] = lambda message: None,
    on_lessons: Callable[[int], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainingSection:
    """Train and measure, or give what an earlier call in this folder measured.

    Args:
        folder: Where runs and result go.
        config: How long.
        say: Called with a line about each stage.
        on_lessons: Told of lessons that were made (count).
        on_step: Told of each training step.

    Returns:
        The section of the report.

    Raises:
        CheckpointError: the folder holds a damaged run.
        KeyboardInterrupt: it was interrupted; the imitation under way goes on when called again.
    """
    kept = folder / RESULT
    if kept.exists():
        say("a policy was trained by an earlier call")
        return _read(json.loads(kept.read_text()))
    config = config or ShowcaseConfig()
    began = time.monotonic()
    run = folder / "run"
    say(f"training a policy from random weights: {config.sft_seconds:.0f} s of imitation")
    options = TrainConfig(seed=config.seed, sft_seconds=config.sft_seconds, lessons=config.lessons, slots=config.slots)
    asked = None if (run / CONFIG).exists() else options
    trained = run_training(run, asked, watch=Watch(on_lessons=on_lessons, on_step=on_step))
    imitated, threads = trained.best, trained.threads
    stages = {RANDOM: _fresh(folder / "random", config.seed), "after imitation (SFT)": imitated}
    start = imitated
    if config.few:
        say(f"imitation of {config.few} lessons alone, to go on from")
        start = _imitated(folder / "few", config, on_step)
        stages[f"imitation of {config.few} lessons alone"] = start
    say(f"{config.grpo_seconds:.0f} s of rewards (GRPO), then as long of more imitation")
    stages["then rewards (GRPO)"] = _rewarded(folder / "by-rewards", start, config, on_step)
    stages["control: as long of more imitation"] = _control(folder / "by-imitation", start, config, on_step)
    say(f"playing {config.tasks} unseen tasks with each, greedily and {config.draws} times sampled")
    rows = [row for stage, checkpoint in stages.items() for row in _measure(stage, checkpoint, config, threads)]
    rows += _measure("after imitation; names that no lesson has", imitated, config, threads, held_out=True)
    section = TrainingSection(
        parameters=sum(item.numel() for item in load_checkpoint(imitated).policy().parameters()),
        threads=threads,
        seconds=time.monotonic() - began,
        sft_seconds=config.sft_seconds,
        grpo_seconds=config.grpo_seconds,
        curve=_curve(run),
        rows=tuple(rows),
        torch=torch.__version__,
    )
    kept.write_text(json.dumps(asdict(section), indent=1) + "\n")
    return section


def _fresh(path: Path, seed: int) -> Path:
    """A checkpoint of the weights that training starts from."""
    record = CheckpointRecord(
        config=nano(VOCABULARY_SIZE),
        vocabulary=VOCABULARY_HASH,
        seed=seed,
        step=0,
        phase=sft.PHASE,
        data="",
        metrics_bytes=0,
        revision=git_revision(Path(__file__)),
        state={},
    )
    torch.manual_seed(seed)
    folder = RunFolder(path)
    found = folder.checkpoint(sft.PHASE, 0)
    if not found.exists():
        save_checkpoint(found, record, Policy(record.config, seed=seed), {})
    return found


def _first_lessons(config: ShowcaseConfig, count: int) -> list[Lesson]:
    return many_lessons(count, config.seed, max_tokens=nano(VOCABULARY_SIZE).max_position_embeddings, workers=2)


def _imitated(path: Path, config: ShowcaseConfig, on_step: Callable[[StepReport], None] | None) -> Path:
    torch.manual_seed(config.seed)
    policy, options = (
        Policy(nano(VOCABULARY_SIZE), seed=config.seed),
        SftConfig(steps=config.few_steps, seed=config.seed),
    )
    return SftRun(RunFolder(path), policy, _first_lessons(config, config.few), options).run(on_step=on_step)


def _rewarded(path: Path, start: Path, config: ShowcaseConfig, on_step: Callable[[StepReport], None] | None) -> Path:
    pairs, kinds = nano_pairs(600, f"{config.seed}/grpo")
    envs = make_stages(pairs, config.slots)
    try:
        stock = Stock(envs=envs, tasks=tuple(kinds), domains=kinds)
        options = GrpoRunConfig(seconds=config.grpo_seconds, seed=config.seed, tasks_per_step=config.groups)
        return GrpoRun(RunFolder(path), load_checkpoint(start).policy(), stock, options).run(on_step=on_step)
    finally:
        for env in envs:
            env.close()


def _control(path: Path, start: Path, config: ShowcaseConfig, on_step: Callable[[StepReport], None] | None) -> Path:
    """Imitation of the same lessons from the same weights for the same seconds, at a rate between start and end of SFT."""
    policy = load_checkpoint(start).policy()
    lessons = _first_lessons(config, config.few or min(config.lessons, CONTROL_LESSONS))
    options = SftConfig(
        seconds=config.grpo_seconds,
        seed=config.seed + 1000,
        dense_share=0.0,
        indexer_start=0.0,
        optimizer=OptimizerConfig(muon_lr=4e-3, adamw_lr=3e-3),
    )
    return SftRun(RunFolder(path), policy, lessons, options).run(on_step=on_step)


def _measure(
    stage: str, checkpoint: Path, config: ShowcaseConfig, threads: int, *, held_out: bool = False
) -> list[PolicyRow]:
    pairs, _ = nano_pairs(config.tasks, f"{config.seed}/unseen", held_out=held_out)
    rows: list[PolicyRow] = []
    manners = [("greedy", 0.0, 1), ("sampled", 1.0, config.draws)]
    # Random weights ramble through the whole window in every episode: once is enough to see it.
    for manner, temperature, draws in manners[:1] if stage == RANDOM else manners:
        actor = policy_factory(
            checkpoint, temperature=temperature, seed=config.seed, n_slots=config.slots, threads=threads
        )
        report = evaluate(pairs, actor, draws, (1,), config.seed, options=EvaluationOptions(slots=config.slots))
        rate = report.rate(1)
        low, high = rate.pass_at_interval or (math.nan, math.nan)
        rows.append(
            PolicyRow(
                stage=stage,
                manner=manner,
                rate=math.nan if rate.pass_at is None else rate.pass_at,
                low=low,
                high=high,
                tasks=rate.tasks,
                episodes=report.episodes,
            )
        )
    return rows


def _curve(run: Path) -> tuple[tuple[float, float], ...]:
    """Seconds of imitation and accuracy on action tokens, from the run's own files."""
    times = {line["step"]: line["elapsed_s"] for line in _lines(run / TIMINGS) if line["phase"] == sft.PHASE}
    points = [
        (float(times[line["step"]]), float(line["accuracy/action"]))
        for line in _lines(run / "metrics.jsonl")
        if line["phase"] == sft.PHASE and line["step"] in times
    ]
    return tuple(points[:: max(1, len(points) // CURVE_POINTS)])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _read(found: dict[str, Any]) -> TrainingSection:
    rows = tuple(PolicyRow(**row) for row in found["rows"])
    curve = tuple((float(second), float(share)) for second, share in found["curve"])
    return TrainingSection(**{**found, "rows": rows, "curve": curve})
