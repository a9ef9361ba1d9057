"""Where an operator runs: its reference on a CPU, its kernels on a GPU, or Triton's interpreter where a test asks for it."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["reference", "triton"]
"""`reference`: plain torch. `triton`: the kernels, on a GPU or in Triton's interpreter."""


class UnsupportedError(ValueError):
    """An operator cannot run on these tensors; the message says which property it is and what to do."""


def interpreting() -> bool:
    """Tell whether Triton interprets kernels on the CPU (`TRITON_INTERPRET=1`, set before Triton is first loaded)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def choose(operator: str, *tensors: Tensor, backend: Backend | None = None) -> Backend:
    """Decide how an operator runs.

    Args:
        operator: Its name, for errors.
        tensors: Every tensor that it reads.
        backend: What the caller asks for; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        The way to run.

    Raises:
        UnsupportedError: the tensors are not on one device, or kernels are asked for where they cannot run.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        where = ", ".join(sorted(map(str, devices)))
        raise UnsupportedError(f"{operator}: tensors are on {where}; move them to one device")
    on_gpu = all(device.type == "cuda" for device in devices)
    if backend is None:
        return "triton" if on_gpu else "reference"
    if backend == "triton" and not on_gpu:
        if not interpreting():
            raise UnsupportedError(
                f"{operator}: kernels need a GPU, the tensors are on {devices.pop()};"
                " use backend='reference', or set TRITON_INTERPRET=1 to interpret them"
            )
        if any(tensor.dtype == torch.bfloat16 for tensor in tensors):
            # Its products of bfloat16 are wrong by many orders of magnitude (triton 3.6 and 3.9).
            raise UnsupportedError(f"{operator}: Triton's interpreter cannot multiply bfloat16; use float32 or float16")
    return backend


def load_kernels(name: str) -> ModuleType:
    """Load a module of kernels at its first use.

    Args:
        name: Its name below `envsynth.kernels`, like `topk.forward`.

    Returns:
        The module.

    Raises:
        UnsupportedError: Triton is not installed.
        ModuleNotFoundError: there is no such module.
    """
    try:
        return importlib.import_module(f"envsynth.kernels.{name}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise UnsupportedError("kernels need triton >= 3.6: pip install 'envsynth[train]' on Linux") from error
