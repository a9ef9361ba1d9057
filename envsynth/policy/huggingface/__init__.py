"""Checkpoints in the form that `transformers` reads and writes for DeepSeek-V3.2, in both directions.

Names, shapes and files only: nothing here imports or downloads anything of that library. `load_huggingface` also reads
the form of the released files, with one matrix per expert and weights of eight bits with scales per block.
"""

from __future__ import annotations

from envsynth.policy.huggingface.config import huggingface_config, policy_config
from envsynth.policy.huggingface.exchange import export_checkpoint, import_huggingface
from envsynth.policy.huggingface.names import huggingface_state_dict
from envsynth.policy.huggingface.reading import load_huggingface, read_policy_config
from envsynth.policy.huggingface.writing import save_huggingface

__all__ = [
    "export_checkpoint",
    "huggingface_config",
    "huggingface_state_dict",
    "import_huggingface",
    "load_huggingface",
    "policy_config",
    "read_policy_config",
    "save_huggingface",
]
