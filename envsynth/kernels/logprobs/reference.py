"""Log-probabilities of tokens in plain torch: the truth that the kernels are held to. It forms all logits.

Shape letters: N rows, D width of a hidden state, V vocabulary, W words of 32 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def unpack(words_NW: Tensor, vocabulary: int) -> Tensor:
    """Unfold bits.

    Args:
        words_NW: Bit j of word w is token 32 w + j, int32 [N, W].
        vocabulary: Tokens V (count).

    Returns:
        True where the bit is set, bool [N, V].
    """
    shifts = torch.arange(32, dtype=torch.int32, device=words_NW.device)
    return ((words_NW[..., None] >> shifts) & 1).bool().flatten(1)[:, :vocabulary]


def score(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, words_NW: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score tokens.

    Args:
        hidden_ND: Hidden states, floating [N, D].
        weight_VD: The head, floating [V, D].
        targets_N: Tokens, int64 [N]; a negative one is ignored.
        words_NW: Kept tokens as bits, int32 [N, W]; None: all.
        temperature: Divides the logits.

    Returns:
        Log-probabilities [N], with gradient; and without: entropy of the full distribution [N], mass of the kept set
        [N], and whether no token has a larger logit, bool [N].
    """
    wide = torch.promote_types(torch.promote_types(hidden_ND.dtype, weight_VD.dtype), torch.float32)
    logits_NV = functional.linear(hidden_ND.to(wide), weight_VD.to(wide)) / temperature
    used_N = targets_N >= 0
    safe_N = targets_N.clamp(min=0).long()
    target_N = logits_NV.gather(1, safe_N[:, None])[:, 0]
    kept_NV, drawn_N = logits_NV, torch.ones_like(used_N)
    if words_NW is not None:
        keep_NV = unpack(words_NW, logits_NV.shape[1])
        drawn_N = keep_NV.gather(1, safe_N[:, None])[:, 0]
        # A row that keeps nothing would have no gradient but NaN; it gives minus infinity below.
        keep_NV = keep_NV | ~drawn_N[:, None]
        kept_NV = logits_NV.masked_fill(~keep_NV, float("-inf"))
    log_probs_N = torch.where(drawn_N, target_N - kept_NV.logsumexp(-1), float("-inf")).masked_fill(~used_N, 0.0)
    with torch.no_grad():
        log_NV = logits_NV.log_softmax(-1)
        entropy_N = -(log_NV.exp() * log_NV).sum(-1)
        mass_N = torch.ones_like(entropy_N)
        if words_NW is not None:
            mass_N = log_NV.exp().masked_fill(~unpack(words_NW, log_NV.shape[1]), 0.0).sum(-1)
        is_best_N = (target_N >= logits_NV.amax(-1)) & used_N
    return log_probs_N, entropy_N, mass_N, is_best_N
