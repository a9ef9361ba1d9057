"""Examine a run, or a small one made for it: `envsynth doctor train`."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from envsynth.errors import CheckpointError
from envsynth.policy.checkpoint import Checkpoint, check_vocabulary, find_checkpoint, load_checkpoint
from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.presets import nano
from envsynth.policy.tokens import VOCABULARY_HASH, VOCABULARY_SIZE
from envsynth.train import grpo_loop
from envsynth.train.doctor.checks import CHECKS, Finding, drift_in_the_run
from envsynth.train.doctor.evidence import gather, probe_config
from envsynth.train.grpo_loop import GrpoRunConfig
from envsynth.train.run_folder import RunFolder
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.threads import choose_threads
from envsynth.train.traces import nano_lessons

SMALL_LESSONS: Final = 60
"""Tasks whose traces are imitated by the run that is made when none is given (count)."""
SMALL_SFT: Final = SftConfig(steps=16, batch_tokens=1024, warmup_steps=2)
"""How they are imitated: just long enough that the policy begins to end its turns."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was examined, and what was found."""

    checkpoint: str
    """The checkpoint that played, below its run."""
    episodes: int
    """Episodes that were played (count)."""
    tokens: int
    """Tokens that were sampled in them (count)."""
    findings: tuple[Finding, ...]
    """One for each check."""

    @property
    def unhealthy(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(item for item in self.findings if item.state == "unhealthy")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "checkpoint": self.checkpoint,
            "episodes": self.episodes,
            "tokens": self.tokens,
            "healthy": not self.unhealthy,
            "findings": [{**asdict(item), "state": item.state, "value": _number(item.value)} for item in self.findings],
        }


def examine_training(folder: Path | None = None, *, seed: int = 0) -> Examination:
    """Look at the training code through a checkpoint: does it learn what was recorded, in the direction of the rewards?

    Args:
        folder: A run, or one of its checkpoints. None makes a small run in a temporary folder.
        seed: Seed of the tasks and of sampling; of the small run too.

    Returns:
        What was found.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        SpecError: no episode could be played, or the trainer refuses what was collected.
    """
    if folder is not None:
        prepare_cpu(choose_threads())
        return _examine(folder, seed)
    with tempfile.TemporaryDirectory() as made:
        return _examine(small_run(Path(made), seed), seed)


def small_run(folder: Path, seed: int) -> Path:
    """Train the smallest preset for a moment, from random weights.

    Args:
        folder: Folder of the run.
        seed: Seed of weights and lessons.

    Returns:
        Its checkpoint.
    """
    prepare_cpu(choose_threads())
    torch.manual_seed(seed)
    policy = Policy(nano(VOCABULARY_SIZE), seed=seed)
    lessons = nano_lessons(SMALL_LESSONS, seed, max_tokens=policy.config.max_position_embeddings)
    return SftRun(RunFolder(folder), policy, lessons, replace(SMALL_SFT, seed=seed)).run()


def examine_policy(policy: Policy, config: GrpoRunConfig, *, run: Path | None = None) -> tuple[Finding, ...]:
    """Run all checks on a policy.

    Args:
        policy: What is trained; it does not change.
        config: From `probe_config`.
        run: Folder of the run, for its metrics.

    Returns:
        One finding per check, in the order of `CHECKS`; the run's own drift last, where there is a run.
    """
    return _found(policy, config, run).findings


def _examine(folder: Path, seed: int) -> Examination:
    path = find_checkpoint(folder)
    checkpoint = load_checkpoint(path)
    check_vocabulary(checkpoint.record, VOCABULARY_HASH)
    run = path.parent.parent
    found = _found(checkpoint.policy(), _config(checkpoint, seed), run)
    return Examination(
        checkpoint=str(path.relative_to(run)), episodes=found.episodes, tokens=found.tokens, findings=found.findings
    )


def _found(policy: Policy, config: GrpoRunConfig, run: Path | None) -> Examination:
    evidence = gather(policy, config, run=run)
    checks = CHECKS if evidence.logged_drift is None else (*CHECKS, drift_in_the_run)
    return Examination(
        checkpoint="",
        episodes=len(evidence.trajectories),
        tokens=evidence.rescored.n_tokens,
        findings=tuple(check(evidence) for check in checks),
    )


def _config(checkpoint: Checkpoint, seed: int) -> GrpoRunConfig:
    """Play as the run did, as far as it has begun to play.

    Raises:
        CheckpointError: the checkpoint does not say.
    """
    record = checkpoint.record
    if record.phase != grpo_loop.PHASE:
        plain = GrpoRunConfig(steps=1)
        return probe_config(plain.loss, temperature=plain.temperature, top_p=plain.top_p, seed=seed)
    try:
        options = record.state["options"]
        loss = GrpoConfig(**options["loss"])
        return probe_config(loss, temperature=options["temperature"], top_p=options["top_p"], seed=seed)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint does not say how it was trained: {error!r}; use another one") from error


def _number(value: float | None) -> float | None:
    """JSON has no infinity and no NaN; the state says that it is unhealthy."""
    return value if value is not None and math.isfinite(value) else None
