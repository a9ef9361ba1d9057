"""The choice of the number of threads is a measurement."""

from __future__ import annotations

import time

import torch

from envsynth.train.threads import choose_threads


def rates(found: dict[int, float]):
    return lambda threads, trial_s: found[threads]


def test_choose_threads_takes_the_faster_one_and_sets_it(monkeypatch):
    monkeypatch.setattr("envsynth.train.threads.os.sched_getaffinity", lambda pid: {0, 1})
    assert choose_threads(rate=rates({1: 10.0, 2: 15.0})) == 2
    assert torch.get_num_threads() == 2
    assert choose_threads(rate=rates({1: 10.0, 2: 0.2})) == 1
    assert torch.get_num_threads() == 1


def test_choose_threads_prefers_one_when_the_second_gains_little(monkeypatch):
    monkeypatch.setattr("envsynth.train.threads.os.sched_getaffinity", lambda pid: {0, 1})
    assert choose_threads(rate=rates({1: 10.0, 2: 10.9})) == 1


def test_choose_threads_tries_no_more_than_there_are_cpus(monkeypatch):
    monkeypatch.setattr("envsynth.train.threads.os.sched_getaffinity", lambda pid: {3})
    assert choose_threads((1, 2, 8), rate=rates({1: 1.0})) == 1


def test_choose_threads_measures_for_about_as_long_as_it_is_told():
    began = time.monotonic()
    assert choose_threads((1,), trial_s=0.2) == 1
    assert 0.15 < time.monotonic() - began < 3
