"""The script that compares bits of reruns: what it runs works, and it sees what differs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kernels import repeats


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(repeats, "RERUNS", 2)
    monkeypatch.setattr(repeats, "PERMUTATIONS", 1)


def test_every_case_runs_and_its_results_have_the_batch_where_they_say():
    for case in repeats.cases(torch.device("cpu"), 260):
        results = case.run(case.batched, case.shared)
        assert {len(item) for item in results[: case.per_batch]} == {len(case.batched[0])}, case.name
        assert all(item.isfinite().all() for item in results if item.is_floating_point()), case.name


def test_a_rerun_and_an_order_that_differ_are_seen():
    numbers = torch.arange(6.0)
    calls = iter(range(100))
    drifts = repeats.Case("drifts", lambda batched, _: [batched[0] + next(calls)], (numbers,), (), 1)
    found = repeats.differing(drifts)
    assert found["differing reruns"] == 2
    assert found["differing permutations"] == 1
    place = repeats.Case("place", lambda batched, _: [batched[0] * torch.arange(1.0, 7)], (numbers,), (), 1)
    assert repeats.differing(place)["differing reruns"] == 0
    assert repeats.differing(place)["differing permutations"] == 1
    zeros = repeats.Case(
        "sign", lambda batched, _: [torch.tensor([0.0, -0.0][next(calls) % 2]).expand(6)], (numbers,), (), 1
    )
    assert repeats.differing(zeros)["differing reruns"] > 0
