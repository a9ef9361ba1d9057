"""What stays float32 whatever a policy's own type is: norms, softmax, head, router, and the indexer's sums.

Shape letters: D model, F width of a result; `...` is any leading shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision to float32; float32 and float64 stay as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def float32_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply in float32 or wider, also where automatic mixed precision is on.

    Args:
        x: Rows, floating [..., D].
        weight: Matrix, floating [F, D].

    Returns:
        Products, float32 or wider [..., F].
    """
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(at_least_float32(x), at_least_float32(weight))


class RMSNorm(nn.RMSNorm):
    """Divides by the root mean square in float32 or wider, and gives the result in its input's type."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of [..., D]."""
        return functional.rms_norm(
            at_least_float32(x), tuple(self.normalized_shape), at_least_float32(self.weight), self.eps
        ).to(x.dtype)
