"""The report: one HTML file that asks nobody for anything and shows texts as texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from envsynth.actors import actor_factory
from envsynth.errors import SuiteError
from envsynth.report import GateReport
from envsynth.rollout import play
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, GoalAtom, TaskVersion, Verifier
from envsynth.store import Store
from envsynth.trajectory import Trajectory
from envsynth.view import (
    CategorySection,
    LadderRow,
    PolicyRow,
    ReportData,
    SuiteSection,
    TrainingSection,
    render_report,
    write_report,
)

HOSTILE = "<script>alert('1')</script><img src=x onerror=alert(2)> & \"quoted\" </pre></section>"
VOID = ("meta", "br", "hr", "img", "link", "input", "col", "path", "rect", "line", "circle")


class Page(HTMLParser):
    """Reads a page: open elements, their attributes, the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}, line {self.getpos()[0]}")
        elif self.open:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _data(
    spec: EnvironmentSpec, task: TaskVersion, report: GateReport, episode: Trajectory, text: str = "plain"
) -> ReportData:
    section = CategorySection(
        category=text, reading=text, environments=(spec,), tasks=((task, report),), rejections={"tie": 3}
    )
    row = LadderRow(actor=text, tasks=1, passed=1, scored=1, void=0, rate=1.0, low=0.2, high=1.0, mean_calls=2.0)
    return ReportData(
        title=text,
        seed=0,
        version="0.1.0",
        sections=(section,),
        lineage=((task, report),),
        episode=episode,
        failure=episode,
        ladder=(row,),
        suite=SuiteSection(name=text, tasks=1, checksum="0" * 32, files=((text, 12),)),
        commands=(text,),
    )


@pytest.fixture(scope="module")
def data(made_store: Path) -> ReportData:
    """The report of a synthesized environment."""
    with Store.open(made_store, readonly=True) as store:
        spec = store.environments()[0]
        task = max(store.tasks(spec.hash), key=lambda item: item.lineage.depth)
        report = store.latest_report(task.hash)
    assert report is not None
    actor = actor_factory("oracle", [task])()
    try:
        return _data(spec, task, report, play(spec, task, actor))
    finally:
        actor.close()


def test_the_report_asks_nobody(data: ReportData) -> None:
    text = render_report(data)
    page = Page(text)
    assert "script" not in page.tags
    assert {"iframe", "object", "embed", "link", "base", "form"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value or "" for name, value in page.attributes if name in ("href", "src", "action", "srcset")]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert re.findall(r"@import|url\((?!['\"]?(?:data:|#))|https?://(?!www\.w3\.org/)|//cdn", text) == []


def test_the_report_parses(data: ReportData) -> None:
    text = render_report(data)
    page = Page(text)
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert (page.problems, page.open) == ([], [])
    assert page.tags.count("html") == page.tags.count("title") == 1
    assert ("charset", "utf-8") in [(name, (value or "").lower()) for name, value in page.attributes]


def test_the_report_shows_the_prompt_and_the_gates(data: ReportData) -> None:
    words = " ".join(" ".join(Page(render_report(data)).words).split())
    task, report = data.lineage[0]
    assert " ".join(task.prompt.split()) in words
    assert all(code in words for code in ("VF301", "VF304"))
    assert data.sections[0].environments[0].slug in words
    assert f"{report.evidence('EX201')['calls']}" in words


def _training(stage: str) -> TrainingSection:
    rows = tuple(
        PolicyRow(stage=stage, manner=manner, rate=0.25, low=0.125, high=0.5, tasks=60, episodes=episodes)
        for manner, episodes in (("greedy", 60), ("sampled", 240))
    )
    return TrainingSection(
        parameters=1105920, threads=1, seconds=200.0, sft_seconds=110.0, grpo_seconds=25.0,
        curve=((1.0, 0.0), (55.0, 0.5), (110.0, 1.0)), rows=rows, torch="2.13.0+cpu",
    )  # fmt: skip


def test_the_report_shows_how_a_policy_learned(data: ReportData) -> None:
    page = Page(render_report(dataclasses.replace(data, training=_training(HOSTILE))))
    words = " ".join(" ".join(page.words).split())
    assert (page.problems, page.open) == ([], [])
    assert "1,105,920 weights" in words
    assert "0.12 to 0.50" in words
    assert " ".join(HOSTILE.split()) in words
    points = next(value for name, value in page.attributes if name == "points")
    assert points == "5.8,180.0 320.0,90.0 640.0,0.0"
    assert "script" not in page.tags


def test_the_report_says_that_no_policy_was_trained(data: ReportData) -> None:
    assert "No policy was trained in this run" in " ".join(Page(render_report(data)).words)


def test_the_same_data_give_the_same_bytes(data: ReportData) -> None:
    assert render_report(data) == render_report(data)


def test_hostile_text_is_shown_not_run(
    shop_factory: Callable[..., EnvironmentSpec], task_factory: Callable[..., TaskVersion], jail: Jail
) -> None:
    spec = shop_factory(title=HOSTILE, policy=(HOSTILE,))
    atom = GoalAtom(id="value", kind="answer", quote=HOSTILE, expression="answer.get('value') == 774 # " + HOSTILE)
    solution = f"# {HOSTILE}\ndef solve(call):\n    # {HOSTILE}\n    return {{'value': 774}}\n"
    task = task_factory(spec, prompt=HOSTILE, solution=solution, verifier=Verifier(form="atoms", atoms=(atom,)))
    actor = actor_factory("oracle", [task])()
    try:
        episode = play(spec, task, actor, jail=jail)
    finally:
        actor.close()
    turn = episode.turns[0].model_copy(update={"action": HOSTILE, "observation": HOSTILE, "thinking": HOSTILE})
    episode = episode.model_copy(update={"turns": (turn,), "prompt": HOSTILE, "actor": HOSTILE})
    text = render_report(
        _data(spec, task, GateReport(environment=spec.hash, task=task.hash, results=()), episode, HOSTILE)
    )
    page = Page(text)
    assert "<script>alert" not in text
    assert "img" not in page.tags
    assert page.problems == []
    assert " ".join(HOSTILE.split()) in " ".join(" ".join(page.words).split())


def test_a_report_is_written_whole_or_not_at_all(data: ReportData, tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", data)
    before = path.read_bytes()
    assert before.decode() == render_report(data)
    broken = dataclasses.replace(data, lineage=())
    with pytest.raises(IndexError):
        write_report(path, broken)
    with pytest.raises(SuiteError, match=r"cannot write .*nowhere"):
        write_report(tmp_path / "nowhere" / "report.html", data)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
