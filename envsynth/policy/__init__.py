"""The bundled policy: sparse attention over latents, routed experts, and a rollout engine, in plain PyTorch.

The one wing that loads torch. `Policy` trains, `Engine` rolls out; what the engine recorded goes back into
`Policy.forward` as arguments, so both see the same experts, the same keys and the same kept tokens.
"""

from __future__ import annotations
