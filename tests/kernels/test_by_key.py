"""Places of entries in the order of sequence, key and row."""

from __future__ import annotations

import pytest
import torch

from envsynth.kernels import by_key


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("rows", "first", "last"), [(37, 0, 37), (37, 5, 36), (9, 3, 4)])
def test_entries_lie_by_sequence_key_and_row_without_gaps(generator, monkeypatch, counted, rows, first, last):
    monkeypatch.setattr(by_key, "block_rows", lambda n_keys: 8)
    size = 12
    keys = torch.randint(-3, size + 3, (2, rows, 11), generator=generator, dtype=torch.int32)
    counts = None
    if counted:
        keys = keys.sort(-1).values
        counts = torch.randint(0, 12, (2, rows), generator=generator, dtype=torch.int32)
    order = by_key.order_by_key(keys, counts, size, slice(first, last))
    used = keys if counts is None else keys.masked_fill(torch.arange(11) >= counts[..., None], -1)
    rows_used = used[:, first:last]
    wanted = [
        (sequence, key, row, entry)
        for sequence in range(2)
        for row in range(last - first)
        for entry, key in enumerate(rows_used[sequence, row].tolist())
        if 0 <= key < size
    ]
    found = []
    for number in order.entries[: order.bounds[-1]].tolist():
        sequence, rest = divmod(number, (last - first) * 11)
        row, entry = divmod(rest, 11)
        found.append((sequence, int(rows_used[sequence, row, entry]), row, entry))
    assert len(found) == len(wanted)
    assert set(found) == set(wanted)
    # Equal entries of a row are exchangeable unless they are counted.
    assert [at if counted else at[:3] for at in found] == [at if counted else at[:3] for at in sorted(wanted)]
    starts = [sum(at[:2] < (sequence, key) for at in wanted) for sequence in range(2) for key in range(size)]
    assert order.bounds.tolist() == [*starts, len(wanted)]


def test_rows_without_any_entry_have_no_places():
    order = by_key.order_by_key(torch.full((2, 5, 3), -1, dtype=torch.int32), None, 4, slice(0, 5))
    assert not order.bounds.any()
