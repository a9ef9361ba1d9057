"""Several documents in one row: where each begins, and what may see what.

Shape letters: B rows, T tokens, S keys, R rotary width; `...` is [T] for rows of one document, [B, T] for packed rows.

A packed row holds documents one after another. Each counts its positions from zero and sees itself alone, so its
numbers are those of a row of its own. Everything that is recorded of it (selected keys) counts from its own first token,
so a record made for one document is replayed in a packed row as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.errors import SpecError


class Layout(NamedTuple):
    """How the tokens of a batch stand to each other."""

    cos: Tensor
    """Cosines of the positions, [..., R/2]."""
    sin: Tensor
    """Sines of the positions, [..., R/2]."""
    positions: Tensor
    """Position of each token in its document, int64 [...]."""
    starts_BT: Tensor | None
    """Place of each token's document's first token in its row, int64 [B, T]; None when every row is one document."""
    visible: Tensor | None
    """Keys that come no later and belong to the same document, bool [..., S]; None where kernels need no such matrix."""
    longest: int
    """Tokens of the longest document, or more."""

    def pairs(self) -> Tensor:
        """Give `visible`, made now where it is not kept: bool [..., S]."""
        if self.visible is not None:
            return self.visible
        return visible_keys(self.positions.shape[-1], self.starts_BT, self.positions.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedRows:
    """Documents side by side in rows of one length."""

    tokens_BT: Tensor
    """Token ids, int64 [B, T]; `padding` after the last document."""
    mask_BT: Tensor
    """True at real tokens, bool [B, T]."""
    starts_BT: Tensor
    """Place of each token's document's first token in its row, int64 [B, T]; a token of padding is its own document."""
    places: tuple[tuple[int, int, int], ...]
    """Row, first place and length of each document, in the order given."""

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """Cut something that was computed for the rows into documents.

        Args:
            packed: Values per token, [B, T, ...].

        Returns:
            Values of each document, [length, ...], in the order given to `pack`.
        """
        return [packed[row, start : start + length] for row, start, length in self.places]


def pack(documents: Sequence[Tensor], row_length: int, *, padding: int = 0) -> PackedRows:
    """Put documents into as few rows as first-fit-decreasing finds; the result depends on the lengths alone.

    Args:
        documents: Token ids of each document, int64 [length]; a length may be zero.
        row_length: Tokens of a row, T (count).
        padding: Token id after the last document of a row.

    Returns:
        The rows; at least one.

    Raises:
        SpecError: A document is longer than a row.
    """
    lengths = [len(item) for item in documents]
    if max(lengths, default=0) > row_length or row_length < 1:
        raise SpecError(f"a row has {row_length} tokens, but the longest document has {max(lengths, default=0)}")
    used: list[int] = []
    places: dict[int, tuple[int, int, int]] = {}
    for index in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        row = next((row for row, taken in enumerate(used) if taken + lengths[index] <= row_length), len(used))
        if row == len(used):
            used.append(0)
        places[index] = (row, used[row], lengths[index])
        used[row] += lengths[index]
    shape = (max(len(used), 1), row_length)
    tokens_BT = torch.full(shape, padding, dtype=torch.int64)
    mask_BT = torch.zeros(shape, dtype=torch.bool)
    starts_BT = torch.arange(row_length).repeat(shape[0], 1)
    for index, (row, start, length) in places.items():
        where = slice(start, start + length)
        tokens_BT[row, where], mask_BT[row, where], starts_BT[row, where] = documents[index], True, start
    in_order = tuple(places[index] for index in range(len(lengths)))
    return PackedRows(tokens_BT=tokens_BT, mask_BT=mask_BT, starts_BT=starts_BT, places=in_order)


def visible_keys(length: int, starts_BT: Tensor | None, device: torch.device) -> Tensor:
    """Give the keys that each query may see.

    Args:
        length: Tokens of a row, T.
        starts_BT: Place of each token's document's first token, int [B, T]; None for rows of one document.
        device: Where the result lives.

    Returns:
        True where a key may be seen, bool [T, S], or [B, T, S] for packed rows.
    """
    causal_TS = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if starts_BT is None:
        return causal_TS
    return causal_TS & (torch.arange(length, device=device) >= starts_BT[..., None])


def check_starts(starts_BT: Tensor, shape_BT: tuple[int, int]) -> None:
    """Refuse starts that no packing gives.

    Args:
        starts_BT: Place of each token's document's first token, int64 [B, T].
        shape_BT: Rows and tokens.

    Raises:
        ValueError: The shape or type is wrong, or a token neither begins a document nor continues that of the token
            before.
    """
    if tuple(starts_BT.shape) != shape_BT or starts_BT.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"starts must be int64 {shape_BT}, got {starts_BT.dtype} {tuple(starts_BT.shape)}")
    places_T = torch.arange(shape_BT[1], device=starts_BT.device)
    before_BT = torch.cat((starts_BT[:, :1], starts_BT[:, :-1]), dim=1)
    wrong_BT = (starts_BT != places_T) & (starts_BT != before_BT)
    wrong_BT[:, 0] |= starts_BT[:, 0] != 0
    if wrong_BT.any():
        where = wrong_BT.nonzero()[0].tolist()
        raise ValueError(
            f"token {where} (row, place) has start {int(starts_BT[*where])}: a token begins a document (its own place)"
            " or continues that of the token before"
        )
