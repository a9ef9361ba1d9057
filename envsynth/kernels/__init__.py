"""Operators of the policy as Triton kernels, each beside a reference in plain torch that says what it computes.

One folder per operator: `__init__` has the public operator with its shapes, `reference` the truth, `forward` and
`backward` the kernels. Nothing here imports anything else of envsynth, so the folder could be lifted out. Triton is
loaded at the first call that needs it, so a CPU machine without it runs the references.
"""

from __future__ import annotations
