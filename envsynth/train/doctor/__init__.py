"""A doctor for training: it plays, lets the trainer update a copy, and names what is wrong from what came out.

Nothing of the trainer is changed for it. `stages` gives the episodes known scores, `capture` reads the gradient that the
loss leaves on the logits, `rescoring` scores the records again by its own arithmetic, `checks` turns all that into
findings, and `examine` runs it on the checkpoint of a run.

Why the gradient on the logits: for a sampled token a with coefficient c in the loss it is c (1[v = a] - p(v)) / T. So it
shows which distribution the trainer scores with, at which temperature, which tokens it learns from and in which direction,
whatever the code between logits and loss looks like.
"""

from __future__ import annotations
