"""Writing a Hugging Face folder: whole or not at all, with one matrix per expert as in the released files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.huggingface.config import ARCHITECTURE, MODEL_TYPE, huggingface_config
from envsynth.policy.huggingface.names import copies, places
from envsynth.policy.huggingface.reading import CONFIG, DTYPES, INDEX, SINGLE
from envsynth.policy.model import Policy
from envsynth.policy.whole_folder import check_unused, whole_folder

SHARD: Final = "model-{:05d}-of-{:05d}.safetensors"
"""Name of one file of several."""


def save_huggingface(policy: Policy, folder: Path, *, shard_bytes: int = 5_000_000_000) -> None:
    """Write a policy as a folder that `transformers.DeepseekV32ForCausalLM.from_pretrained` reads.

    There is `config.json` and the weights, and nothing about tokens or generation. Prediction layers are written as in
    the released files, after the others; `transformers` has no such layers, and reports their tensors as unexpected.
    A policy whose indexer computes in eight bits is written all the same: that is a computation, which `transformers`
    does exactly, so its keys may differ near ties.

    Args:
        policy: The policy.
        folder: Where; absent or empty.
        shard_bytes: Size from which weights are split into several files (bytes, >= 1); a single larger tensor is a
            file of its own.

    Raises:
        SpecError: `transformers` cannot represent the policy; see `huggingface_config`. Or shard_bytes < 1.
        CheckpointError: The folder is not empty, or cannot be written.
    """
    if shard_bytes < 1:
        raise SpecError(f"shard_bytes must be >= 1, got {shard_bytes}")
    config = _config(policy)
    check_unused(folder)
    shards = list(_shards(_tensors(policy), shard_bytes))
    try:
        with whole_folder(folder) as fresh:
            _write_json(fresh / CONFIG, config)
            files = {SINGLE: shards[0]}
            if len(shards) > 1:
                files = {SHARD.format(number, len(shards)): shard for number, shard in enumerate(shards, 1)}
                _write_json(fresh / INDEX, _index(files))
            for name, shard in files.items():
                save_file({key: tensor.contiguous() for key, tensor in shard.items()}, fresh / name, {"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {folder}: {error}; free space or choose another folder") from error


def _config(policy: Policy) -> dict[str, Any]:
    """Give the content of `config.json`."""
    dtype = policy.embed_tokens.weight.dtype
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "torch_dtype": next(name for name, value in DTYPES.items() if value == dtype),
        "hidden_act": "silu",
        "attention_bias": False,
        **huggingface_config(policy.config),
    }


def _tensors(policy: Policy) -> dict[str, Tensor]:
    """Give all tensors of the files by name. Only repeated ones are copied: in one file nothing may share memory."""
    named = {name: place.parts[0] for name, place in places(policy).items()}
    return named | {name: tensor.detach().clone() for name, tensor in copies(policy).items()}


def _shards(tensors: Mapping[str, Tensor], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _index(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    total = sum(tensor.nbytes for shard in files.values() for tensor in shard.values())
    names = {name: file for file, shard in files.items() for name in shard}
    return {"metadata": {"total_size": total}, "weight_map": names}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
