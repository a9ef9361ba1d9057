"""An experiment of one cell that takes a second, and its result."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from envsynth.train.fidelity.config import EvaluationConfig, FidelityConfig, StageConfig, profile
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import GridOutcome
from envsynth.train.fidelity.jobs import all_jobs, run_job

CPU = torch.device("cpu")


def tiny() -> FidelityConfig:
    """One seed, one number of heads, two of keys, two steps of everything."""
    stage = StageConfig(steps=2, batch_tokens=128, muon_lr=0.01, rise=0)
    return replace(
        profile("smoke"),
        topks=(4, 8),
        heads=(1,),
        pretrain=stage,
        warmup=stage,
        sparse=stage,
        evaluation=EvaluationConfig(sequences=4, diagnosed=1, batch_tokens=128, points=2),
    )


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[FidelityFolder, FidelityConfig, GridOutcome]:
    """A folder whose jobs are all finished, run in this process."""
    config, path = tiny(), Path(tmp_path_factory.mktemp("fidelity"))
    folder = FidelityFolder.open(path, config)
    with contextlib.ExitStack() as stack:
        threads = torch.get_num_threads()
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        for job in all_jobs(config):
            run_job(job, folder, config, CPU, lambda step, steps, metrics: None)
    names = tuple(job.name for job in all_jobs(config))
    return folder, config, GridOutcome(finished=names, failed={}, skipped={})
