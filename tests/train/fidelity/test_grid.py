"""Jobs run in their order, one that breaks costs itself alone, and a run that was killed goes on."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from envsynth.errors import SpecError
from envsynth.train.fidelity import grid
from envsynth.train.fidelity.__main__ import main
from envsynth.train.fidelity.config import FidelityConfig, profile
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import Event, GridOutcome, find_devices, run_grid
from envsynth.train.fidelity.jobs import Job, all_jobs
from tests.train.fidelity.conftest import tiny

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "envsynth.train.fidelity"]


def test_all_jobs_stand_after_what_they_need() -> None:
    jobs = all_jobs(profile("gpu", seeds=2))
    assert Counter(job.kind for job in jobs) == {"pretrain": 2, "warmup": 8, "twin": 2, "sparse": 48}
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for at, job in enumerate(jobs):
        assert job.needs is None or job.needs in names[:at]


def test_next_takes_the_longest_path_first(tmp_path: Path) -> None:
    config = profile("gpu")
    state = grid._Grid(FidelityFolder.open(tmp_path, config), config, ["cpu"], None, lambda event: None)
    first = state._next()
    assert first == Job(kind="pretrain", seed=0)
    assert state._next() is None
    state._done(first, 10.0)
    order = [state._next() for _ in range(5)]
    assert [job.kind for job in order if job] == ["warmup"] * 4 + ["twin"]


def test_next_skips_what_would_not_finish(tmp_path: Path) -> None:
    config, told = tiny(), list[Event]()
    state = grid._Grid(FidelityFolder.open(tmp_path, config), config, ["cpu"], 50.0, told.append)
    state._done(Job(kind="pretrain", seed=0), 10.0)
    state.waiting = [job for job in state.waiting if job.kind != "pretrain"]
    state.spent["warmup"] = [100.0]
    assert state._next() == Job(kind="twin", seed=0)
    assert state.skipped.keys() == {"seed0-warmup-h1"}
    assert [event.state for event in told] == ["skipped"]
    assert "100 s" in told[0].reason


def test_find_devices_refuses_what_is_not_there() -> None:
    assert find_devices("cpu", 3) == ("cpu", "cpu", "cpu")
    assert find_devices("cpu") == ("cpu",)
    with pytest.raises(SpecError, match="99 CUDA devices"):
        find_devices("cuda", 99)


def test_run_grid_finished_jobs_are_not_run_again(
    finished: tuple[FidelityFolder, FidelityConfig, GridOutcome],
) -> None:
    folder, config, _ = finished
    told: list[Event] = []
    outcome = run_grid(folder, config, ["cpu"], on_event=told.append)
    assert told == []
    assert set(outcome.finished) == {job.name for job in all_jobs(config)}


def test_run_grid_after_the_deadline_starts_nothing(tmp_path: Path) -> None:
    outcome = run_grid(FidelityFolder.open(tmp_path, tiny()), tiny(), ["cpu"], deadline_s=0)
    assert outcome.skipped.keys() == {job.name for job in all_jobs(tiny())}
    assert "deadline" in outcome.skipped["seed0-pretrain"]
    assert "seed0-pretrain" in outcome.skipped["seed0-twin"]


def test_run_grid_a_killed_process_costs_its_job_alone(
    finished: tuple[FidelityFolder, FidelityConfig, GridOutcome], tmp_path: Path
) -> None:
    source, config, _ = finished
    shutil.copytree(source.path, tmp_path / "run")
    folder = FidelityFolder.open(tmp_path / "run", config)
    for name in ("seed0-warmup-h1", "seed0-twin", "seed0-sparse-h1-k4", "seed0-sparse-h1-k8"):
        (folder.path / "jobs" / f"{name}.json").unlink()
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if event.state == "started" and event.job == "seed0-warmup-h1":
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    outcome = run_grid(folder, config, ["cpu"], on_event=on_event)
    assert outcome.failed.keys() == {"seed0-warmup-h1"}
    assert "-9" in outcome.failed["seed0-warmup-h1"]
    assert "seed0-twin" in outcome.finished
    assert outcome.skipped.keys() == {"seed0-sparse-h1-k4", "seed0-sparse-h1-k8"}
    assert not multiprocessing.active_children()


def serve(folder: FidelityFolder, config: FidelityConfig, jobs: list[Job]) -> list[dict[str, Any]]:
    """Talk to a worker that runs in this process."""
    here, there = multiprocessing.Pipe()
    heard: list[dict[str, Any]] = []

    def talk() -> None:
        for job in jobs:
            here.send(job)
            while True:
                heard.append(here.recv())
                if heard[-1]["state"] != "step":
                    break
        here.close()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    talker = threading.Thread(target=talk)
    talker.start()
    try:
        grid._serve(there, folder.path, config, "cpu")
    finally:
        talker.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    return heard


def test_serve_runs_jobs_and_reports_errors(
    finished: tuple[FidelityFolder, FidelityConfig, GridOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config, _ = finished
    shutil.copytree(source.path, tmp_path / "run")
    folder = FidelityFolder.open(tmp_path / "run", config)
    twin, lost = Job(kind="twin", seed=0), Job(kind="twin", seed=7)
    heard = serve(folder, config, [twin, lost])
    assert [message["state"] for message in heard] == ["step", "finished", "failed"]
    assert "seed7-pretrain" in heard[-1]["reason"]
    assert folder.found(twin.name)["after"] == source.found(twin.name)["after"]  # equal seeds, equal numbers

    def breaks(*arguments: object) -> float:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(grid, "run_job", breaks)
    assert serve(folder, config, [twin]) == [{"state": "failed", "reason": "ZeroDivisionError: by zero"}]


def test_main_reports_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FidelityFolder.open(tmp_path, tiny())
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([str(tmp_path), "--profile", "smoke"]) == 1
        assert "repeat its settings" in capsys.readouterr().err
        assert main([str(tmp_path / "new"), "--profile", "smoke", "--deadline-s", "0"]) == 1
        arguments = ["--profile", "smoke", "--deadline-s", "0", "--heads", "3", "--topks", "2,5"]
        assert main([str(tmp_path / "other"), *arguments]) == 1
        settings = FidelityFolder(tmp_path / "other").settings()
        assert (settings["heads"], settings["topks"]) == ([3], [2, 5])
        with pytest.raises(SystemExit, match="2"):
            main([str(tmp_path / "other"), "--heads", "3,none"])
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr()
    assert "not finished: seed0-pretrain" in said.err
    assert "missing" in said.out


def test_module_needs_neither_the_command_line_nor_the_text_wing() -> None:
    refuse = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in ('pydantic', 'gymnasium', 'sqlmodel', 'typer', 'rich', 'openai', 'msgspec', 'orjson',
                                  'jinja2', 'matplotlib'):
            raise ImportError(f'refused: {name}')
sys.meta_path.insert(0, Refuse())
import envsynth.train.fidelity.__main__
"""
    subprocess.run([sys.executable, "-c", refuse], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_run_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [*COMMAND, str(tmp_path), "--profile", "smoke"]
    children: list[int] = []
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "warmup-h2" in line and "step" in line:
                children = _children(run.pid)
                os.kill(run.pid, number)
                break
        rest = run.stderr.read()
        code = run.wait()
    assert children
    if number != signal.SIGKILL:
        assert code == 130
        assert "the same command goes on" in rest
        assert "Traceback" not in rest
        assert not [child for child in children if _lives(child)]
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    started = re.findall(r"^(\S+) on cpu: started", again.stderr, re.MULTILINE)
    assert "seed0-pretrain" not in started
    assert len(started) == len(set(started))
    assert "seed0-sparse-h2-k8" in started


def _lives(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be buried does not. The keeper of semaphores ends last."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True


def _children(pid: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found
