"""Checkpoints: a folder with weights, training state and a JSON record, complete or absent, and checked when it is read.

    step-00000120/
        checkpoint.json          what it is: configuration, seed, step, hashes, state of the loop, digests of the files
        policy.safetensors       weights and buffers of the policy
        training.safetensors     optimizer, random number generator, reference policy: what a continuation needs

A folder is written under another name, flushed to the disk, and renamed. So a process that is killed leaves either the
whole checkpoint or none, and a folder that lacks a file or has another digest was damaged later.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.config import PolicyConfig
from envsynth.policy.model import Policy
from envsynth.policy.whole_folder import whole_folder

FORMAT: Final = "envsynth-checkpoint/1"
"""Version of the format."""
RECORD, WEIGHTS, TRAINING = "checkpoint.json", "policy.safetensors", "training.safetensors"
FOLDER: Final = "step-{:08d}"
"""Name of a checkpoint inside a run, by step."""
_TORCH_RNG = "rng.torch"


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """What a checkpoint says of itself; the JSON half."""

    config: PolicyConfig
    """The policy's configuration."""
    vocabulary: str
    """Hash of the vocabulary that the policy reads."""
    seed: int
    """Seed of the run."""
    step: int
    """Optimizer steps so far (count), of the phase."""
    phase: str
    """Which loop wrote it: `sft` or `grpo`."""
    data: str
    """Hash of what it trains on: suite or traces."""
    metrics_bytes: int
    """Length of the metrics file at this step (bytes); a continuation cuts it there."""
    revision: str | None = None
    """Git revision of the code, if it is a checkout."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """State of the loop, as JSON."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint in memory."""

    record: CheckpointRecord
    """What it is."""
    weights: Mapping[str, Tensor]
    """Weights and buffers of the policy, by name."""
    training: Mapping[str, Tensor]
    """Training state, by name; keys `rng.*` are generators."""
    python_rng: Any = None
    """State of Python's generator, as JSON."""

    def policy(self) -> Policy:
        """Make the policy.

        Returns:
            A policy with these weights, in training mode.

        Raises:
            CheckpointError: the weights do not fit the configuration.
        """
        policy = Policy(self.record.config, seed=self.record.seed)
        try:
            policy.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit the stored configuration: {error}") from error
        return policy

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the training tensors below a prefix, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): item for name, item in self.training.items() if name.startswith(start)}

    def restore_rng(self) -> None:
        """Set the random number generators of this process to where they were.

        Raises:
            CheckpointError: the checkpoint holds no such state.
        """
        if _TORCH_RNG not in self.training or self.python_rng is None:
            raise CheckpointError("the checkpoint holds no random number state: it was not written by a training run")
        torch.set_rng_state(self.training[_TORCH_RNG])
        version, numbers, gauss = self.python_rng
        random.setstate((version, tuple(numbers), gauss))


def save_checkpoint(
    folder: Path, record: CheckpointRecord, policy: Policy, training: Mapping[str, Tensor] | None = None
) -> None:
    """Write a checkpoint, whole or not at all. The states of the random number generators of this process go with it.

    Args:
        folder: Where; a checkpoint that is there is replaced.
        record: What it is.
        policy: The weights.
        training: Named tensors that a continuation needs.

    Raises:
        CheckpointError: it cannot be written.
    """
    extra = {**(training or {}), _TORCH_RNG: torch.get_rng_state()}
    files = {
        WEIGHTS: save({name: item.detach().contiguous() for name, item in policy.state_dict().items()}),
        TRAINING: save({name: item.detach().contiguous() for name, item in extra.items()}),
    }
    version, numbers, gauss = random.getstate()
    content = {
        "format": FORMAT,
        **{item.name: getattr(record, item.name) for item in fields(record)},
        "config": record.config.to_dict(),
        "state": dict(record.state),
        "python_rng": [version, list(numbers), gauss],
        "files": {name: _digest(data) for name, data in files.items()},
    }
    files[RECORD] = json.dumps(content, indent=1, allow_nan=False).encode()
    try:
        with whole_folder(folder) as fresh:
            for name, data in files.items():
                (fresh / name).write_bytes(data)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {folder}: {error}; free space or choose another folder"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, or the newest one of a run.

    Args:
        folder: A checkpoint, or the folder of a run.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged or of another format.
    """
    folder = find_checkpoint(folder)
    try:
        content = json.loads((folder / RECORD).read_bytes())
        files = {name: (folder / name).read_bytes() for name in (WEIGHTS, TRAINING)}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged: {error}; use an earlier one") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"the checkpoint {folder} has format {found!r}, this envsynth reads {FORMAT!r}: train again"
        )
    for name, data in files.items():
        if content.get("files", {}).get(name) != _digest(data):
            raise CheckpointError(f"the checkpoint {folder} is damaged: {name} has another digest; use an earlier one")
    try:
        kept = {item.name: content[item.name] for item in fields(CheckpointRecord)}
        record = CheckpointRecord(**{**kept, "config": PolicyConfig.from_dict(content["config"])})
        weights, training = load(files[WEIGHTS]), load(files[TRAINING])
    except (KeyError, TypeError, SpecError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error!r}; use an earlier one") from error
    return Checkpoint(record=record, weights=weights, training=training, python_rng=content["python_rng"])


def find_checkpoint(folder: Path) -> Path:
    """Find the newest checkpoint of a folder.

    Args:
        folder: A checkpoint itself, or the folder of a run.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: there is none.
    """
    if (folder / RECORD).is_file():
        return folder
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"no checkpoint in {folder}: give the folder of a run, or of one of its checkpoints")
    return found[-1]


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, the oldest step first; the later phase counts as later."""
    found = [item.parent for item in folder.glob(f"*/*/{RECORD}")]
    phases = {"sft": 0, "grpo": 1}
    return sorted(found, key=lambda item: (phases.get(item.parent.name, -1), item.name))


def check_vocabulary(record: CheckpointRecord, vocabulary: str) -> None:
    """Refuse a policy that reads other tokens.

    Args:
        record: Of the checkpoint.
        vocabulary: Hash of the vocabulary in use.

    Raises:
        CheckpointError: the two differ.
    """
    if record.vocabulary != vocabulary:
        raise CheckpointError(
            f"the checkpoint was trained on vocabulary {record.vocabulary[:12]}, this envsynth has {vocabulary[:12]}:"
            " train again, or use the envsynth that wrote it"
        )


def git_revision(folder: Path) -> str | None:
    """Return the git revision of a checkout, or None when the folder is none; its parents may be somebody else's.

    Args:
        folder: Root of the checkout.

    Returns:
        The revision, 40 hexadecimal digits.
    """
    git = folder / ".git"
    if not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = (git / "packed-refs").read_text().splitlines() if (git / "packed-refs").is_file() else []
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
