"""Eight bits of the indexer: against matrices, against the definition in Python's own numbers, and at powers of two."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.policy.indexer import index_scores
from envsynth.policy.quantization import dequantize, hadamard, power_of_two_scale, quantize, round_through


def sylvester(width: int) -> torch.Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / width**0.5


@pytest.mark.parametrize("width", [1, 2, 8, 32, 128])
def test_hadamard_is_the_matrix_and_its_own_inverse(width):
    x = torch.randn(3, width, dtype=torch.float64)
    torch.testing.assert_close(hadamard(x), x @ sylvester(width), rtol=0, atol=1e-13)
    torch.testing.assert_close(hadamard(hadamard(x)), x, rtol=0, atol=1e-13)


def test_hadamard_keeps_half_precision_and_refuses_other_widths():
    assert hadamard(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="needs a power of two, got 12"):
        hadamard(torch.ones(12))


@pytest.mark.parametrize("exponent", range(-30, 31))
def test_scale_is_exact_at_and_beside_powers_of_two(exponent):
    edge = 448 * 2.0**exponent
    values = [math.nextafter(edge, 0), edge, math.nextafter(edge, math.inf)]
    found = power_of_two_scale(torch.tensor(values, dtype=torch.float64)).tolist()
    least = 2.0 ** math.ceil(math.log2(1e-4 / 448))
    assert found == [max(2.0**exponent, least), max(2.0**exponent, least), max(2.0 ** (exponent + 1), least)]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200))
def test_quantize_rounds_each_block_to_the_nearest_number_of_the_format(numbers):
    x = torch.tensor(numbers)
    rounded, scales = quantize(x)
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    grid = every[every.isfinite()]
    for block, start in enumerate(range(0, len(x), 128)):
        part, scale = x[start : start + 128], float(scales[block])
        assert math.frexp(scale)[0] == 0.5, "a power of two"
        amax = max(float(part.abs().max()), 1e-4)
        assert amax / scale <= 448
        assert amax / (scale / 2) > 448
        error = (rounded[start : start + 128].double() - part.double() / scale).abs()
        best = (grid[None] - (part.double() / scale)[:, None]).abs().min(-1).values
        assert torch.equal(error, best)
    assert torch.equal(dequantize(rounded, scales).double() / scales.repeat_interleave(128)[: len(x)], rounded.double())


def test_round_through_rounds_forward_and_passes_gradients():
    x = torch.randn(4, 32, requires_grad=True)
    y = round_through(x)
    assert torch.equal(y, dequantize(*quantize(x)))
    assert not torch.equal(y, x)
    weight = torch.randn(4, 32)
    assert torch.equal(torch.autograd.grad((y * weight).sum(), x)[0], weight)
    assert torch.equal(round_through(y), y), "what is rounded stays"


def test_scores_are_those_of_the_released_model_bit_for_bit():
    """Integers of eight bits times both scales, the query's scale inside of the head weight: its order of operations."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 9, 4, 128, generator=generator) * torch.logspace(-3, 2, 9)[None, :, None, None]
    key = torch.randn(1, 11, 128, generator=generator) * torch.logspace(-2, 2, 11)[None, :, None]
    weight = torch.randn(1, 9, 4, generator=generator)
    ours = index_scores(round_through(query), round_through(key), weight)
    (query8, query_scale), (key8, key_scale) = quantize(query), quantize(key)
    theirs = index_scores(query8.float(), key8.float(), weight * query_scale[..., 0]) * key_scale[..., 0][:, None]
    assert torch.equal(ours, theirs)


def test_an_eight_bit_policy_decodes_what_it_computes_whole(lively, tokens, tiny):
    policy = lively(indexer=replace(tiny.indexer, index_precision="fp8")).double()
    exact = lively().double()
    batch = tokens(1, 40)
    with torch.no_grad():
        whole, cache = policy(batch), policy.new_cache(1, 40)
        for t in range(40):
            logits, _, topk = policy.decode(batch[0, t : t + 1], cache, torch.tensor([0]), torch.tensor([t]))
            assert torch.equal(topk[0], whole.indexer_topk[0, t])
            assert (logits[0] - whole.logits_BTV[0, t]).abs().max() < 1e-12
        same = (whole.indexer_topk == exact(batch).indexer_topk).float().mean()
    assert 0.5 < same < 1, "rounding changes some selections, not most"


def test_the_indexer_learns_through_the_rounding(lively, tokens, tiny):
    policy = lively(indexer=replace(tiny.indexer, index_precision="fp8"))
    policy(tokens(1, 20), with_indexer_kl=True).indexer_kl.sum().backward()
    indexer = policy.layers[0].self_attn.indexer
    assert all(
        item.grad.abs().max() > 0 for item in (indexer.wq_b.weight, indexer.wk.weight, indexer.weights_proj.weight)
    )


def test_eight_bits_need_heads_of_a_power_of_two(tiny):
    with pytest.raises(SpecError, match="index_head_dim must be a power of two for fp8, got 12"):
        replace(tiny.indexer, index_head_dim=12, index_precision="fp8")
    with pytest.raises(SpecError, match="index_precision must be one of"):
        replace(tiny.indexer, index_precision="int4")
