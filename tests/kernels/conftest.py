"""Kernels run in Triton's interpreter here."""

from __future__ import annotations

import pytest
import torch

import acceptance.triton_interpreter  # noqa: F401 - asks for it


@pytest.fixture
def generator() -> torch.Generator:
    """Numbers of a fixed seed."""
    return torch.Generator().manual_seed(0)
