"""Works out from a program's evidence which layers of the sandbox stopped it; nothing is known beforehand.

The filter of system calls comes before every other part of the kernel, so a refusal by number is its own: EPERM for a
call, ENOENT for a path. What no evidence speaks of is not named.
"""

from __future__ import annotations

import json
import re
from typing import Any

from envsynth.sandbox import CallResult, Failure

CALLS = "system call filter"
PATHS = "system call filter (paths)"
MODULES = "not loaded in the jail"
MEMORY = "memory limit"
SOFT = "soft limit"
HARD = "hard limit"
FRAMES = "strict frames"
PROCESS = "process of its own"
DATABASE = "database settings"
PLAIN = "plain results only"
OUTPUT = "size limits of results"
NOTHING = "nothing secret is in the process"

LAYERS: dict[str, str] = {
    CALLS: "The kernel refused a system call (EPERM).",
    PATHS: "The kernel answered that there is no such path (ENOENT), whatever path it was.",
    MODULES: "The module is not in the jail's memory, and none can be loaded later.",
    MEMORY: "An allocation failed at the worker's limit.",
    SOFT: "The call was interrupted at the soft time limit.",
    HARD: "The host killed the worker at the hard time limit.",
    FRAMES: "The host refused what the worker sent, and killed the worker.",
    PROCESS: "It harmed its own process only: that process ended, or the next worker was sound.",
    DATABASE: "The database refused: ATTACH and transactions are not authorized, and a call has a transaction already.",
    PLAIN: "The result had no plain JSON form, so the host got none.",
    OUTPUT: "The result was larger than a reply may be.",
    NOTHING: "It read what there was, and no canary was in it.",
}
"""Layer -> what its evidence means, in the order in which they are told."""

_BY_STATUS = {
    Failure.MEMORY: MEMORY,
    Failure.SOFT_TIMEOUT: SOFT,
    Failure.HARD_TIMEOUT: HARD,
    Failure.PROTOCOL_VIOLATION: FRAMES,
    Failure.CRASH: PROCESS,
    Failure.BAD_RESULT: PLAIN,
    Failure.OUTPUT_LIMIT: OUTPUT,
}

_BY_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"PermissionError|Operation not permitted|\"E1\"|can't start new thread"), CALLS),
    (re.compile(r"\"system\": (32512|-1)\b"), CALLS),  # the shell's 127: no process could be made
    (re.compile(r"FileNotFoundError|No such file or directory|\"E2\""), PATHS),
    (re.compile(r"ModuleNotFoundError|No module named"), MODULES),
    (re.compile(r"\bMemoryError"), MEMORY),
    (re.compile(r"not authorized|within a transaction|too many attached"), DATABASE),
    (re.compile(r"\"environ\": \{\}"), NOTHING),
)

_BY_SOURCE: tuple[tuple[str, str, str], ...] = (
    ("Thread(", "X RuntimeError", CALLS),  # "can't start new thread": clone was refused
    ("setrlimit(", "X ValueError", CALLS),  # how Python tells that prlimit was refused
)
"""What the source calls, what the evidence then says, and the layer; for errors whose name alone says too little."""


def _says_it_acted(value: Any) -> bool:
    """Whether a result is a mere word of success, such as "patched", and not something that was read."""
    return value is None or isinstance(value, str | int | float)


def stopped_by(result: CallResult, source: str) -> list[str]:
    """Name the layers that stopped a program which nothing leaked from.

    Args:
        result: How its call ended.
        source: The program.

    Returns:
        Keys of `LAYERS`, in their order; at least one.
    """
    evidence = json.dumps([result.value, result.error_type, result.message])
    found = {layer for pattern, layer in _BY_TEXT if pattern.search(evidence)}
    found |= {layer for call, said, layer in _BY_SOURCE if call in source and said in evidence}
    if result.status in _BY_STATUS:
        found.add(_BY_STATUS[result.status])
    if not found:
        found.add(PROCESS if _says_it_acted(result.value) else NOTHING)
    return [layer for layer in LAYERS if layer in found]
