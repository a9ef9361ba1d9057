"""P1: a run that was killed with SIGKILL goes on as if it had not been: weights, optimizer, generators, metrics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envsynth.policy.checkpoint import load_checkpoint
from envsynth.train.run_folder import METRICS
from tests.train import killed_run
from tests.train.killed_run import STEPS, make_run

ROOT = Path(__file__).resolve().parents[2]


def kill_at(phase: str, folder: Path, step: int) -> None:
    """Start the run and send SIGKILL as soon as it tells of a step; where it is by then is up to chance."""
    child = subprocess.Popen(
        [sys.executable, killed_run.__file__, phase, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child:
        for line in child.stdout:
            if int(line) == step:
                child.kill()
                break
        assert child.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5])
@pytest.mark.parametrize("phase", ["sft", "grpo"])
def test_killed_run_resumes_bit_by_bit(tmp_path, phase, step):
    whole = make_run(phase, tmp_path / "whole").run()
    kill_at(phase, tmp_path / "killed", step)
    # What a kill in the middle of a write leaves: half a line of metrics, and half a checkpoint under another name.
    with (tmp_path / "killed" / METRICS).open("a") as file:
        file.write('{"phase": ')
    (tmp_path / "killed" / phase / f".step-{STEPS:08d}.new").mkdir()
    again = make_run(phase, tmp_path / "killed")
    before = load_checkpoint(tmp_path / "killed")
    assert 3 <= STEPS - before.record.step < STEPS
    again.resume(before)
    end = again.run()
    for name in ("policy.safetensors", "training.safetensors"):
        assert (whole / name).read_bytes() == (end / name).read_bytes(), name
    assert load_checkpoint(whole).python_rng is not None
    assert (tmp_path / "whole" / METRICS).read_bytes() == (tmp_path / "killed" / METRICS).read_bytes()
