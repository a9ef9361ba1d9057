"""The experiment on costs: time and memory of a sparse-attention layer's parts beside dense attention, by length.

One sequence, the sizes of a preset, operators of `envsynth.kernels` on random but correlated inputs. Projections are left
out on both sides. `inputs` draws, `checks` compares with references before anything is timed, `parts` and `dense` say
what is timed, `timing` times, `experiment` runs all of it and goes on after a stop.

It needs torch, safetensors and numpy alone (on a GPU also triton), so `python -m envsynth.train.overhead` runs from a
plain copy of the source.
"""

from __future__ import annotations
