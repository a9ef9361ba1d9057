"""Reading a Hugging Face folder: checked as a whole before the first number is read, then tensor by tensor."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.config import PolicyConfig
from envsynth.policy.huggingface.blocks import dequantize_blocks, scale_shape
from envsynth.policy.huggingface.config import policy_config, weight_block_size
from envsynth.policy.huggingface.names import copies, places
from envsynth.policy.model import Policy
from envsynth.policy.rope import attention_frequencies

CONFIG: Final = "config.json"
"""Name of the configuration's file."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SCALE: Final = "_scale_inv"
"""What the name of a matrix's scales adds to its own."""
DTYPES: Final[Mapping[str, torch.dtype]] = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
"""Types of a policy, by their name in `config.json`."""
EIGHT_BITS: Final = "F8_E4M3"
FLOATS: Final = ("F64", "F32", "BF16", "F16", EIGHT_BITS)
"""Types of tensors that are read, by their name in a file's header."""
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.")
_SHOWN = 5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """A tensor in a file, by its header."""

    file: Any
    shape: tuple[int, ...]
    dtype: str


def read_policy_config(folder: Path) -> PolicyConfig:
    """Read the configuration of a Hugging Face folder.

    Args:
        folder: A folder with `config.json`.

    Returns:
        The policy's configuration.

    Raises:
        CheckpointError: There is no such file, or it is damaged.
        SpecError: The policy cannot represent what it says; see `policy_config`.
    """
    return policy_config(_json(folder / CONFIG))


def load_huggingface(folder: Path, *, dtype: torch.dtype | None = None) -> Policy:
    """Read a policy from a folder in the form of `transformers`, or of the released files.

    Weights are in `model.safetensors`, or in the shards that `model.safetensors.index.json` names. Names, shapes and
    types are checked before anything is read; then each tensor goes to its place, so there is never a second copy of
    the whole. Weights of eight bits are multiplied by their scales. Prediction layers are loaded if `config.json` asks
    for them, and skipped otherwise, which the log says.

    Args:
        folder: The folder.
        dtype: Type of the weights; None takes what `config.json` says, float32 if nothing. What decides near ties stays
            float32 in half precision, as `Policy` does it.

    Returns:
        The policy, in training mode.

    Raises:
        CheckpointError: A file is absent or damaged, or its tensors are not those of the configuration.
        SpecError: The policy cannot represent the configuration, or be of this type.
    """
    data = _json(folder / CONFIG)
    config, block = policy_config(data), weight_block_size(data)
    policy = _without_values(config, _dtype(data, dtype))
    try:
        with ExitStack() as stack, torch.no_grad():
            entries = _entries(folder, stack)
            _check(folder, entries, policy, block)
            for name, place in places(policy, entries).items():
                place.fill(_read(entries, name, block))
            _check_copies(folder, entries, policy, block)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the weights in {folder} cannot be read: {error}; download or export them again"
        ) from error
    return policy


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is absent, or holds anything else.
    """
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; give a folder that transformers wrote") from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} holds {type(data).__name__}, not an object; give a folder that transformers wrote"
        )
    return data


def _dtype(data: Mapping[str, Any], dtype: torch.dtype | None) -> torch.dtype:
    """Give the type of the policy.

    Raises:
        SpecError: A policy cannot be of it.
    """
    named = data.get("dtype") or data.get("torch_dtype") or "float32"
    chosen = dtype or DTYPES.get(named)
    if chosen is None or chosen not in DTYPES.values():
        raise SpecError(f"a policy is one of {sorted(DTYPES)}, got {dtype or named!r}: pass one of these as dtype")
    return chosen


def _without_values(config: PolicyConfig, dtype: torch.dtype) -> Policy:
    """Make a policy whose weights have no values yet: no random numbers, and no wider copy before half precision."""
    with torch.device("meta"):
        policy = Policy(config).to(dtype)
    policy.to_empty(device=torch.get_default_device())
    policy.frequencies.copy_(attention_frequencies(config.attention))  # the one buffer that no file holds
    return policy


def _entries(folder: Path, stack: ExitStack) -> dict[str, _Entry]:
    """Read the headers of all files.

    Raises:
        CheckpointError: There are no weights, or the index names what is not there.
    """
    if (folder / SINGLE).is_file():
        index, names = None, [SINGLE]
    elif (folder / INDEX).is_file():
        index = _json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            raise CheckpointError(
                f"{folder / INDEX} has no 'weight_map' of names to files; download or export it again"
            )
        names = sorted(set(index.values()))
    else:
        raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}: weights of another format are not read")
    found: dict[str, _Entry] = {}
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{folder / INDEX} names {name!r}, which is no file of this folder")
        file = stack.enter_context(safe_open(folder / name, framework="pt"))
        for key in file.keys():  # noqa: SIM118 - the file is no mapping
            part = file.get_slice(key)
            if key in found:
                raise CheckpointError(f"{key} stands in two files of {folder}; download or export it again")
            found[key] = _Entry(file, tuple(part.get_shape()), part.get_dtype())
    absent = sorted(set(index or ()) - set(found))
    if absent:
        raise CheckpointError(f"{folder / INDEX} names tensors that its files lack: {_list(absent)}")
    return found


def _check(folder: Path, entries: Mapping[str, _Entry], policy: Policy, block: tuple[int, int] | None) -> None:
    """Compare names, shapes and types with what the policy has.

    Raises:
        CheckpointError: They differ.
    """
    wanted, repeated, layers = places(policy, entries), copies(policy), policy.config.num_hidden_layers
    first_skipped = layers + len(repeated) // 2
    skipped = [name for name in entries if _layer(name) >= first_skipped]
    if skipped:
        what = "%s: %d tensors of prediction layers are skipped, from layer %d on"
        _logger.info(what, folder, len(skipped), first_skipped)
    shapes = {name: place.shape for name, place in wanted.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in repeated.items()}
    scales = {name + SCALE: name for name in shapes if name in entries and entries[name].dtype == EIGHT_BITS}
    missing = [name for name in (*wanted, *scales) if name not in entries]
    faults = {
        "missing": missing,
        "unexpected": sorted(set(entries) - set(shapes) - set(scales) - set(skipped)),
        "of another shape": [
            f"{name} {entries[name].shape} instead of {shape}"
            for name, shape in shapes.items()
            if name in entries and entries[name].shape != shape
        ],
        "of another type": [f"{name} {entries[name].dtype}" for name in shapes if _mistyped(entries.get(name))],
        "without scales per block": _misscaled(entries, scales, block),
    }
    told = [f"{len(names)} {what}: {_list(names)}" for what, names in faults.items() if names]
    if told:
        hint = ""
        if missing and min(map(_layer, missing)) >= layers:
            hint = "; without prediction layers, num_nextn_predict_layers must be 0"
        raise CheckpointError(f"the tensors in {folder} are not those of its config.json; {'; '.join(told)}{hint}")


def _misscaled(entries: Mapping[str, _Entry], scales: Mapping[str, str], block: tuple[int, int] | None) -> list[str]:
    """List the scales that do not fit their matrix of eight bits."""
    found: list[str] = []
    for scale, name in scales.items():
        shape = entries[name].shape
        if block is None or len(shape) != 2:
            found.append(f"{name} {shape}, block {block}")
        elif scale in entries and entries[scale].shape != scale_shape(shape, block):
            found.append(f"{scale} {entries[scale].shape} instead of {scale_shape(shape, block)}")
    return found


def _mistyped(entry: _Entry | None) -> bool:
    return entry is not None and entry.dtype not in FLOATS


def _check_copies(folder: Path, entries: Mapping[str, _Entry], policy: Policy, block: tuple[int, int] | None) -> None:
    """Compare what prediction layers repeat with the main model's: ours have no embedding and head of their own.

    Raises:
        CheckpointError: They differ.
    """
    for name, main in copies(policy).items():
        if name in entries and not torch.equal(_read(entries, name, block).to(main.dtype), main):
            raise CheckpointError(
                f"{name} in {folder} differs from the main model's, which the policy's prediction layers share:"
                " such a checkpoint cannot be represented"
            )


def _read(entries: Mapping[str, _Entry], name: str, block: tuple[int, int] | None) -> Tensor:
    entry = entries[name]
    value = entry.file.get_tensor(name)
    if entry.dtype != EIGHT_BITS or block is None:
        return value
    return dequantize_blocks(value, entries[name + SCALE].file.get_tensor(name + SCALE), block)


def _layer(name: str) -> int:
    """Give the index of the layer that a name belongs to, or -1."""
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
