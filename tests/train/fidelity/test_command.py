"""`envsynth experiment dsa-fidelity`: progress on stderr, a table or JSON on stdout, a record and a picture in the folder."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from envsynth import plots
from envsynth.errors import MissingExtra
from envsynth.train.fidelity import config as settings
from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import GridOutcome
from envsynth.train.fidelity.verdict import make_result
from tests.command_line import Ran, call
from tests.train.fidelity.conftest import tiny

Cli = Callable[..., Ran]
Finished = tuple[FidelityFolder, FidelityConfig, GridOutcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return partial(call, capsys)


@pytest.fixture
def folder(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished experiment, which the command takes for one of its profiles."""
    monkeypatch.setattr(settings, "profile", lambda name, seeds=None: tiny())
    shutil.copytree(finished[0].path, tmp_path / "run")
    return tmp_path / "run"


def test_dsa_fidelity_prints_every_cell_and_draws(cli: Cli, folder: Path) -> None:
    found = cli("experiment", "dsa-fidelity", str(folder), "--profile", "smoke")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0].split()[:4] == ["heads", "k", "single", "multi"]
    assert [line.split()[:2] for line in lines[1:4]] == [["dense", "all"], ["1", "4"], ["1", "8"]]
    assert "the dense twin itself is below 50 %" in found.out
    assert (folder / "dsa-fidelity.svg").read_text().startswith("<?xml")
    assert "dsa-fidelity.json" in found.err


def test_dsa_fidelity_json_is_the_record(cli: Cli, folder: Path) -> None:
    found = cli("experiment", "dsa-fidelity", str(folder), "--json")
    assert json.loads(found.out) == json.loads((folder / "dsa-fidelity.json").read_text())


def test_dsa_fidelity_not_finished_is_exit_code_1(cli: Cli, folder: Path) -> None:
    (folder / "jobs" / "seed0-twin.json").unlink()
    found = cli("experiment", "dsa-fidelity", str(folder), "--deadline-s", "0")
    assert found.code == 1
    assert "not finished: seed0-twin" in found.err
    assert found.out.count("missing") == 2


def test_dsa_fidelity_without_matplotlib_names_the_extra(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingExtra("plots need matplotlib: pip install 'envsynth[plots]'")

    monkeypatch.setattr(plots, "_matplotlib", absent)
    found = cli("experiment", "dsa-fidelity", str(folder))
    assert found.code == 0
    assert "envsynth[plots]" in found.err
    assert not (folder / "dsa-fidelity.svg").exists()


def test_dsa_fidelity_unknown_profile_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    found = cli("experiment", "dsa-fidelity", str(tmp_path), "--profile", "huge")
    assert found.code == 2
    assert "'huge'" in found.said


def test_write_fidelity_plot_circles_what_fails(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, config, outcome = finished
    sound: dict[str, Any] = make_result(store, config, ["cpu"], outcome)
    for cell in sound["cells"]:
        cell["failures"] = []
    failing = copy.deepcopy(sound)
    failing["cells"][0]["failures"] = ["copy: 0.1 beside 0.9 of the dense twin, +88.9 % worse"]
    missing = copy.deepcopy(sound)
    missing["cells"][1] = {"heads": 1, "topk": 8, "seeds": [], "verdict": "missing", "failures": []}
    missing["twin"] = None
    circles: list[int] = []
    _, figures = plots._matplotlib()

    class Counted(figures.Figure):
        def savefig(self, path: Path, **options: Any) -> None:
            lines = [line for axes in self.axes for line in axes.lines]
            circles.append(sum(line.get_markersize() == 9 and len(line.get_xdata()) for line in lines))
            super().savefig(path, **options)

    monkeypatch.setattr(figures, "Figure", Counted)
    for at, result in enumerate((sound, failing, missing)):
        assert plots.write_fidelity_plot(result, tmp_path / f"{at}.png").stat().st_size > 10_000
    assert circles == [0, 1, 0]
