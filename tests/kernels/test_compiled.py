"""Operators inside a compiled graph: no break, the same bits as outside, and what the library asks of its operators."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, library
from torch._dynamo.backends.debugging import aot_eager

from acceptance.policy_models import random_policy
from envsynth.kernels.dense_kl import Student, Teacher, dense_kl
from envsynth.kernels.dense_kl import compiled as dense_kl_operator
from envsynth.kernels.indexer import compiled as indexer_operators
from envsynth.kernels.indexer import gathered_scores, index_select, selected_kl
from envsynth.kernels.logprobs import compiled as logprobs_operator
from envsynth.kernels.logprobs import configs as logprobs_configs
from envsynth.kernels.logprobs import linear_log_probs
from envsynth.kernels.sparse_attention import compiled as attention_operator
from envsynth.kernels.sparse_attention import sparse_attention
from envsynth.policy.presets import nano
from envsynth.policy.scores import next_token_request

B, T = 2, 9
OPERATORS = ("sparse_attention", "indexer", "dense_kl", "experts", "logprobs")


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    monkeypatch.undo()  # the library's checks compare memory that nobody reads
    torch.compiler.reset()


def leaf(generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator).requires_grad_()


def assert_same_compiled(function, inputs: list[Tensor], loss) -> None:
    """Compare results and gradients of a function with those of its compiled graph."""
    found = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        results = run(*inputs)
        found.append((*results, *torch.autograd.grad(loss(results), inputs)))
    for plain, compiled in zip(*found, strict=True):
        assert plain.dtype == compiled.dtype
        assert torch.equal(plain, compiled)


@pytest.mark.slow
def test_attention(generator):
    inputs = [leaf(generator, B, T, 3, 24), leaf(generator, B, T, 24)]
    topk = torch.randint(-1, T, (B, T, 5), generator=generator, dtype=torch.int32)

    def attend(query, latent):
        found = sparse_attention(query, latent, topk, rank=16, scale=0.2, with_sum=True, backend="triton")
        return found.out_BTHR, found.lse_BTH, found.sum_BTK

    assert_same_compiled(attend, inputs, lambda results: results[0].square().sum())
    for with_sum in (True, False):
        library.opcheck(attention_operator.attention_operator, (*inputs, topk, 16, 0.2, with_sum, True))
    nothing = leaf(generator, B, 0, 3, 24), leaf(generator, B, 0, 24), topk[:, :0]
    library.opcheck(attention_operator.attention_operator, (*nothing, 16, 0.2, True, True))


@pytest.mark.parametrize("known", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_selection_and_its_loss(generator, known):
    inputs = [leaf(generator, B, T, 3, 8), leaf(generator, B, T, 8), leaf(generator, B, T, 3)]
    starts, target = torch.randint(0, 3, (B, T), generator=generator), torch.rand(B, T, 4, generator=generator)

    def select(query, key, weight):
        topk, scores = index_select(query, key, weight, 4, starts_BT=starts, backend="triton")
        mine = gathered_scores(query, key, weight, topk, known_BTK=scores if known else None, backend="triton")
        return topk, scores, mine, selected_kl(mine, target, topk, backend="triton")

    assert_same_compiled(select, inputs, lambda results: (results[3] * torch.arange(1.0, T + 1)).sum())
    with torch.no_grad():
        topk, scores, *_ = select(*inputs)
    plain = [item.detach() for item in inputs]
    library.opcheck(indexer_operators.selection_operator, (*plain, None, 4, starts, None, None))
    library.opcheck(indexer_operators.scores_operator, (*inputs, topk, scores if known else None))
    rows = (scores.flatten(0, 1).requires_grad_(), target.flatten(0, 1), topk.flatten(0, 1))
    library.opcheck(indexer_operators.divergence_operator, rows)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_log_probs(generator, monkeypatch, keep, masked):
    monkeypatch.setattr(logprobs_configs, "KEEP_BYTES", 2**30 if keep else 0)
    monkeypatch.setattr(logprobs_configs, "KEEP_WORK", 0)
    inputs = [leaf(generator, T, 16), leaf(generator, 37, 16)]
    targets, pulled = torch.randint(-1, 37, (T,), generator=generator), torch.randn(T, generator=generator)
    words = torch.randint(-(2**31), 2**31, (T, 2), generator=generator).to(torch.int32) if masked else None

    def score(hidden, weight):
        return tuple(linear_log_probs(hidden, weight, targets, temperature=0.7, keep_words_NW=words, backend="triton"))

    assert_same_compiled(score, inputs, lambda results: (results[0].nan_to_num(0, 0, 0) * pulled).sum())
    library.opcheck(logprobs_operator.scores_operator, (*inputs, targets, words, 0.7, "ieee", keep))


@pytest.mark.parametrize("given", [True, False])
def test_dense_loss(generator, given):
    query, key = (torch.randn(*shape, generator=generator) for shape in ((B, T, 3, 8), (B, T, 8)))
    inputs = [leaf(generator, B, T, 2, 8), leaf(generator, B, T, 8), leaf(generator, B, T, 2)]
    seen = torch.arange(T) <= torch.arange(T)[:, None]
    logits = (torch.einsum("bthc,bsc->bths", query, key) * 0.3).masked_fill(~seen[:, None], float("-inf"))
    lse = logits.logsumexp(-1) if given else None

    def measure(*student):
        return (dense_kl(Teacher(query, key, 0.3, lse), Student(*student), backend="triton"),)

    assert_same_compiled(measure, inputs, lambda results: results[0].square().sum())
    visible = [torch.zeros(B, T, dtype=torch.int32), (torch.arange(T, dtype=torch.int32) + 1).expand(B, T).contiguous()]
    library.opcheck(dense_kl_operator.divergence_operator, (*inputs, [query, key], 0.3, lse, visible))


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_a_policy_that_runs_kernels_compiles_without_a_break(monkeypatch, dense):
    """With kernels interpreted: the graph has their operators, and gives what the policy gives."""
    for name in OPERATORS:
        monkeypatch.setattr(importlib.import_module(f"envsynth.kernels.{name}"), "choose", lambda *_, **__: "triton")
    policy = random_policy(nano(50))
    policy.attention_mode = "kernels"
    tokens, seen = torch.randint(50, (1, 20)), []

    def remember(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return aot_eager(graph, inputs)

    asked = next_token_request(tokens, torch.ones_like(tokens, dtype=torch.bool))
    gradients = []
    for run in (torch.compile(policy, fullgraph=True, backend=remember), policy):
        policy.zero_grad()
        output = run(tokens, score=asked, with_indexer_kl=True, dense=dense)
        (output.scores.log_probs_BT.square().sum() + output.indexer_kl.sum()).backward()
        gradients.append({name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None})
    wanted = {"dense_kl"} if dense else {"sparse_attention", "index_scores", "selected_kl"}
    for operator in wanted | {"experts", "linear_log_probs"}:
        assert any(f"envsynth.{operator}" in name for name in seen), operator
    for name, item in gradients[0].items():
        torch.testing.assert_close(item, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)
