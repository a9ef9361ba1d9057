"""Looking at this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import envsynth.doctor
from envsynth.doctor import EXTRAS, examine
from tests.command_line import call


def test_everything() -> None:
    found = examine("all", None)
    assert list(found) == ["envsynth", "extras", "sandbox", "store"]
    assert found["sandbox"]["ok"] is True
    assert found["extras"].keys() == EXTRAS.keys()


def test_the_store(store_path: Path, tmp_path: Path) -> None:
    facts = examine("store")["store"]
    assert (facts["path"], facts["state"], facts["environments"]) == (str(store_path), "readable", 1)
    assert facts["tasks"] >= 1
    missing = examine("store", tmp_path / "missing.db")["store"]
    assert "there is no store at" in missing["state"]
    assert not (tmp_path / "missing.db").exists()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, "doctor", "sandbox")
    assert found.code == 0
    assert "- open a network socket: contained\n" in found.out
    assert call(capsys, "doctor", "kitchen").code == 2


def test_an_unsafe_sandbox_is_exit_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    attack = {"name": "file", "attempt": "read a file of the host", "contained": False, "evidence": ""}
    unsafe = {"available": True, "ok": False, "problem": "not contained: file", "attacks": [attack]}
    monkeypatch.setattr(envsynth.doctor, "inspect_sandbox", lambda: unsafe)
    found = call(capsys, "doctor", "sandbox")
    assert found.code == 1
    assert "problem: not contained: file" in found.out
    assert "read a file of the host: NOT CONTAINED" in found.out
