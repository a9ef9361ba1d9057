"""Rotary positions in both layouts."""

from __future__ import annotations

import pytest
import torch

from envsynth.policy.rope import rope_angles, rope_frequencies, rotate_halves, rotate_pairs


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
