"""Experts on their own tokens: against a loop, gradients against finite differences and against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import library
from torch.nn import functional

from envsynth.policy.grouped import expert_outputs, grouped_experts


def make(n=13, experts=4, active=2, dtype=torch.float64, sizes=(6, 10)):
    """Tokens, choices (nobody chooses expert 1) and matrices."""
    generator, (dim, width) = torch.Generator().manual_seed(n + experts), sizes
    shapes = [(n, dim), (experts, width, dim), (experts, width, dim), (experts, dim, width)]
    x, gate, up, down = (torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    scores = torch.rand(n, experts, generator=generator)
    scores[:, 1] = -1
    return x, scores.topk(active).indices.to(torch.int32), gate, up, down


def by_loop(x, chosen, gate, up, down):
    rows = [
        [down[e] @ (functional.silu(gate[e] @ token) * (up[e] @ token)) for e in row]
        for token, row in zip(x, chosen.tolist(), strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


def test_outputs_and_gradients_are_those_of_a_loop():
    arguments = make()
    trained = [arguments[0], *arguments[2:]]
    found, want = expert_outputs(*arguments), by_loop(*arguments)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    weight = torch.randn_like(want)
    for a, b in zip(*(torch.autograd.grad((item * weight).sum(), trained) for item in (found, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_gradcheck():
    x, chosen, *weights = make(n=5)
    assert torch.autograd.gradcheck(lambda *item: expert_outputs(item[0], chosen, *item[1:]), (x, *weights))


def test_operator_passes_the_librarys_own_checks():
    x, chosen, *weights = make(n=5)
    # Shapes of its result, its gradients and its traces are checked as the compiler will use them.
    library.opcheck(torch.ops.envsynth.expert_outputs.default, (x, chosen, *weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_result_does_not_depend_on_the_others(dtype):
    x, chosen, *weights = make(n=100, dtype=dtype, sizes=(32, 48))
    whole = expert_outputs(x, chosen, *weights)
    for rows in (slice(0, 1), slice(3, 20), slice(50, 100)):
        assert torch.equal(expert_outputs(x[rows], chosen[rows], *weights), whole[rows])


def test_grouped_products_are_the_same_function():
    arguments = make(dtype=torch.float32, sizes=(8, 16))
    torch.testing.assert_close(grouped_experts(*arguments), expert_outputs(*arguments), rtol=1e-5, atol=1e-5)
    trained = [arguments[0], *arguments[2:]]
    weight = torch.randn(13, 2, 8)
    both = [torch.autograd.grad((f(*arguments) * weight).sum(), trained) for f in (grouped_experts, expert_outputs)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
