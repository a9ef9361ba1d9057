"""Training: the roof under which environments and a policy meet.

The only package that sees both wings. `actor` lets a policy play, `traces` turns solutions into sequences to imitate,
`sft` imitates them, `grpo_loop` learns from rewards, and `training` runs one after the other in a folder. Nothing else
of the house imports it but the command line, and that only when it is asked to train or to play a checkpoint.
"""

from __future__ import annotations
