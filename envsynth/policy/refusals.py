"""What a policy says where an operator of `envsynth.kernels` refuses it: which setting to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from envsynth.kernels.dispatch import UnsupportedError

KERNELS = "kernels = False"
"""Experts and log-probabilities in plain torch."""
ATTENTION = "attention_mode = 'mqa'"
"""Attention in plain torch."""


def naming(setting: str) -> AbstractContextManager[None]:
    """Name the policy's setting in the refusals of the operators that run inside.

    Args:
        setting: What to set instead, such as `KERNELS`.

    Returns:
        A context; a compiler's trace has none, because it cannot resume within one.

    Raises:
        UnsupportedError: (the context) an operator refused; the message ends with the setting.
    """
    return nullcontext() if torch.compiler.is_compiling() else _naming(setting)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}. For a policy: set Policy.{setting}") from error
