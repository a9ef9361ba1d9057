"""Accuracies are counted as they are defined: a reader that knows all answers is right, one that errs once is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from envsynth.errors import ExperimentError
from envsynth.evaluate.statistics import wilson
from envsynth.train.fidelity.measure import ACCURACIES, Share, diagnose, measure
from envsynth.train.fidelity.tasks import VOCABULARY, TaskConfig
from tests.train.fidelity.conftest import CPU, tiny


class Oracle(torch.nn.Module):
    """Says the next token, except for what it is told to get wrong: positions of answers, in every sequence."""

    def __init__(self, wrong: tuple[int, ...] = (), sure: float = 30.0) -> None:
        super().__init__()
        self.wrong, self.sure = wrong, sure
        self.attention_mode = "mha"
        self.config = SimpleNamespace(indexer=SimpleNamespace(index_topk=4))

    def forward(self, tokens_BT: Tensor, *, dense: bool = False, with_diagnostics: bool = False) -> SimpleNamespace:
        said_BT = tokens_BT.roll(-1, 1)
        for place in self.wrong:
            said_BT[:, place - 1] = (said_BT[:, place - 1] + 1) % VOCABULARY
        ones_BTL = torch.ones(*tokens_BT.shape, 2)
        steps_BTL = torch.arange(tokens_BT.shape[1])[None, :, None] * ones_BTL
        diagnostics = SimpleNamespace(
            recall_BTL=ones_BTL * torch.tensor([0.25, 0.75]),
            best_BTL=ones_BTL * torch.tensor([0.5, 1.0]),
            entropy_BTL=torch.where(steps_BTL < 4, torch.nan, 2.0),
            overlap_BTL=torch.where(steps_BTL < 4, 9.0, 0.5),
        )
        logits_BTV = self.sure * torch.nn.functional.one_hot(said_BT, VOCABULARY)
        return SimpleNamespace(logits_BTV=logits_BTV, diagnostics=diagnostics if with_diagnostics else None)


def right(oracle: Oracle) -> dict[str, tuple[int, int]]:
    found = measure(oracle, tiny(), CPU, seed=0, dense=True, attention="mha")
    return {name: (found.accuracy[name].right, found.accuracy[name].n) for name in ACCURACIES}


def test_measure_oracle_is_always_right() -> None:
    found = measure(Oracle(), tiny(), CPU, seed=0, dense=True, attention="fused")
    assert all(share.right == share.n > 0 for share in found.accuracy.values())
    assert found.loss["answer"] == pytest.approx(0.0, abs=1e-6)
    assert found.sequences == 4


def test_measure_one_wrong_id_costs_its_answer_alone() -> None:
    tasks = TaskConfig.for_context(64)
    perfect = right(Oracle())
    single = right(Oracle((int(tasks.single_positions[0, 1]),)))
    n = perfect["single"][1]
    assert single == {**perfect, "single": (n - 4, n)}
    multi = right(Oracle((int(tasks.multi_positions[0, 2]),)))
    n = perfect["multi_token"][1]
    assert multi == {**perfect, "multi": (0, 4), "multi_token": (n - 4, n)}
    copy = right(Oracle((int(tasks.copy_positions[0]),)))
    n = perfect["copy_token"][1]
    assert copy == {**perfect, "copy": (0, 4), "copy_token": (n - 4, n)}


def test_measure_refuses_a_loss_that_is_not_finite() -> None:
    with pytest.raises(ExperimentError, match="not finite"):
        measure(Oracle(sure=float("nan")), tiny(), CPU, seed=0, dense=True, attention="mha")


def test_diagnose_counts_queries_with_more_than_k_keys() -> None:
    oracle = Oracle()
    oracle.attention_mode = "mqa"
    found = diagnose(oracle, tiny(), CPU, seed=0)
    assert found.recall_by_layer == (0.25, 0.75)
    assert (found.recall, found.best, found.entropy, found.overlap) == (0.5, 0.75, 2.0, 0.5)
    assert found.queries == 60
    assert oracle.attention_mode == "mqa"


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (3, 8), (0, 1536), (1536, 1536), (700, 1536)])
def test_share_has_the_interval_of_evaluations(count: int, n: int) -> None:
    share = Share.of(count, n)
    low, high = wilson(count / n, n)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert 0.0 <= share.low <= share.share <= share.high <= 1.0
