"""Pictures of yields: each question gets both files, equal yields equal files, and what is drawn is what was counted."""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envsynth import plots
from envsynth.errors import MissingExtra
from envsynth.yields import LadderShare, Yield, Yields

NAMES = (
    "stages",
    "reasons",
    "operators",
    "mechanisms",
    "kinds",
    "depths",
    "ladder",
    "skills",
    "needed",
    "calls",
    "signatures",
)
FOUND = Yields(
    environments=120,
    tasks=700,
    leaves=200,
    refused={"author": 1500, "gates": 40, "ladder": 600, "later": 3},
    reasons=(("author", "tie", 1500), ("ladder", "DF402", 600), ("gates", "VF302", 40), ("later", "odd", 3)),
    operators=(Yield("root", 200, 500, (("tie", 500),)), Yield("hop", 500, 1643, (("DF402", 600),))),
    mechanisms=(Yield("booking", 700, 2143, ()),),
    depths={0: 10, 1: 20, 3: 170},
    kinds={"act": 120, "read": 80},
    skills={2: 20, 5: 80, 6: 100},
    needed={"first_match": 200, "greedy": 7},
    ladder=(
        LadderShare(depth=0, versions=200, passing=0.8, deep=0.9),
        LadderShare(depth=1, versions=190, passing=0.6, deep=0.61),
        LadderShare(depth=3, versions=170, passing=0.25, deep=None),
    ),
    gold_calls={3: 50, 8: 100, 90: 50},
    calls={"median": 8, "p90": 90, "max": 90},
    distinct=((10, 10), (100, 90), (120, 101)),
)
EMPTY = Yields(
    environments=0, tasks=0, leaves=0, refused={"author": 0}, reasons=(), operators=(), mechanisms=(), depths={},
    kinds={}, skills={}, needed={}, ladder=(), gold_calls={}, calls={}, distinct=(),
)  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Figures by name, kept as they were written."""
    _, figures = plots._matplotlib()
    kept: dict[str, Any] = {}

    class Kept(figures.Figure):
        def savefig(self, path: Path, **options: Any) -> None:
            kept[path.stem] = self
            super().savefig(path, **options)

    monkeypatch.setattr(figures, "Figure", Kept)
    return kept


def lengths(axes: Any, label: str | None = None) -> list[float]:
    """Lengths of horizontal bars."""
    return [
        bar.get_width() for group in axes.containers for bar in group if label is None or group.get_label() == label
    ]


def test_every_question_gets_a_png_and_an_svg(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plots"
    written = plots.write_plots(FOUND, folder)
    assert written == [folder / f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    for path in written:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data[:8] == b"\x89PNG\r\n\x1a\n"
            width, height = struct.unpack(">II", data[16:24])
            assert width == 1080
            assert height >= 300
        else:
            assert data.startswith(b"<?xml")
            assert b"<dc:date>" not in data


def test_equal_yields_give_equal_files(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in plots.write_plots(FOUND, tmp_path / "a")}
    again = {path.name: path.read_bytes() for path in plots.write_plots(FOUND, tmp_path / "b")}
    assert first == again
    other = {path.name: path.read_bytes() for path in plots.write_plots(replace(FOUND, tasks=701), tmp_path / "b")}
    assert first["stages.png"] != other["stages.png"]
    assert first["kinds.png"] == other["kinds.png"]


def test_a_store_without_answers_gets_no_figures(tmp_path: Path) -> None:
    assert plots.write_plots(EMPTY, tmp_path) == []


def test_bars_are_as_long_as_what_was_counted(tmp_path: Path, drawn: dict[str, Any]) -> None:
    plots.write_plots(FOUND, tmp_path)
    axes = {name: figure.axes[0] for name, figure in drawn.items()}
    assert tuple(axes) == NAMES
    assert lengths(axes["stages"]) == [700, 1500, 40, 600, 3]
    assert lengths(axes["reasons"], "by gates") == [40]
    assert lengths(axes["operators"], "accepted") == [200, 500]
    assert lengths(axes["operators"], "refused") == [500, 1643]
    assert lengths(axes["kinds"]) == [120, 80]
    assert "120 (60%)" in [text.get_text() for text in axes["kinds"].texts]
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes["depths"].patches}
    assert bars == pytest.approx(FOUND.depths)
    assert [list(line.get_ydata()) for line in axes["ladder"].lines] == [[0.8, 0.6, 0.25], [0.9, 0.61]]
    assert [list(line.get_ydata()) for line in axes["signatures"].lines] == [[0, 120], [0, 10, 90, 101]]
    for name, made in axes.items():
        assert made.get_title(loc="left"), name
        assert made.get_xlabel(), name


def test_a_histogram_of_many_values_loses_none(tmp_path: Path, drawn: dict[str, Any]) -> None:
    counts = Counter({value: value % 7 + 1 for value in range(3, 241)})
    plots.write_plots(replace(FOUND, gold_calls=dict(counts)), tmp_path)
    axes = drawn["calls"].axes[0]
    assert len(axes.patches) <= plots.BARS
    assert sum(bar.get_height() for bar in axes.patches) == counts.total()
    first = min(axes.patches, key=lambda bar: bar.get_x())
    width = int(re.search(r"bars of (\d+)", axes.get_xlabel())[1])  # type: ignore[index]
    assert first.get_height() == sum(counts[value] for value in range(3, 3 + width))


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'envsynth\[plots\]'"):
        plots.write_plots(FOUND, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
