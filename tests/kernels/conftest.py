"""Kernels run in Triton's interpreter here, which must be asked for before Triton is first loaded."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def generator() -> torch.Generator:
    """Numbers of a fixed seed."""
    return torch.Generator().manual_seed(0)
