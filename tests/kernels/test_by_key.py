"""Places of entries in the order of sequence, key and row."""

from __future__ import annotations

import pytest
import torch

from envsynth.kernels import by_key


def places(order: by_key.Order, keys: torch.Tensor, first: int, last: int, size: int) -> dict[tuple[int, ...], int]:
    """Where each entry goes, as the kernels compute it."""
    found = {}
    for sequence in range(len(keys)):
        for row in range(first, last):
            for entry, key in enumerate(keys[sequence, row].tolist()):
                if 0 <= key < size:
                    before = order.before_BNS[sequence, (row - first) // by_key.ROWS, key]
                    start = order.bounds[sequence * size + key]
                    found[sequence, row, entry] = int(start + before + order.ranks_BRW[sequence, row - first, entry])
    return found


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("rows", "first", "last"), [(37, 0, 37), (37, 5, 36), (9, 3, 4)])
def test_entries_lie_by_sequence_key_and_row_without_gaps(generator, monkeypatch, counted, rows, first, last):
    monkeypatch.setattr(by_key, "ROWS", 8)
    size = 12
    keys = torch.randint(-3, size + 3, (2, rows, 11), generator=generator, dtype=torch.int32)
    counts = None
    if counted:
        keys = keys.sort(-1).values
        counts = torch.randint(0, 12, (2, rows), generator=generator, dtype=torch.int32)
    order = by_key.order_by_key(keys, counts, size, slice(first, last))
    used = keys if counts is None else keys.masked_fill(torch.arange(11) >= counts[..., None], -1)
    found = places(order, used, first, last, size)
    entries = sorted(found, key=lambda at: (at[0], int(used[at]), at[1], at[2]))
    if counted:
        assert [found[at] for at in entries] == list(range(len(entries)))
    else:
        # Equal entries of a row are exchangeable.
        assert sorted(found.values()) == list(range(len(entries)))
        groups: dict[tuple[int, ...], set[int]] = {}
        wanted: dict[tuple[int, ...], set[int]] = {}
        for number, at in enumerate(entries):
            groups.setdefault((at[0], int(used[at]), at[1]), set()).add(found[at])
            wanted.setdefault((at[0], int(used[at]), at[1]), set()).add(number)
        assert groups == wanted
    assert int(order.bounds[-1]) == len(entries)


def test_rows_without_any_entry_have_no_places():
    order = by_key.order_by_key(torch.full((2, 5, 3), -1, dtype=torch.int32), None, 4, slice(0, 5))
    assert not order.bounds.any()
