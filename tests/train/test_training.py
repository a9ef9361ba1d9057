"""A whole run in a folder, and the verbs of the command line around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import envsynth.train.training as training
from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import load_checkpoint
from envsynth.train.grpo_loop import GrpoRunConfig
from envsynth.train.run_folder import CONFIG, METRICS
from envsynth.train.training import TrainConfig, Watch, new_run, run_training
from tests.command_line import call
from tests.train.conftest import SMALL

ROOT = Path(__file__).resolve().parents[2]
TINY = {"sft_steps": 2, "lessons": 8, "threads": 1}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Lessons are made in this process, which is faster for eight of them, and the policy is a small one."""
    monkeypatch.setattr(training.os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(training, "nano", lambda size: replace(SMALL, max_position_embeddings=256))


def test_run_training_leaves_what_a_run_is(tmp_path):
    steps, lessons = [], []
    config = TrainConfig(seed=3, **TINY)
    found = run_training(tmp_path, config, watch=Watch(on_lessons=lessons.append, on_step=steps.append))
    assert found.grpo is None
    assert found.best == found.sft == tmp_path / "sft" / "step-00000002"
    assert [step.step for step in steps] == [1, 2]
    assert sum(lessons) == 8
    about = json.loads((tmp_path / CONFIG).read_text())
    assert about["options"]["seed"] == 3
    assert about["options"]["threads"] == found.threads == 1
    record = load_checkpoint(found.best).record
    assert (record.seed, record.phase, record.step) == (3, "sft", 2)
    assert len(record.data) == 32


def test_run_training_goes_on_where_it_was_interrupted(tmp_path):
    whole = run_training(tmp_path / "a", TrainConfig(**TINY | {"sft_steps": 4}))

    def interrupt(report) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "b", TrainConfig(**TINY | {"sft_steps": 4}), watch=Watch(on_step=interrupt))
    assert [path.name for path in (tmp_path / "b" / "sft").iterdir()] == ["step-00000002"]
    found = run_training(tmp_path / "b")
    for name in ("policy.safetensors", "training.safetensors"):
        assert (found.best / name).read_bytes() == (whole.best / name).read_bytes()
    assert (tmp_path / "a" / METRICS).read_bytes() == (tmp_path / "b" / METRICS).read_bytes()


@pytest.mark.slow
def test_run_training_goes_from_imitation_to_rewards_and_resumes_there(tmp_path, monkeypatch):
    def small(self) -> GrpoRunConfig:
        return GrpoRunConfig(
            steps=2,
            seed=self.seed,
            tasks_per_step=2,
            group_size=2,
            max_refills=0,
            max_turn_tokens=6,
            checkpoint_every=1,
        )

    monkeypatch.setattr(TrainConfig, "grpo", property(small))
    config = TrainConfig(**TINY, grpo_tasks=4, slots=2)
    found = run_training(tmp_path, config)
    assert found.grpo == found.best == tmp_path / "grpo" / "step-00000002"
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("sft", 1), ("sft", 2), ("grpo", 1), ("grpo", 2)]
    assert all(line["episodes/played"] == 4 for line in lines[2:])
    again = run_training(tmp_path)
    assert (again.sft, again.grpo) == (found.sft, found.grpo)


def test_a_run_says_what_moves_the_indexer():
    learns, frozen = (TrainConfig(grpo_steps=1, indexer=how).grpo for how in ("kl", "frozen"))
    assert learns is not None
    assert frozen is not None
    assert learns.update.indexer_kl_weight > 0 == frozen.update.indexer_kl_weight


def test_lessons_and_tasks_are_apart():
    pairs, kinds = training.nano_pairs(40, "0/grpo")
    assert len(pairs) == len(kinds) == 40
    assert len(set(kinds.values())) == 5
    other, _ = training.nano_pairs(40, "0/lessons/0")
    assert not {task.prompt for _, task in pairs} & {task.prompt for _, task in other}


def test_new_run_refuses_a_folder_with_a_run(tmp_path):
    new_run(tmp_path)
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(SpecError, match="--resume"):
        new_run(tmp_path)
    with pytest.raises(CheckpointError, match="no run to continue"):
        run_training(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sft_steps": 2, "sft_seconds": 3.0},
        {"sft_steps": 2, "tier": "huge"},
        {"sft_steps": 2, "lessons": 0},
        {"sft_steps": 2, "indexer": "both"},
    ],
)
def test_config_refuses_nonsense(change):
    with pytest.raises(SpecError):
        TrainConfig(**change)


# --------------------------------------------------------------------------------------------------- the command line


def test_train_prints_the_checkpoints_and_refuses_a_second_run(tmp_path, capsys):
    done = call(capsys, "train", "--out", tmp_path / "run", "--sft-steps", 2, "--lessons", 8, "--json")
    assert done.code == 0
    shown = json.loads(done.out)
    assert Path(shown["checkpoints"]["sft"]).is_dir()
    assert shown["checkpoints"]["grpo"] is None
    again = call(capsys, "train", "--out", tmp_path / "run", "--sft-steps", 2)
    assert again.code == 2
    assert "--resume" in again.said
    resumed = call(capsys, "train", "--out", tmp_path / "run", "--resume")
    assert resumed.code == 0
    assert "step-00000002" in resumed.out


def test_train_refuses_two_budgets_and_unknown_tiers(tmp_path, capsys):
    for options in (("--sft-steps", 2, "--sft-seconds", 3), ("--tier", "huge")):
        done = call(capsys, "train", "--out", tmp_path / "run", *options)
        assert done.code == 2
    assert not (tmp_path / "run").exists()


def test_resume_without_a_run_is_an_error(tmp_path, capsys):
    done = call(capsys, "train", "--out", tmp_path / "nothing", "--resume")
    assert done.code == 1
    assert "no run to continue" in done.err


@pytest.mark.slow
def test_evaluate_plays_a_checkpoint(tmp_path, capsys):
    call(capsys, "train", "--out", tmp_path / "run", "--sft-steps", 2, "--lessons", 8)
    store = tmp_path / "store.db"
    made = call(capsys, "synthesize", "small tables", "--tier", "nano", "--store", store, "--workers", 1)
    slug = made.out.split("envsynth/")[1].split("-v1")[0]
    for temperature in (0, 1):
        done = call(
            capsys,
            "evaluate",
            slug,
            "--store",
            store,
            "--actor",
            tmp_path / "run",
            "--temperature",
            temperature,
            "--json",
        )
        assert done.code == 0, done.err
        report = json.loads(done.out)
        assert report["actor"] == f"policy:sft/step-00000002:{'t1' if temperature else 'greedy'}"
        assert report["scored"] == report["episodes"] > 0
    (tmp_path / "empty").mkdir()
    refused = call(capsys, "evaluate", slug, "--store", store, "--actor", tmp_path / "empty")
    assert refused.code == 2
    assert "no checkpoint" in refused.said


def test_without_torch_the_command_names_the_extra(tmp_path):
    """A machine without torch: its import fails as that of an absent package does."""
    (tmp_path / "blocked.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name='torch')\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from envsynth.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    commands = (
        ["train", "--out", str(tmp_path / "run"), "--sft-steps", "1"],
        ["doctor", "train"],
        ["policy", "show", "nano"],
        ["--version"],
    )
    for arguments in commands:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "blocked.py"), *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if arguments == ["--version"]:
            assert done.returncode == 0
        else:
            assert done.returncode == 1
            assert "envsynth[train]" in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_signal_saves_a_checkpoint_and_resume_goes_on(tmp_path):
    """SIGTERM in the middle of a run: exit code 130, a checkpoint, and the same command with --resume ends it."""
    command = [sys.executable, "-m", "envsynth.cli", "train", "--out", str(tmp_path / "run")]
    child = subprocess.Popen(
        [*command, "--sft-steps", "12", "--lessons", "20"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / METRICS
    for _ in range(600):
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "--resume" in said
    steps = metrics.read_text().count("\n")
    assert 2 <= steps < 12
    assert load_checkpoint(tmp_path / "run").record.step == steps
    subprocess.run([*command, "--resume"], cwd=ROOT, check=True, capture_output=True, timeout=240)
    assert metrics.read_text().count("\n") == 12
