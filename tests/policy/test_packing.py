"""Packed rows: every document is computed as if it had a row of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.policy.packing import check_starts, pack, visible_keys

LENGTHS = [0, 1, 5, 6, 7, 20, 13]
"""Empty, one token, below, at and above the six selected keys."""


def documents(tokens, lengths=LENGTHS):
    return [tokens(1, max(length, 1), seed=index)[0, :length] for index, length in enumerate(lengths)]


def run_packed(policy, rows, **options):
    return policy(rows.tokens_BT, mask_BT=rows.mask_BT, starts_BT=rows.starts_BT, **options)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(9, 20))
def test_pack_keeps_every_document_whole(lengths, row_length):
    given_ = [torch.arange(length) + 100 * index for index, length in enumerate(lengths)]
    rows = pack(given_, row_length, padding=7)
    assert all(torch.equal(found, want) for found, want in zip(rows.unpack(rows.tokens_BT), given_, strict=True))
    assert int(rows.mask_BT.sum()) == sum(lengths)
    assert (rows.tokens_BT[~rows.mask_BT] == 7).all()
    check_starts(rows.starts_BT, tuple(rows.tokens_BT.shape))
    # First-fit-decreasing never leaves two rows that would fit into one.
    used = rows.mask_BT.sum(1).tolist()
    assert all(a + b > row_length for i, a in enumerate(used) for b in used[:i])


def test_pack_refuses_a_document_longer_than_a_row():
    with pytest.raises(SpecError, match="a row has 4 tokens, but the longest document has 5"):
        pack([torch.arange(5)], 4)


def test_visible_keys_are_earlier_ones_of_the_same_document():
    starts = torch.tensor([[0, 0, 2, 2, 2]])
    want = [[a <= b and starts[0, a] == starts[0, b] for a in range(5)] for b in range(5)]
    assert visible_keys(5, starts, starts.device)[0].tolist() == want


@pytest.mark.parametrize("mode", ["mha", "fused", "mqa", "kernels"])
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_packed_documents_equal_their_own_rows(lively, tokens, mode, dense):
    policy = lively().double()
    policy.attention_mode = mode
    given_ = documents(tokens)
    rows = pack(given_, 30)
    assert len(rows.tokens_BT) < len([item for item in given_ if len(item)])
    packed = run_packed(policy, rows, dense=dense, with_indexer_kl=True, with_diagnostics=True)
    values = [packed.logits_BTV, packed.routed_experts, packed.indexer_kl, packed.diagnostics.recall_BTL]
    values += [] if dense else [packed.indexer_topk]
    for index, document in enumerate(given_):
        found = [rows.unpack(value)[index] for value in values]
        if not len(document):
            assert all(len(value) == 0 for value in found)
            continue
        alone = policy(document[None], dense=dense, with_indexer_kl=True, with_diagnostics=True)
        want = [alone.logits_BTV, alone.routed_experts, alone.indexer_kl, alone.diagnostics.recall_BTL]
        want += [] if dense else [alone.indexer_topk]
        for a, b in zip(found, want, strict=True):
            torch.testing.assert_close(a, b[0], rtol=0, atol=1e-12)


def test_gradients_packed_equal_gradients_unpacked(lively, tokens):
    policy = lively().double()
    given_ = [item for item in documents(tokens) if len(item)]
    rows = pack(given_, 30)

    def gradients(losses):
        policy.zero_grad()
        sum(losses).backward()
        return {name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None}

    output = run_packed(policy, rows, with_indexer_kl=True)
    logits, kl = rows.unpack(output.logits_BTV), rows.unpack(output.indexer_kl)
    packed = gradients([item.square().sum() + loss.sum() for item, loss in zip(logits, kl, strict=True)])
    alone = [policy(item[None], with_indexer_kl=True) for item in given_]
    unpacked = gradients([item.logits_BTV.square().sum() + item.indexer_kl.sum() for item in alone])
    assert packed.keys() == unpacked.keys()
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, unpacked[name], rtol=1e-10, atol=1e-10, msg=name)


def test_records_of_single_documents_are_replayed_in_packed_rows(lively, tokens):
    policy = lively().double()
    given_ = documents(tokens, [20, 9])
    alone = [policy(item[None]) for item in given_]
    rows = pack(given_, 30)
    topk = torch.full((1, 30, *alone[0].indexer_topk.shape[2:]), -1, dtype=torch.int32)
    routed = torch.full((1, 30, *alone[0].routed_experts.shape[2:]), -1, dtype=torch.int32)
    for (row, start, length), record in zip(rows.places, alone, strict=True):
        topk[row, start : start + length] = record.indexer_topk[0]
        routed[row, start : start + length] = record.routed_experts[0]
    replayed = run_packed(policy, rows, indexer_topk_BTLK=topk, routed_experts_BTMA=routed)
    for found, record in zip(rows.unpack(replayed.logits_BTV), alone, strict=True):
        torch.testing.assert_close(found, record.logits_BTV[0], rtol=0, atol=1e-12)


def test_a_document_does_not_see_the_one_before(policy, tokens):
    batch, starts = tokens(1, 30), torch.tensor([[0] * 12 + [12] * 18])
    changed = batch.clone()
    changed[0, :12] = (changed[0, :12] + 1) % 50
    before, after = (policy(item, starts_BT=starts).logits_BTV for item in (batch, changed))
    assert torch.equal(before[:, 12:], after[:, 12:])
    assert (before[:, :12] - after[:, :12]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([[0, 0, 1, 1]], r"token \[0, 2\] \(row, place\) has start 1"),
        ([[1, 1, 1, 1]], r"token \[0, 0\] \(row, place\) has start 1"),
        ([[0, 0, 3, 3]], r"token \[0, 2\] \(row, place\) has start 3"),
        ([[0, 0, 2, 0]], r"token \[0, 3\] \(row, place\) has start 0"),
        ([[0, 0, 2]], "starts must be int64"),
    ],
)
def test_forward_refuses_starts_that_no_packing_gives(policy, tokens, starts, message):
    with pytest.raises(ValueError, match=message):
        policy(tokens(1, 4), starts_BT=torch.tensor(starts))
