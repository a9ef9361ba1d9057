"""Files are whole or absent; another experiment's folder is refused by the name of the setting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from envsynth.errors import CheckpointError
from envsynth.train.fidelity.folder import SETTINGS, FidelityFolder
from tests.train.fidelity.conftest import tiny


def test_open_equal_settings_go_on(tmp_path: Path) -> None:
    FidelityFolder.open(tmp_path / "a" / "b", tiny()).keep("x", {"seconds": 1.5}, {"w": torch.arange(3)})
    folder = FidelityFolder.open(tmp_path / "a" / "b", tiny())
    assert folder.found("x") == {"seconds": 1.5}
    assert folder.found("y") is None
    assert torch.equal(folder.weights("x")["w"], torch.arange(3))


def test_open_other_settings_names_the_one_that_differs(tmp_path: Path) -> None:
    FidelityFolder.open(tmp_path, tiny())
    other = replace(tiny(), sparse=replace(tiny().sparse, muon_lr=0.5))
    with pytest.raises(CheckpointError, match=r"sparse\.muon_lr = 0\.01, this one has 0\.5"):
        FidelityFolder.open(tmp_path, other)


def test_open_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match="something else"):
        FidelityFolder.open(tmp_path, tiny())
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_open_removes_what_a_kill_left(tmp_path: Path) -> None:
    FidelityFolder.open(tmp_path, tiny())
    (tmp_path / "jobs" / "x.json.new").write_text("{")
    folder = FidelityFolder.open(tmp_path, tiny())
    assert folder.found("x") is None
    assert not list(tmp_path.rglob("*.new"))


def test_open_where_a_file_stands_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="choose another folder"):
        FidelityFolder.open(tmp_path / "file", tiny())


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_files_are_named(tmp_path: Path, content: str) -> None:
    folder = FidelityFolder.open(tmp_path, tiny())
    (tmp_path / "jobs" / "x.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"x\.json"):
        folder.found("x")
    (tmp_path / "weights" / "x.safetensors").write_text(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        folder.weights("x")
    (tmp_path / "partial" / "x.safetensors").write_text(content)
    with pytest.raises(CheckpointError, match=r"partial.x\.safetensors is damaged"):
        folder.partial("x")


def test_keep_drops_what_was_kept_on_the_way(tmp_path: Path) -> None:
    folder = FidelityFolder.open(tmp_path, tiny())
    folder.keep_partial("x", {"done": 3}, {"w": torch.ones(2)})
    state, tensors = folder.partial("x") or ({}, {})
    assert state == {"done": 3}
    assert torch.equal(tensors["w"], torch.ones(2))
    folder.keep("x", {})
    assert folder.partial("x") is None


def test_keep_refuses_numbers_that_json_has_not(tmp_path: Path) -> None:
    folder = FidelityFolder.open(tmp_path, tiny())
    with pytest.raises(ValueError, match="JSON"):
        folder.keep("x", {"loss": float("nan")})
    assert folder.found("x") is None
    assert json.loads((tmp_path / SETTINGS).read_text())["context"] == 64
