"""Triton's interpreter on the CPU: importing this asks for it, which must come before Triton is first loaded."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")

from triton.runtime import interpreter  # the setting above must come first

_patch_tensor = interpreter._patch_lang_tensor


def _patch_tensor_for_numpy_2_4(tensor: Any, scope: Any) -> None:
    """Let a loaded number bound a loop: triton 3.6 converts an array of one number, which numpy 2.4 refuses."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_tensor_for_numpy_2_4
