"""Both tables of system calls against the kernel's own headers, where they are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envsynth.sandbox.jailed.syscalls import ABSENT_CALLS, SYSCALLS, WORKER_CALLS, ZYGOTE_CALLS

GENERIC = Path("/usr/include/asm-generic/unistd.h")
"""The table of aarch64 and all newer architectures."""
X86_64 = [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")]
_SAME = {"fstatat": "newfstatat"}
"""What 64-bit architectures call what the generic header names for both widths."""


def numbers(path: Path) -> dict[str, int]:
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {_SAME.get(name, name): int(number) for name, number in found}


@pytest.mark.parametrize(("machine", "paths"), [("aarch64", [GENERIC]), ("x86_64", X86_64)])
def test_every_number_is_the_kernels(machine, paths):
    present = [path for path in paths if path.exists()]
    if not present:
        pytest.skip("the headers of the kernel are not installed")
    kernel = numbers(present[0])
    ours = SYSCALLS[machine]
    assert len(ours) > 50
    assert {name: kernel.get(name) for name in ours} == ours


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_what_only_one_machine_has_is_named(machine):
    """A call without a number cannot be allowed or refused: only calls that the machine does not have may lack one."""
    wanted = {*WORKER_CALLS, *ZYGOTE_CALLS, *ABSENT_CALLS}
    missing = wanted - set(SYSCALLS[machine])
    old = {"poll", "select", "fork", "vfork", "dup2", "open", "stat", "lstat", "access", "readlink"}
    assert missing <= (old if machine == "aarch64" else set())
