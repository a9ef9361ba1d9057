"""A whole training run of a tier in one folder: lessons, supervised fine-tuning, reinforcement learning; resumable."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_args

import torch

from envsynth import __version__
from envsynth.author.procedural.nano import nano_tasks
from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import git_revision, list_checkpoints, load_checkpoint
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.presets import nano
from envsynth.policy.tokens import VOCABULARY_HASH, VOCABULARY_SIZE
from envsynth.rollout import make_stages
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.train import grpo_loop, sft
from envsynth.train.collect import Stock
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.grpo_update import IndexerTraining
from envsynth.train.run_folder import CONFIG, SOURCE, RunFolder, StepReport, StopRequest
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.threads import choose_threads
from envsynth.train.traces import many_lessons

TIERS = ("nano",)
"""Tiers that can be trained on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train and for how long. A phase without a budget is left out.

    Raises:
        SpecError: a value is out of range, no phase has a budget, or one has two.
    """

    tier: str = "nano"
    """Which tasks."""
    seed: int = 0
    """Seed of weights, lessons, tasks and sampling."""
    sft_steps: int | None = None
    """Budget of supervised fine-tuning in steps (count)."""
    sft_seconds: float | None = None
    """The same in seconds; making the lessons is not counted."""
    grpo_steps: int | None = None
    """Budget of reinforcement learning in steps (count)."""
    grpo_seconds: float | None = None
    """The same in seconds."""
    lessons: int = 8000
    """Tasks whose planner traces are imitated (count)."""
    grpo_tasks: int = 1000
    """Tasks that are played for rewards (count); none of them is a lesson's."""
    slots: int = 48
    """Environments that run at the same time (count)."""
    threads: int | None = None
    """Threads of tensor operations; None measures what is fastest, and the run keeps it."""
    indexer: IndexerTraining = "kl"
    """How the indexer fares in reinforcement learning."""

    def __post_init__(self) -> None:
        if self.indexer not in get_args(IndexerTraining):
            raise SpecError(f"indexer must be one of {get_args(IndexerTraining)}, got {self.indexer!r}")
        if self.tier not in TIERS:
            raise SpecError(f"no tier is called {self.tier!r}: use one of {', '.join(TIERS)}")
        for name in ("lessons", "grpo_tasks", "slots"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise SpecError(f"seed must not be negative, got {self.seed}")
        for phase in ("sft", "grpo"):
            if getattr(self, f"{phase}_steps") is not None and getattr(self, f"{phase}_seconds") is not None:
                raise SpecError(f"{phase} has two budgets: give steps or seconds")
        if self.sft is None and self.grpo is None:
            raise SpecError("nothing to do: give a budget for SFT or GRPO, in steps or seconds")

    @property
    def sft(self) -> SftConfig | None:
        """Configuration of the first phase; None without a budget."""
        if self.sft_steps is None and self.sft_seconds is None:
            return None
        return SftConfig(steps=self.sft_steps, seconds=self.sft_seconds, seed=self.seed)

    @property
    def grpo(self) -> GrpoRunConfig | None:
        """Configuration of the second phase; None without a budget."""
        if self.grpo_steps is None and self.grpo_seconds is None:
            return None
        weight = GrpoRunConfig.indexer_kl_weight if self.indexer == "kl" else 0.0
        return GrpoRunConfig(steps=self.grpo_steps, seconds=self.grpo_seconds, seed=self.seed, indexer_kl_weight=weight)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told what; all of it optional."""

    on_lessons: Callable[[int], None] | None = None
    """Told of lessons that were made (count)."""
    on_step: Callable[[StepReport], None] | None = None
    """Told of each step."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run left."""

    sft: Path | None
    """Last checkpoint of supervised fine-tuning."""
    grpo: Path | None
    """Last checkpoint of reinforcement learning."""
    threads: int
    """Threads that it used."""
    indexer: IndexerTraining = "kl"
    """How the indexer fared in reinforcement learning."""

    @property
    def best(self) -> Path:
        """The checkpoint to play: the later phase's.

        Raises:
            CheckpointError: there is none.
        """
        found = self.grpo or self.sft
        if found is None:
            raise CheckpointError("the run left no checkpoint: train it again")
        return found


def run_training(path: Path, config: TrainConfig | None = None, *, watch: Watch | None = None) -> Trained:
    """Train in a folder, from the beginning or from where an interrupted run stopped.

    On Ctrl-C or SIGTERM the step under way is finished and stored, and KeyboardInterrupt goes on to the caller.

    Args:
        path: Folder of the run.
        config: What to do; None continues the run that is in the folder, with its own configuration.
        watch: Who is told.

    Returns:
        The checkpoints.

    Raises:
        SpecError: the folder holds a run and a configuration was given.
        CheckpointError: the folder holds no run to continue, or its checkpoints are damaged.
        KeyboardInterrupt: it was interrupted, after a checkpoint.
    """
    watch = watch or Watch()
    config = _stored(path) if config is None else config
    fresh = not (path / CONFIG).exists()
    folder = RunFolder(path)
    threads = config.threads or choose_threads()
    config = replace(config, threads=threads)
    if fresh:
        folder.write_config(_about(config))
    prepare_cpu(threads)
    torch.manual_seed(config.seed)
    policy = Policy(nano(VOCABULARY_SIZE), seed=config.seed)
    with StopRequest() as stop:
        first = _run_sft(folder, policy, config, watch, stop)
        second = None if stop.asked else _run_grpo(folder, policy, config, watch, stop)
    if stop.asked:
        raise KeyboardInterrupt
    return Trained(sft=first, grpo=second, threads=threads, indexer=config.indexer)


def new_run(path: Path) -> None:
    """Refuse a folder that holds a run already.

    Raises:
        SpecError: it does.
    """
    if (path / CONFIG).exists():
        raise SpecError(f"{path} holds a run: continue it with --resume, or choose another folder with --out")


def nano_pairs(
    count: int, seed: str, *, held_out: bool = False
) -> tuple[list[tuple[EnvironmentSpec, TaskVersion]], dict[str, str]]:
    """Draw tasks of the nano tier to play.

    Args:
        count: How many.
        seed: Equal seeds give equal tasks; lessons have other seeds.
        held_out: Whether nouns and fields are of the held-out list.

    Returns:
        Tasks with their environments, and the kind of each task by hash.
    """
    found = list(nano_tasks(count, seed, held_out=held_out))
    return [(item.environment, item.task) for item in found], {item.task.hash: item.kind for item in found}


def _run_sft(folder: RunFolder, policy: Policy, config: TrainConfig, watch: Watch, stop: StopRequest) -> Path | None:
    if config.sft is None:
        return None
    done = list_checkpoints(folder.path)
    if done and done[-1].parent.name == grpo_loop.PHASE:
        return (folder.checkpoints(sft.PHASE) or [None])[-1]
    lessons = many_lessons(
        config.lessons,
        config.seed,
        max_tokens=policy.config.max_position_embeddings,
        workers=len(os.sched_getaffinity(0)),
        on_chunk=watch.on_lessons,
    )
    run = SftRun(folder, policy, lessons, config.sft)
    if done:
        run.resume(load_checkpoint(done[-1]))
    return run.run(stop=stop, on_step=watch.on_step)


def _run_grpo(folder: RunFolder, policy: Policy, config: TrainConfig, watch: Watch, stop: StopRequest) -> Path | None:
    if config.grpo is None:
        return None
    pairs, kinds = nano_pairs(config.grpo_tasks, f"{config.seed}/grpo")
    stages = make_stages(pairs, config.slots)
    try:
        stock = Stock(envs=stages, tasks=tuple(kinds), domains=kinds)
        run = GrpoRun(folder, policy, stock, config.grpo)
        if done := folder.checkpoints(grpo_loop.PHASE):
            run.resume(load_checkpoint(done[-1]))
        return run.run(stop=stop, on_step=watch.on_step)
    finally:
        for stage in stages:
            stage.close()


def _about(config: TrainConfig) -> dict[str, object]:
    return {
        "options": asdict(config),
        "envsynth": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "revision": git_revision(SOURCE),
        "vocabulary": VOCABULARY_HASH,
    }


def _stored(path: Path) -> TrainConfig:
    try:
        options = json.loads((path / CONFIG).read_bytes())["options"]
        return TrainConfig(**{item.name: options[item.name] for item in fields(TrainConfig) if item.name in options})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no run to continue: {error!r}; start one without --resume") from error
