"""Rotary positions in both layouts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from envsynth.errors import SpecError
from envsynth.policy.config import YarnConfig
from envsynth.policy.rope import rope_angles, rope_frequencies, rotate_halves, rotate_pairs, yarn_frequencies


def test_rotate_pairs_is_complex_multiplication_of_neighbours():
    x = torch.randn(5, 8, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(5), rope_frequencies(8, 100.0).double())
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.complex(cos, sin)
    torch.testing.assert_close(rotate_pairs(x, cos, sin), torch.view_as_real(turned).flatten(-2))


def test_rotate_halves_is_complex_multiplication_across_halves():
    x = torch.randn(5, 8, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(5), rope_frequencies(8, 100.0).double())
    turned = torch.complex(x[:, :4], x[:, 4:]) * torch.complex(cos, sin)
    torch.testing.assert_close(rotate_halves(x, cos, sin), torch.cat((turned.real, turned.imag), dim=-1))


@pytest.mark.parametrize("rotate", [rotate_pairs, rotate_halves])
def test_products_depend_on_the_distance_alone(rotate):
    query, key = torch.randn(2, 8, dtype=torch.float64)
    frequencies = rope_frequencies(8, 100.0).double()

    def product(at_query: int, at_key: int) -> torch.Tensor:
        rows = (rotate(x, *rope_angles(torch.tensor(at), frequencies)) for x, at in ((query, at_query), (key, at_key)))
        return torch.dot(*rows)

    torch.testing.assert_close(product(9, 4), product(25, 20))
    assert not torch.isclose(product(9, 4), product(9, 5))


def test_rope_frequencies_fall_from_one_towards_the_base():
    torch.testing.assert_close(rope_frequencies(4, 100.0), torch.tensor([1.0, 0.1]))


def by_definition(dim: int, theta: float, yarn: YarnConfig) -> list[float]:
    """YaRN pair by pair: unchanged, divided by the factor, or between, by how often it turns (arXiv:2309.00071)."""
    out = []
    length = yarn.original_max_position_embeddings
    low = max(math.floor(dim * math.log(length / (yarn.beta_fast * 2 * math.pi)) / (2 * math.log(theta))), 0)
    high = min(math.ceil(dim * math.log(length / (yarn.beta_slow * 2 * math.pi)) / (2 * math.log(theta))), dim - 1)
    for pair in range(dim // 2):
        plain = theta ** (-2 * pair / dim)
        share = min(max((pair - low) / (high - low), 0.0), 1.0)
        out.append(plain * ((1 - share) + share / yarn.factor))
    return out


@pytest.mark.parametrize(("dim", "theta", "length"), [(64, 1e4, 4096), (16, 1000.0, 256), (8, 100.0, 64)])
def test_yarn_slows_pairs_that_turn_seldom(dim, theta, length):
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=length)
    plain = rope_frequencies(dim, theta)
    found = yarn_frequencies(plain, theta, yarn)
    torch.testing.assert_close(found, torch.tensor(by_definition(dim, theta, yarn)), rtol=1e-5, atol=0)
    if (dim, length) == (64, 4096):  # the released model: pairs up to 10 are untouched, from 23 on divided by 40
        assert torch.equal(found[:11], plain[:11])
        torch.testing.assert_close(found[23:], plain[23:] / 40)
        assert (found[11:23] < plain[11:23]).all()


def test_yarn_ramp_without_width_does_not_divide_by_zero():
    yarn = YarnConfig(factor=4.0, original_max_position_embeddings=7, beta_fast=2.0)
    found = yarn_frequencies(rope_frequencies(4, 1e4), 1e4, yarn)
    assert found.isfinite().all()


def test_yarn_factors_are_those_of_the_released_model():
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=4096)
    assert yarn.attention_factor == 1.0
    assert 192**-0.5 * yarn.softmax_factor == pytest.approx(0.13523, abs=1e-5)
    unequal = replace(yarn, mscale=2.0)
    assert unequal.attention_factor == pytest.approx((0.2 * math.log(40) + 1) / (0.1 * math.log(40) + 1))
    cos, sin = rope_angles(torch.arange(3), torch.ones(2), 0.5)
    torch.testing.assert_close(cos, 0.5 * torch.arange(3.0).cos()[:, None].expand(3, 2))
    torch.testing.assert_close(sin, 0.5 * torch.arange(3.0).sin()[:, None].expand(3, 2))


def test_yarn_reaches_the_policy(lively, tokens, tiny):
    yarn = YarnConfig(factor=8.0, original_max_position_embeddings=16)
    policy, plain = lively(attention=replace(tiny.attention, yarn=yarn)), lively()
    assert policy.config.attention.softmax_scale > plain.config.attention.softmax_scale
    batch = tokens(1, 20)
    assert (policy(batch).logits_BTV - plain(batch).logits_BTV).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": 0.5}, "factor must be >= 1, got 0.5"),
        ({"beta_slow": 40.0}, "needs 0 < beta_slow < beta_fast, got 40.0 and 32.0"),
        ({"mscale": 0.0}, "needs mscale, mscale_all_dim > 0, got 0.0 and 1.0"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings must be >= 1"),
    ],
)
def test_yarn_refuses_impossible_values(changes, message):
    with pytest.raises(SpecError, match=message):
        YarnConfig(**{"factor": 2.0, "original_max_position_embeddings": 8, **changes})
