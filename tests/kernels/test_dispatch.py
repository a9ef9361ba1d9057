"""Which way an operator runs, and what it says where it cannot."""

from __future__ import annotations

import pytest
import torch

from envsynth.kernels import dispatch
from envsynth.kernels.dispatch import UnsupportedError, choose, load_kernels


def test_a_cpu_runs_the_reference_unless_asked_otherwise():
    x = torch.zeros(1)
    assert choose("op", x, x) == "reference"
    assert choose("op", x, backend="triton") == "triton", "the tests interpret"


def test_kernels_are_refused_where_they_cannot_run(monkeypatch):
    x = torch.zeros(1)
    with pytest.raises(UnsupportedError, match="op: tensors are on cpu, meta; move them"):
        choose("op", x, x.to("meta"))
    with pytest.raises(UnsupportedError, match="cannot multiply bfloat16"):
        choose("op", x, x.bfloat16(), backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UnsupportedError, match="need a GPU, the tensors are on cpu"):
        choose("op", x, backend="triton")
    assert choose("op", x, backend="reference") == "reference"


def test_a_machine_without_triton_is_told_what_to_install(monkeypatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="triton" if name.endswith("forward") else "other")

    monkeypatch.setattr(dispatch.importlib, "import_module", absent)
    with pytest.raises(UnsupportedError, match="pip install"):
        load_kernels("topk.forward")
    with pytest.raises(ModuleNotFoundError, match="other"):
        load_kernels("topk.other")
