"""The experiment on sparse attention: does a policy that reads k selected keys do as well as its dense twin?

The order is the paper's (arXiv:2512.02556, section 2.1): dense pretraining, warm-up of the indexer alone, training of all
weights on the selected keys. Beside each sparse run stands a dense twin: the same pretrained trunk, the same batches, the
same number of steps. `tasks` makes sequences whose answers are known, `stages` trains, `measure` measures, `jobs` and
`grid` run everything on several devices and go on after a kill, `verdict` says which cells fail.

It needs torch, safetensors and numpy alone, so `python -m envsynth.train.fidelity` runs from a plain copy of the source.
"""

from __future__ import annotations
