"""The jobs of an experiment, what each needs, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from envsynth.policy.checkpoint import git_revision
from envsynth.policy.model import Policy
from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.measure import diagnose, measure
from envsynth.train.fidelity.stages import Bench, StageKind, load_trunk, new_policy, run_stage
from envsynth.train.run_folder import SOURCE


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage for one cell of the grid."""

    kind: StageKind
    """Which stage."""
    seed: int
    """Repetition."""
    heads: int | None = None
    """Heads of the indexer; None where it takes no part."""
    topk: int | None = None
    """Selected keys; None where every key is read."""

    @property
    def name(self) -> str:
        """Name, which is also that of its files."""
        parts = [f"seed{self.seed}", self.kind]
        if self.heads is not None:
            parts.append(f"h{self.heads}")
        if self.topk is not None:
            parts.append(f"k{self.topk}")
        return "-".join(parts)

    @property
    def needs(self) -> str | None:
        """Name of the job whose weights it starts from."""
        if self.kind == "pretrain":
            return None
        if self.kind == "sparse":
            return Job(kind="warmup", seed=self.seed, heads=self.heads).name
        return Job(kind="pretrain", seed=self.seed).name


def all_jobs(config: FidelityConfig) -> tuple[Job, ...]:
    """List the jobs of an experiment, each after the one that it needs.

    Args:
        config: The settings.

    Returns:
        The jobs.
    """
    found: list[Job] = []
    for seed in range(config.seeds):
        found.append(Job(kind="pretrain", seed=seed))
        found += [Job(kind="warmup", seed=seed, heads=heads) for heads in config.heads]
        found.append(Job(kind="twin", seed=seed))
        found += [Job(kind="sparse", seed=seed, heads=heads, topk=k) for heads in config.heads for k in config.topks]
    return tuple(found)


def run_job(
    job: Job,
    folder: FidelityFolder,
    config: FidelityConfig,
    device: torch.device,
    watch: Callable[[int, int, Mapping[str, float]], None],
) -> float:
    """Run one job and keep what it found.

    Args:
        job: The job; the one that it needs is finished.
        folder: Where results go.
        config: The settings.
        device: Where it runs.
        watch: Told now and then of steps done, all steps, and what was measured.

    Returns:
        Seconds that it took, all told.

    Raises:
        ExperimentError: training failed.
        CheckpointError: the weights that it starts from are damaged.
    """
    began = time.perf_counter()
    policy = _start(job, folder, config, device)
    found: dict[str, Any] = {**asdict(job), "name": job.name}
    if job.kind == "sparse":
        found["after_warmup"] = _look(job, policy, config, device)
    kept = folder.partial(job.name)
    bench = Bench(
        config=config,
        device=device,
        seed=job.seed,
        watch=watch,
        keep=partial(folder.keep_partial, job.name),
        kept=kept,
    )
    found["training"] = run_stage(job.kind, policy, bench).to_dict()
    if job.kind != "warmup":
        found["after"] = _look(job, policy, config, device)
    seconds = time.perf_counter() - began + (0.0 if kept is None else kept[0]["seconds"])
    found |= {
        "seconds": seconds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "revision": git_revision(SOURCE),
    }
    folder.keep(job.name, found, policy.state_dict() if job.kind in ("pretrain", "warmup") else None)
    return seconds


def _start(job: Job, folder: FidelityFolder, config: FidelityConfig, device: torch.device) -> Policy:
    """Make the policy that a job starts from."""
    # A warm-up serves every k; what it selects on the way is measured with the middle one.
    topk = job.topk or config.topks[len(config.topks) // 2]
    policy = new_policy(config.cell(job.heads or config.heads[0], topk), device, seed=job.seed)
    if job.needs is None:
        return policy
    weights = folder.weights(job.needs)
    load_trunk(policy, weights)
    if job.kind == "sparse":
        policy.load_state_dict(weights)
    return policy


def _look(job: Job, policy: Policy, config: FidelityConfig, device: torch.device) -> dict[str, Any]:
    """Measure a policy as its job reads keys."""
    is_sparse = job.kind == "sparse"
    mode = config.compute.sparse_attention if is_sparse else config.compute.dense_attention
    measured = measure(policy, config, device, seed=job.seed, dense=not is_sparse, attention=mode)
    selection = diagnose(policy, config, device, seed=job.seed) if is_sparse else None
    return {**measured.to_dict(), "selection": None if selection is None else asdict(selection)}
