"""A run in a process of its own, for tests that kill it: `python killed_run.py PHASE FOLDER` prints each step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.run_folder import RunFolder, StepReport
from envsynth.train.sft import SftConfig, SftRun
from tests.train.conftest import SMALL, bandit_lessons, bandits

STEPS = 9


def make_run(phase: str, folder: Path) -> SftRun | GrpoRun:
    """The run of a phase, from the beginning; every process makes the same one."""
    prepare_cpu(1)
    torch.manual_seed(0)
    policy = Policy(SMALL, seed=1)
    fast = OptimizerConfig(muon_lr=0.05, adamw_lr=0.03)
    if phase == "sft":
        schedule = SftConfig(steps=STEPS, seed=3, batch_tokens=64, checkpoint_every=2, optimizer=fast)
        return SftRun(RunFolder(folder), policy, bandit_lessons(), schedule)
    schedule = SftConfig(steps=24, seed=1, batch_tokens=256, warmup_steps=2, optimizer=fast)
    SftRun(RunFolder(folder.with_name(f"{folder.name}-before")), policy, bandit_lessons(), schedule).run()
    config = GrpoRunConfig(
        steps=STEPS,
        seed=5,
        tasks_per_step=2,
        group_size=6,
        max_refills=1,
        mini_batches=2,
        warmup_steps=0,
        checkpoint_every=2,
        max_turn_tokens=6,
        top_p=0.95,
        loss=GrpoConfig(kl_beta=0.01),
        optimizer=OptimizerConfig(muon_lr=0.01, adamw_lr=4e-3),
    )
    return GrpoRun(RunFolder(folder), policy, bandits(6, 6), config)


def tell(report: StepReport) -> None:
    print(report.step, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    make_run(sys.argv[1], Path(sys.argv[2])).run(on_step=tell)
