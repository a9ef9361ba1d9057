"""Tiles of queries: which keys they read together, and how their sizes are chosen."""

from __future__ import annotations

import pytest
import torch

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.sparse_attention import configs


def expected(rows: list[list[int]], size: int) -> list[tuple[int, int]]:
    """Key and bits of each entry; the n-th entry of a key holds the queries that name it more than n times."""
    entries = []
    for key in range(size):
        counts = [row.count(key) for row in rows]
        entries += [(key, sum(1 << q for q, count in enumerate(counts) if count > n)) for n in range(max(counts))]
    return entries


@pytest.mark.parametrize("queries", [2, 3, 32])
def test_a_tile_reads_every_key_once_with_a_bit_for_each_query(generator, queries):
    topk = torch.randint(-2, 12, (2, 37, 5), generator=generator, dtype=torch.int32)
    found = load_kernels("sparse_attention.union").entries_of(topk, 10, queries)
    tiles = -(-37 // queries)
    assert found.width == queries * 5
    for sequence in range(2):
        for tile in range(tiles):
            rows = topk[sequence, tile * queries : (tile + 1) * queries].tolist()
            number = sequence * tiles + tile
            count = int(found.counts[number])
            pairs = list(zip(found.keys[number, :count].tolist(), found.bits[number, :count].tolist(), strict=True))
            whole = [(key, bits - 2**32 if bits >= 2**31 else bits) for key, bits in expected(rows, 10)]
            if all(row.count(key) < 2 for row in rows for key in range(10)):
                assert pairs == whole
            # Entries of a key that is named twice may stand in any order; together they hold the same.
            assert sorted(key for key, _ in pairs) == [key for key, _ in pairs]
            for query, row in enumerate(rows):
                named = sorted(key for key in row if 0 <= key < 10)
                assert sorted(key for key, bits in pairs if bits >> query & 1) == named


def test_a_single_query_reads_its_own_row(generator):
    topk = torch.randint(-2, 12, (2, 3, 5), generator=generator, dtype=torch.int32)
    found = load_kernels("sparse_attention.union").entries_of(topk, 10, 1)
    assert torch.equal(found.keys, topk.flatten(0, 1))
    assert found.bits is None
    assert found.counts is None


def test_few_heads_share_a_tile_and_wide_selections_do_not_outgrow_the_sort():
    wanted = {1: 4, 4: 4, 8: 2, 12: 1, 16: 1, 64: 1, 128: 1}
    assert {heads: configs.queries_per_tile(heads, 256) for heads in wanted} == wanted
    assert configs.queries_per_tile(4, 2048) == 2
    assert configs.queries_per_tile(4, 8192) == 1
