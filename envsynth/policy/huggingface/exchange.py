"""Our checkpoints as Hugging Face folders, and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from envsynth.policy.checkpoint import CheckpointRecord, load_checkpoint, save_checkpoint
from envsynth.policy.config import PolicyConfig
from envsynth.policy.huggingface.reading import CONFIG, load_huggingface
from envsynth.policy.huggingface.writing import save_huggingface
from envsynth.policy.whole_folder import check_unused

PHASE: Final = "import"
"""Phase of an imported checkpoint: no loop of ours wrote it."""
TOKENIZER: Final = "tokenizer.json"
"""Name of the file with a model's vocabulary."""


def export_checkpoint(source: Path, folder: Path) -> PolicyConfig:
    """Write a checkpoint as a folder that `transformers` reads. Its tokens are ours, and stay behind.

    Args:
        source: A checkpoint, or the folder of a run, whose newest checkpoint is taken.
        folder: Where; absent or empty.

    Returns:
        The policy's configuration.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged, or the folder cannot be written.
        SpecError: `transformers` cannot represent the policy.
    """
    checkpoint = load_checkpoint(source)
    save_huggingface(checkpoint.policy(), folder)
    return checkpoint.record.config


def import_huggingface(folder: Path, out: Path) -> CheckpointRecord:
    """Write a Hugging Face folder as a checkpoint of ours.

    Its vocabulary is not ours: training and playing our tasks with it is refused, not done on meaningless tokens.

    Args:
        folder: A Hugging Face folder.
        out: The new checkpoint; absent or empty.

    Returns:
        What the checkpoint says of itself.

    Raises:
        CheckpointError: A file is absent or damaged, tensors do not fit, or the checkpoint cannot be written.
        SpecError: The policy cannot represent the configuration.
    """
    check_unused(out)
    policy = load_huggingface(folder)
    record = CheckpointRecord(
        config=policy.config,
        vocabulary=foreign_vocabulary(folder),
        seed=0,
        step=0,
        phase=PHASE,
        data=_hash((folder / CONFIG).read_bytes()),
        metrics_bytes=0,
        state={"source": folder.absolute().name},
    )
    save_checkpoint(out, record, policy)
    return record


def foreign_vocabulary(folder: Path) -> str:
    """Give the hash that stands for a vocabulary which is not ours.

    Args:
        folder: A Hugging Face folder.

    Returns:
        Hash of the word "huggingface" and the folder's tokenizer, if it has one; 32 hexadecimal digits.
    """
    path = folder / TOKENIZER
    return _hash(b"huggingface" + (path.read_bytes() if path.is_file() else b""))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
