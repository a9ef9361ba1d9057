"""What one forward pass of the policy gives.

Shape letters: B sequences, T tokens, L layers, M layers with experts, A active experts per token, K selected keys, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from envsynth.policy.diagnostics import SelectionDiagnostics
from envsynth.policy.prediction import Predictions
from envsynth.policy.scores import TokenScores


@dataclass(frozen=True, kw_only=True)
class PolicyOutput:
    """What one forward pass gives."""

    logits: Tensor | None = None
    """Logits of the next token, float32 (float64 in a float64 policy) [B, T, V], or of the last one's alone [B, 1, V];
    meaningless at padding. None where kernels scored tokens instead."""
    routed_experts: Tensor
    """Experts that ran, int32 [B, T, M, A]; -1 at padding. M counts layers with experts only."""
    indexer_topk: Tensor | None
    """Positions that attention read, relative to the document, int32 [B, T, L, K], ascending, padded with -1; None
    when `dense` was asked for, because then nothing was selected."""
    indexer_kl: Tensor | None
    """Indexer loss in nats, mean over layers, [B, T], 0 at padding; None unless asked for."""
    diagnostics: SelectionDiagnostics | None = None
    """Measures of the selection; None unless asked for."""
    predictions: Predictions | None = None
    """What the prediction layers give; None unless asked for."""
    scores: TokenScores | None = None
    """Scores of the tokens that were asked for; None without a request."""

    @property
    def logits_BTV(self) -> Tensor:  # noqa: N802 - a shape, as in all names of tensors
        """Logits, [B, T, V].

        Raises:
            ValueError: none were formed.
        """
        if self.logits is None:
            raise ValueError("no logits were formed: kernels scored the tokens; call without score, or read scores")
        return self.logits
