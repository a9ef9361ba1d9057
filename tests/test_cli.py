"""The command line: what each verb prints, where, and how it exits."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import envsynth.cli
from envsynth import __version__
from envsynth.cli import app
from envsynth.errors import AuthorError, WorkError
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from tests.command_line import CATEGORY, SMALL, Ran, call, held, run, start

Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return lambda *arguments: call(capsys, *arguments)


@pytest.fixture
def leaf(store_path: Path) -> str:
    with Store.open(store_path, readonly=True) as store:
        return max(store.task_entries(), key=lambda entry: entry.depth).hash


@pytest.fixture
def slug(store_path: Path) -> str:
    with Store.open(store_path, readonly=True) as store:
        return store.environment_entries()[0].slug


@pytest.fixture
def pair_file(tmp_path: Path, shop: EnvironmentSpec, value_task: TaskVersion) -> Path:
    path = tmp_path / "shop.json"
    pair = {"environment": shop.model_dump(mode="json"), "task": value_task.model_dump(mode="json")}
    path.write_text(json.dumps(pair))
    return path


# ---------------------------------------------------------------------------------------------------- the program as such


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version") == Ran(0, f"envsynth {__version__}\n", "")
    text = cli("--help").out
    for command in app.registered_commands:
        assert command.callback is not None
        assert (command.name or command.callback.__name__) in text


def test_wrong_usage_is_exit_code_2(cli: Cli) -> None:
    for arguments in (["nothing"], ["list", "--nothing"], ["synthesize"], ["list", "--limit", "many"]):
        found = cli(*arguments)
        assert (found.code, found.out) == (2, "")
        assert "Usage:" in found.err


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(code: str) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("envsynth.gates.explain", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        envsynth.cli.main(["explain", "VF301"])


@pytest.mark.parametrize(("cause", "bug"), [(AuthorError("no task"), False), (TypeError("a bug"), True)])
def test_a_bug_in_a_worker_shows_its_traceback_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, cause: Exception, bug: bool
) -> None:
    def failing(code: str) -> str:
        raise WorkError(f"item 0 failed: {cause}") from cause

    monkeypatch.setattr("envsynth.gates.explain", failing)
    if bug:
        with pytest.raises(WorkError):
            envsynth.cli.main(["explain", "VF301"])
    else:
        assert cli("explain", "VF301") == Ran(1, "", "error: item 0 failed: no task\n")


def test_a_reader_who_goes_away_is_no_error_message(store_path: Path) -> None:
    command = f"{sys.executable} -m envsynth.cli show trip-planning --json | head -c 1 > /dev/null"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == ("", "")


def test_no_colour_without_a_terminal(store_path: Path, slug: str) -> None:
    found = run("show", slug, NO_COLOR="1")
    assert found.code == 0
    assert "\x1b" not in found.out + found.err


def test_no_color_is_respected_on_a_terminal(cli: Cli, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[bool, str] = {}
    for plain in (False, True):
        page = io.StringIO()
        monkeypatch.setattr(envsynth.cli, "out", Console(file=page, force_terminal=True, width=80, no_color=plain))
        cli("check", "trip-planning", "--select", "SP101")
        shown[plain] = page.getvalue()
    assert "\x1b[32m" in shown[False]
    assert "\x1b[32m" not in shown[True]
    assert "SP101" in shown[True]


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_on_a_terminal(
    cli: Cli, slug: str, leaf: str, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    for arguments in (
        ["list"],
        ["list", "--tasks"],
        ["list", "--rejected"],
        ["list", "--runs"],
        ["tree", slug],
        ["show", leaf],
    ):
        page = io.StringIO()
        monkeypatch.setattr(envsynth.cli, "out", Console(file=page, force_terminal=True, width=width, no_color=True))
        assert cli(*arguments).code == 0
        text = re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())
        assert "…" not in text
        assert max(map(len, text.split("\n"))) <= width


# ---------------------------------------------------------------------------------------------------------- synthesize


def test_synthesize_then_again(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    first = cli("synthesize", CATEGORY, "--count", 1, *SMALL, "--store", path)
    assert first.code == 0
    assert "words: pack 'laboratory'" in first.err
    assert "environments 1/1 (" in first.err
    assert re.search(r"/min\) \d+% of proposals accepted; passed author \d+%.*; \S+: \d+ task versions?\n", first.err)
    lines = first.out.splitlines()
    assert lines[-1].startswith("1 environment, ")
    again = cli("synthesize", CATEGORY, "--count", 1, *SMALL, "--store", path)
    assert again.out == first.out
    assert "all 1 environment had been made before" in again.err
    found = json.loads(cli("synthesize", CATEGORY, "--count", 1, *SMALL, "--store", path, "--json").out)
    assert found["resumed"] == 1
    assert found["environments"][0][:12] == lines[0][:12]
    assert lines[-1].endswith(f", dataset {found['dataset']}")
    assert found["gates"] == []  # nothing was made by this call
    # What is left to do is what progress counts.
    more = cli("synthesize", CATEGORY, "--count", 2, *SMALL, "--db", path, "--executor", "serial")
    assert "environments 1/1 (" in more.err
    assert "1 of 2 environments had been made before" in more.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "threads"), "'threads' is none of serial, pool, ray"),
        (("--ray-address", "auto"), "only the executor ray has an address"),
        (("--executor", "pool", "--ray-address", "auto"), "only the executor ray has an address"),
    ],
)
def test_synthesize_refuses_unknown_executors(cli: Cli, options: tuple[str, ...], message: str) -> None:
    ran = cli("synthesize", CATEGORY, *options)
    assert ran.code == 2
    assert message in ran.said


def test_synthesize_categories_of_a_file_resumes_with_what_is_left(cli: Cli, tmp_path: Path) -> None:
    path, file = tmp_path / "new.db", tmp_path / "categories.txt"
    file.write_text("phone plans\nzzyzx qwfp\n")
    options = ("--categories", file, *SMALL[:-1], "1", "--store", path)
    first = cli("synthesize", *options, "--count", 1)
    assert first.code == 0
    assert re.search(r"category: phone plans: pack '\w+'; always ", first.err)
    assert "category: zzyzx qwfp: pack 'general', as no word matched another one" in first.err
    second = cli("synthesize", *options, "--count", 2)
    assert "1 of 2 environments had been made before" in second.err
    assert "environments 1/1 (" in second.err
    assert second.out.splitlines()[0] == first.out.splitlines()[0]
    assert re.search(r"zzyzx-qwfp-.*-v1", second.out)
    same = cli("synthesize", "phone plans", "zzyzx qwfp", *options[2:], "--count", 2)
    assert same.out == second.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a category sentence, or a file"),
        (("planning", "a", "trip"), "put a sentence in quotes, 'planning a trip'"),
        (("phone plans", "phone plans"), "'phone plans' is given 2 times"),
        (("phone plans", "--categories", "FILE"), "not both"),
        (("--categories", "FILE"), "line 2 of"),
        (("--categories", "nowhere.txt"), "cannot read categories from nowhere.txt"),
    ],
)
def test_synthesize_refuses_wrong_categories(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "c.txt"
    file.write_text("a b\na b\n")
    ran = cli("synthesize", *(str(file) if item == "FILE" else item for item in arguments))
    assert ran.code == 2
    assert message in ran.said


def test_synthesize_refuses_another_audit(cli: Cli) -> None:
    ran = cli("synthesize", "a b", "--audit", "some")
    assert ran.code == 2
    assert "'some' is neither all nor leaves" in ran.said


# ------------------------------------------------------------------------------------------------------ check explain


def test_synthesize_the_nano_tier_and_its_lengths(cli: Cli, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "nano.db"))
    Store.open(store[1]).close()
    empty = cli("stats", *store)
    assert (empty.code, empty.out) == (0, "")
    assert "nothing there" in empty.err
    made = cli("synthesize", "small tables", "--tier", "nano", "--lineages", "2", "--workers", "1", *store)
    assert made.code == 0
    assert "1 environment, 2 task versions" in made.out
    told = json.loads(cli("stats", "--json", *store).out)
    assert (told["yields"]["environments"], told["yields"]["tasks"]) == (1, 2)
    assert json.loads(cli("stats", "--json", "--limit", "0", *store).out) == {**told, "lengths": []}
    assert told["plots"] == []
    (row,) = told["lengths"]
    assert (row["tier"], row["n"]) == ("nano", 2)
    assert row["tokens"]["max"] <= 256 < row["characters"]["median"]
    shown = cli("stats", *store).out
    assert "characters" in shown
    assert str(row["tokens"]["max"]) in shown


def test_stats_draws_pictures_or_says_why_not(cli: Cli, store_path: Path, tmp_path: Path) -> None:
    options = ("stats", "--limit", "0", "--store", store_path, "--plots")
    with Store.open(store_path, readonly=True) as store:
        (stage, code), count = next(iter(store.rejection_counts().items()))
    assert re.search(rf"^{code} +{count:,} +{stage}$", cli(*options[:-1]).out, re.MULTILINE)
    told = json.loads(cli(*options, tmp_path / "p", "--json").out)
    assert str(tmp_path / "p" / "ladder.svg") in told["plots"]
    assert all(Path(name).is_file() for name in told["plots"])
    (tmp_path / "file").write_text("")
    ran = cli(*options, tmp_path / "file" / "p")
    assert ran.code == 1
    assert "cannot write pictures into" in ran.said
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        ran = cli(*options, tmp_path / "q")
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'envsynth[plots]'" in ran.said


@pytest.mark.parametrize("options", [("--tier", "big"), ("--held-out",)])
def test_synthesize_refuses_unknown_tiers_and_held_out_names_of_the_full_tier(
    cli: Cli, options: tuple[str, ...]
) -> None:
    ran = cli("synthesize", "small tables", *options)
    assert ran.code == 2
    assert options[0] in ran.err


def test_check_a_task_and_an_environment(cli: Cli, slug: str, leaf: str) -> None:
    one = cli("check", leaf[:8], "--select", "sp101", "--select", "EX201")
    assert one.code == 0
    assert f"task {leaf[:12]}: all gates pass" in one.out
    many = cli("check", slug, "--select", "SP101")
    assert many.out.splitlines()[-1].endswith("tasks pass")
    assert many.out.count("pass  task ") == len(many.out.splitlines()) - 1
    reports = json.loads(cli("check", "first", "--select", "SP101", "--json").out)
    assert [report["ok"] for report in reports] == [True] * len(reports)


def test_check_saves_reports(cli: Cli, store_path: Path, leaf: str) -> None:
    assert cli("check", leaf, "--select", "SP101", "--save").code == 0
    with Store.open(store_path, readonly=True) as store:
        assert [result.code for result in store.reports(leaf)[-1].results] == ["SP101"]


def test_check_a_file_of_an_environment_and_its_task(cli: Cli, pair_file: Path) -> None:
    found = cli("check", pair_file, "--select", "EX201", "--select", "SP102")
    assert found.code == 0
    content = json.loads(pair_file.read_text())
    del content["task"]["environment"]
    pair_file.write_text(json.dumps({"environment": content["environment"], "tasks": [content["task"]]}))
    assert cli("check", pair_file, "--select", "SP102").code == 0


def test_a_failed_gate_is_exit_code_3(cli: Cli, pair_file: Path) -> None:
    content = json.loads(pair_file.read_text())
    content["task"]["oracle"]["answer"] = {"value": 1}
    pair_file.write_text(json.dumps(content))
    found = cli("check", pair_file, "--select", "EX202")
    assert found.code == 3
    assert "FAILED" in found.out
    assert "EX202  fail" in found.out
    assert [report["ok"] for report in json.loads(cli("check", pair_file, "--select", "EX202", "--json").out)] == [
        False
    ]


def test_explain(cli: Cli) -> None:
    page = cli("explain", "vf305")
    assert page.out.startswith("VF305: ")
    assert json.loads(cli("explain", "vf305", "--json").out)["code"] == "VF305"
    everything = json.loads(cli("explain", "--json").out)
    assert [line.split()[0] for line in cli("explain").out.splitlines()] == list(everything)


# -------------------------------------------------------------------------------------------------------------- harden


def test_harden_a_stored_task(cli: Cli, store_path: Path) -> None:
    with Store.open(store_path, readonly=True) as store:
        root = next(entry for entry in store.task_entries() if entry.depth == 0)
        child = store.children(root.hash)[0]
    found = json.loads(cli("harden", root.hash[:10], "--steps", 1, "--json").out)
    assert found["parent"] == root.hash
    assert [(item["task"], item["new"]) for item in found["children"]] == [(child.hash, False)]
    again = cli("harden", root.hash[:10], "--steps", 1)
    assert "(was there already)" in again.out


def test_harden_by_an_actor_stores_what_it_measured(cli: Cli, store_path: Path) -> None:
    with Store.open(store_path, readonly=True) as store:
        root = next(entry for entry in store.task_entries() if entry.depth == 0)
    # Solutions with a mistake in every sixth call: longer ones fail more often, and no ladder is asked.
    options = ("--actor", "noisy:0.15", "--pilot", 8, "--commit", 16, "--tries", 12)
    found = json.loads(cli("harden", root.hash, "--steps", 1, *options, "--json").out)
    with Store.open(store_path, readonly=True) as store:
        for child in found["children"]:
            results = {item.code: item for item in store.latest_report(child["task"]).results}
            assert (results["DF402"].status, results["DF405"].status) == ("skipped", "pass")
            before, after = results["DF405"].evidence["before"], results["DF405"].evidence["after"]
            assert before[0] == after[0] == 24
            assert after[1] < before[1]
        refused = [item for item in store.rejections() if item.stage == "measure"]
        assert all(item.code == "DF405" for item in refused)
    assert found["children"] or refused
    assert cli("harden", root.hash, "--actor", "nobody").code == 2


# ----------------------------------------------------------------------------------------------------------- calibrate


def test_calibrate_routes_stored_tasks_and_goes_on(cli: Cli, slug: str, tmp_path: Path) -> None:
    options = ("--actor", "noisy:0.1", "--pilot", 4, "--commit", 4, "--seed", 2)
    found = cli("calibrate", slug, *options)
    assert found.code == 0
    assert "pilot episodes" in found.err
    assert "pass@1 " in found.out
    again = cli("calibrate", slug, "first", *options)
    assert (again.out, again.err) == (found.out, "")
    report = json.loads(cli("calibrate", slug, *options, "--band", "0.01:0.02", "--json").out)
    assert {item["route"] for item in report["tasks"]} <= {"harden", "park"}
    assert report["summary"]["tasks"] == len(report["tasks"]) == 2
    with Store.open(readonly=True) as store:
        kept = {item.task: item for item in store.calibrations(actor="noisy:0.1")}
        assert {item["task"]: item["route"] for item in report["tasks"]} == {
            key: one.route for key, one in kept.items()
        }
        episodes = store.trajectories(actor="noisy:0.1")
        assert len(episodes) == sum(item.n for item in kept.values())
        assert min(item.seed for item in episodes) == 2


def test_calibrate_parks_what_nobody_passes_and_deletes_nothing(cli: Cli, store_path: Path, leaf: str) -> None:
    before = [line for line in held(store_path) if not line.startswith("trajectory")]
    report = cli("calibrate", leaf, "--actor", "random", "--pilot", 3, "--certify", 5)
    assert "park" in report.out
    assert "its own solution passes: too hard" in " ".join(report.out.split())
    assert [line for line in held(store_path) if not line.startswith("trajectory")] == before
    with Store.open(store_path, readonly=True) as store:
        (found,) = store.calibrations(leaf)
        assert (found.route, found.n, found.certified, found.planner) == ("park", 5, False, True)


def test_calibrate_a_file_keeps_nothing(cli: Cli, tmp_path: Path, store_path: Path) -> None:
    path = tmp_path / "first.jsonl"
    assert cli("export", "first", path).code == 0
    found = cli("calibrate", path, "--actor", "oracle", "--pilot", 1, "--commit", 0)
    assert "nothing is kept" in " ".join(found.err.split())
    assert "2 harden" in found.out
    with Store.open(store_path, readonly=True) as store:
        assert store.calibrations() == store.trajectories() == []
    for wrong in (["--band", "0.2"], ["--band", "0.8:0.2"], ["--actor", "noisy:7"], ["--actor", "human"]):
        assert cli("calibrate", path, "--actor", "oracle", *wrong).code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_calibrate_resumes_after_a_kill(cli: Cli, store_path: Path, slug: str, number: int, code: int) -> None:
    copy = store_path.with_name("copy.db")
    shutil.copy(store_path, copy)
    command = ("calibrate", slug, "--actor", "noisy:0.1", "--pilot", 12, "--commit", 12)
    process = start(*command, "--store", copy)
    for _ in range(1200):
        with Store.open(copy, readonly=True) as store:
            kept = len(store.trajectories())
        if kept > 3:
            break
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code, messages
    with Store.open(copy, readonly=True) as store:
        between = [item.hash for item in store.trajectories()]
        assert (len(between) >= kept, store.calibrations()) == (True, [])
    whole = cli(*command, "--json", "--store", store_path)
    assert cli(*command, "--json", "--store", copy).out == whole.out
    with Store.open(copy, readonly=True) as store, Store.open(store_path, readonly=True) as other:
        hashes = [item.hash for item in store.trajectories()]
        assert hashes[: len(between)] == between
        assert sorted(hashes) == sorted(item.hash for item in other.trajectories())
        assert store.calibrations() == other.calibrations()


# ------------------------------------------------------------------------------------------------------ list show tree


def test_list_in_json_and_as_tables(cli: Cli, slug: str) -> None:
    environments = json.loads(cli("list", "--json").out)
    assert [entry["slug"] for entry in environments] == [slug]
    tasks = json.loads(cli("list", "--tasks", "--json").out)
    assert len(tasks) > len(json.loads(cli("list", "--leaves", "--json").out)) >= 1
    text = cli("list", "--tasks").out
    assert all(task["hash"][:12] in text for task in tasks)
    assert cli("list", "--category", "no such sentence").err == "nothing there; `envsynth synthesize` makes some\n"
    assert "1 more: raise --limit" in cli("list", "--tasks", "--limit", len(tasks) - 1).err
    runs = json.loads(cli("list", "--runs", "--json").out)
    assert [(entry["command"], entry["finished"]) for entry in runs] == [("synthesize", True)]


def test_why_was_this_rejected(cli: Cli, slug: str) -> None:
    rows = json.loads(cli("list", "--rejected", "--json").out)
    assert rows
    assert all(row["count"] >= 1 and row["example"] for row in rows)
    assert rows == sorted(rows, key=lambda row: -row["count"])
    refused = json.loads(cli("show", slug, "--rejections", "--json").out)
    assert sum(row["count"] for row in rows) == len(refused)
    assert {"stage", "code", "message", "operator", "parent"} <= refused[0].keys()
    assert rows[0]["code"] in cli("show", slug, "--rejections").out


def test_show_an_environment_and_a_task(cli: Cli, slug: str, leaf: str) -> None:
    page = cli("show", slug).out
    assert f"gymnasium.make('envsynth/{slug}-v1')" in page
    assert json.loads(cli("show", slug, "--json").out)["slug"] == slug
    public, private = (json.loads(cli("show", leaf, "--json", *extra).out) for extra in ([], ["--private"]))
    hidden = {"solution", "verifier", "oracle", "probes", "ir", "ablations", "faults"}
    assert private.keys() - public.keys() == hidden & private.keys()
    text = cli("show", leaf).out
    assert "def solve" not in text
    assert "def solve" in cli("show", leaf, "--private").out
    assert "all gates pass" in text


def test_which_calls_fail_is_private(cli: Cli, tmp_path: Path, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    faults = [{"tool": "list_items", "call": 2, "kind": "unavailable", "calls": 3}]
    task = TaskVersion.parse({**value_task.model_dump(mode="json"), "faults": faults, "kind": "recover"})
    with Store.open(tmp_path / "faults.db") as store:
        store.add_environment(shop)
        store.add_task(task)
    shown = ("show", task.hash, "--db", str(tmp_path / "faults.db"))
    assert "unavailable" not in cli(*shown).out + cli(*shown, "--json").out
    assert "unavailable: call 2 of list_items, 3 calls in a row" in cli(*shown, "--private").out
    assert json.loads(cli(*shown, "--json", "--private").out)["faults"] == faults


def test_a_slug_is_its_environment_even_when_it_has_one_leaf(cli: Cli, slug: str) -> None:
    assert json.loads(cli("show", slug, "--json").out)["slug"] == slug
    assert cli("show", slug[:12]).out == cli("show", slug).out


def test_tree_of_an_environment_is_that_of_its_leaf(cli: Cli, slug: str, leaf: str) -> None:
    found = json.loads(cli("tree", slug, "--json").out)
    assert found == json.loads(cli("tree", leaf, "--json").out)
    root = found["lineages"][0]
    assert root["operator"] is None
    assert root["calls"] >= 1
    assert root["children"][0]["task"] == leaf
    text = cli("tree", slug).out
    assert f"root {root['task'][:12]}" in text


# ---------------------------------------------------------------------------------------------------------------- play


@pytest.mark.parametrize(
    ("actor", "status"), [("oracle", "pass"), ("idle", "fail"), ("random", "fail"), ("empty", "fail")]
)
def test_play(cli: Cli, leaf: str, actor: str, status: str) -> None:
    text = cli("play", leaf, "--actor", actor, "--seed", 1).out
    assert f"\n{status} after " in text
    found = json.loads(cli("play", leaf, "--actor", actor, "--seed", 1, "--json").out)
    assert (found["verdict"]["status"], found["actor"], found["seed"]) == (status, actor, 1)


def test_play_cuts_long_episodes_and_observations(cli: Cli) -> None:
    short, full = (cli("play", "trip-planning", "--actor", "oracle", *extra).out for extra in ([], ["--full"]))
    assert "... 12 more turns, --full shows all" in short
    assert "more characters)" in short
    assert len(short.splitlines()) < len(full.splitlines())
    assert "more turns" not in full
    assert "more characters)" not in full
    assert max(map(len, short.splitlines())) < 400


def test_play_saves(cli: Cli, store_path: Path, leaf: str) -> None:
    assert cli("play", leaf, "--actor", "idle", "--save").code == 0
    with Store.open(store_path, readonly=True) as store:
        assert [item.actor for item in store.trajectories(leaf)] == ["idle"]


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (["list_items", "set_qty item_id=2 qty=42", "answer value=774"], "fail after 3 turns (answered)"),
        (["list_items page=2", "answer value=774"], "pass after 2 turns (answered)"),
        (["list_items page=2"], "fail after 1 turn (actor_stopped)"),
        (["what?", "quit"], "fail after 1 turn (actor_stopped)"),
    ],
)
def test_a_person_plays_through_a_pipe(
    cli: Cli, pair_file: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], end: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    found = cli("play", pair_file)
    assert found.out.splitlines()[0] == end
    assert "list_items([page])" in found.err
    assert "your turn>" in found.err
    assert '{"name"' not in found.err


# ------------------------------------------------------------------------------------------------- suite export evaluate


def test_freeze_export_import_check_evaluate(cli: Cli, slug: str, tmp_path: Path) -> None:
    assert cli("suite", "freeze", "leaves", "--description", "for a test").out.startswith("leaves: 1 task, checksum ")
    listed = json.loads(cli("suite", "list", "--json").out)
    assert [item["name"] for item in listed] == ["first", "leaves"]
    path = tmp_path / "first.jsonl"
    exported = json.loads(cli("export", "first", path, "--json").out)
    assert exported["checksum"] == listed[0]["checksum"]
    assert cli("export", "first", tmp_path / "first.parquet", "--public").code == 0
    assert cli("check", path, "--select", "SP101").code == 0
    other = tmp_path / "other.db"
    imported = json.loads(cli("suite", "import", path, "--store", other, "--json").out)
    assert imported["unaudited"] == list(imported["new_tasks"])
    assert cli("check", "first", "--save", "--store", other, "--select", "SP101").code == 0
    again = json.loads(cli("suite", "import", path, "--store", other, "--json").out)
    assert (again["unaudited"], again["new_tasks"]) == ([], [])
    for target in (path, "first", slug):
        report = json.loads(cli("evaluate", target, "--actor", "oracle", "--json").out)
        assert (report["passed"], report["void"]) == (report["scored"], 0)


def test_suite_check_audits_a_set(cli: Cli, slug: str, tmp_path: Path) -> None:
    found = cli("suite", "check")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[0].endswith("sound as a set")
    assert "worlds_curve: 1 of 1" in found.out
    path, prompts = tmp_path / "first.jsonl", tmp_path / "prompts.txt"
    assert cli("export", "first", path).code == 0
    twice = cli("suite", "check", "first", path, "--select", "st601", "--select", "ST608")
    assert twice.code == 3
    assert f" in {path} is the same as task " in " ".join(twice.out.split())
    with Store.open(readonly=True) as store:
        prompts.write_text(store.tasks(leaves_only=True)[0].prompt)
    report = json.loads(cli("suite", "check", slug, "--against", prompts, "--json", "--select", "ST606").out)
    assert (report["ok"], report["against"], report["results"][0]["status"]) == (False, [str(prompts)], "fail")
    assert cli("suite", "check", "--against", prompts, "--window", 4000).code == 3
    for wrong in (["--select", "SP101"], ["--near", "1"], ["--window", "0"]):
        assert cli("suite", "check", *wrong).code == 2
    assert cli("suite", "check", "nowhere").code == 1
    assert "ST609" in json.loads(cli("explain", "--json").out)
    assert cli("explain", "st604").out.startswith("ST604: ")
    assert cli("explain", "ST6").code == 2


def test_many_findings_of_a_set_are_cut_on_the_terminal_alone(
    cli: Cli, tmp_path: Path, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    shop_file = tmp_path / "shop.json"
    copies = [value_task.model_copy(update={"max_turns": 40 + number}) for number in range(13)]
    record = {"environment": shop.model_dump(mode="json"), "tasks": [task.model_dump(mode="json") for task in copies]}
    shop_file.write_text(json.dumps(record))
    found = cli("suite", "check", shop_file, "--select", "ST601")
    assert found.code == 3
    assert (found.out.count("is the same as"), "2 more: --json has all" in found.out) == (10, True)
    assert (
        len(json.loads(cli("suite", "check", shop_file, "--select", "ST601", "--json").out)["results"][0]["findings"])
        == 12
    )


def test_evaluate_prints_rates_and_goes_on(cli: Cli, store_path: Path) -> None:
    first = cli("evaluate", "first", "--actor", "random", "-n", 2, "-k", 1, "-k", 2, "--save", "--seed", 5)
    assert first.out.startswith("random: 0 of ")
    assert [line.split()[0] for line in first.out.splitlines()[1:]] == ["k", "1", "2"]
    assert "episodes " in first.err
    again = cli("evaluate", "first", "--actor", "random", "-n", 2, "-k", 1, "-k", 2, "--save", "--seed", 5)
    assert again.out == first.out
    assert "episodes " not in again.err


# -------------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("with_store", [True, False])
def test_built_in_examples_need_no_store(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_store: Path, with_store: bool
) -> None:
    path = made_store if with_store else tmp_path / "missing.db"
    monkeypatch.setenv("ENVSYNTH_STORE", str(path))
    assert "Three days out of Hangzhou" in cli("show", "trip-planning").out
    assert "root " in cli("tree", "trip-planning").out
    assert cli("check", "trip-planning", "--select", "EX201").code == 0
    assert json.loads(cli("play", "trip-planning", "--actor", "oracle", "--json").out)["verdict"]["status"] == "pass"
    assert json.loads(cli("evaluate", "trip-planning", "--actor", "idle", "--json").out)["passed"] == 0
    assert path.exists() == with_store


def test_every_reading_verb_prints_nothing_but_json(cli: Cli, slug: str, leaf: str) -> None:
    verbs: list[list[Any]] = [
        ["list"],
        ["list", "--runs"],
        ["show", slug],
        ["show", leaf],
        ["tree", slug],
        ["explain"],
        ["suite", "list"],
        ["suite", "check"],
        ["doctor", "store"],
        ["check", leaf, "--select", "SP101"],
        ["play", leaf, "--actor", "idle"],
        ["evaluate", leaf, "--actor", "idle"],
    ]
    for verb in verbs:
        assert json.loads(cli(*verb, "--json").out), verb
