"""The folder of a run and stopping between two steps."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from envsynth.errors import CheckpointError
from envsynth.train.run_folder import METRICS, TIMINGS, RunFolder, StepReport, StopRequest


def report(step: int) -> StepReport:
    return StepReport("sft", step, {"b": 1.0, "a": 2.0}, 0.5, 12.34567, 99)


def test_log_keeps_clocks_out_of_the_metrics(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.log(report(1))
    metrics = (folder.path / METRICS).read_text()
    assert metrics == '{"phase": "sft", "step": 1, "a": 2.0, "b": 1.0}\n'
    timing = json.loads((folder.path / TIMINGS).read_text())
    assert timing == {"phase": "sft", "step": 1, "elapsed_s": 12.346, "tokens": 99}


def test_cut_metrics_goes_back_to_a_size(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.metrics_bytes() == 0
    folder.cut_metrics(0)
    folder.log(report(1))
    size = folder.metrics_bytes()
    folder.log(report(2))
    folder.cut_metrics(size)
    assert folder.metrics_bytes() == size
    with pytest.raises(CheckpointError, match="own file"):
        folder.cut_metrics(size + 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_request_notes_a_signal_and_gives_in_to_a_second(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_stop_request_leaves_signals_alone_in_another_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.ask()
            seen.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, True]
