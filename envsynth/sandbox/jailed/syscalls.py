"""System call tables and the seccomp programs built from them.

x86_64 is tested. The numbers for aarch64 are compared with the kernel's generic header, and NOT tested on such a machine. Any
other architecture has no table, so the jail refuses to start there.
"""

from __future__ import annotations

import errno

SYSCALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "access": 21, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32,
        "dup2": 33, "nanosleep": 35, "getitimer": 36, "setitimer": 38, "getpid": 39, "sendto": 44, "recvfrom": 45,
        "sendmsg": 46, "recvmsg": 47, "clone": 56, "fork": 57, "vfork": 58, "exit": 60, "wait4": 61, "kill": 62,
        "fcntl": 72, "readlink": 89, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99,
        "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "sigaltstack": 131, "pivot_root": 155, "prctl": 157, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
        "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
        "exit_group": 231, "waitid": 247, "openat": 257, "newfstatat": 262, "readlinkat": 267, "faccessat": 269,
        "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "dup3": 292, "prlimit64": 302, "seccomp": 317,
        "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "pidfd_open": 434, "clone3": 435,
        "faccessat2": 439, "landlock_create_ruleset": 444, "landlock_restrict_self": 446,
    },
    "aarch64": {
        "dup": 23, "dup3": 24, "fcntl": 25, "pivot_root": 41, "faccessat": 48, "openat": 56, "close": 57, "lseek": 62,
        "read": 63, "write": 64, "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80,
        "exit": 93, "exit_group": 94, "waitid": 95, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
        "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
        "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "kill": 129, "sigaltstack": 132,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "getrlimit": 163,
        "getrusage": 165, "prctl": 167, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174,
        "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "sendto": 206, "recvfrom": 207,
        "sendmsg": 211, "recvmsg": 212, "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "mmap": 222,
        "mprotect": 226, "madvise": 233, "wait4": 260, "prlimit64": 261, "seccomp": 277, "getrandom": 278,
        "membarrier": 283, "statx": 291, "rseq": 293, "pidfd_open": 434, "clone3": 435, "faccessat2": 439,
        "landlock_create_ruleset": 444, "landlock_restrict_self": 446,
    },
}  # fmt: skip
"""Numbers by machine name (as `os.uname().machine` gives it) and call name."""

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's number of each architecture, compared first: numbers of another one would mean other calls."""

WORKER_CALLS: tuple[str, ...] = (
    "read", "write", "close", "fstat", "poll", "ppoll", "lseek", "munmap", "brk", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "select", "pselect6", "sched_yield", "mremap", "madvise", "nanosleep", "getitimer", "setitimer",
    "getpid", "sendto", "recvfrom", "exit", "exit_group", "getrlimit", "getrusage", "sysinfo", "times", "getuid",
    "getgid", "geteuid", "getegid", "gettid", "sigaltstack", "futex", "sched_getaffinity", "clock_gettime",
    "clock_getres", "clock_nanosleep", "set_robust_list", "gettimeofday", "getrandom", "membarrier", "rseq",
    "restart_syscall",
)  # fmt: skip
"""What a worker may call; `mmap` and `mprotect` come on top, without PROT_EXEC. No socket, clone, exec, open, kill."""

ZYGOTE_CALLS: tuple[str, ...] = (
    "clone", "fork", "vfork", "wait4", "waitid", "pidfd_open", "sendmsg", "recvmsg", "prctl", "seccomp",
    "prlimit64", "fcntl", "dup", "dup2", "dup3", "getppid", "kill",
)  # fmt: skip
"""What the zygote, which runs no untrusted code, may call besides."""

ABSENT_CALLS: tuple[str, ...] = (
    "openat", "newfstatat", "open", "stat", "lstat", "access", "readlink", "readlinkat", "faccessat", "faccessat2",
    "statx",
)  # fmt: skip
"""Path look-ups answer "no such file", so that imports and the like fail as they do when nothing is there."""

PROT_EXEC = 4

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_THIRD_ARGUMENT = 0, 4, 16 + 2 * 8
_X32_BIT = 0x40000000

Instruction = tuple[int, int, int, int]
"""One BPF instruction: code, jump if true, jump if false, operand."""


def program(machine: str, calls: tuple[str, ...]) -> list[Instruction]:
    """Build an allow-list filter; what is not listed fails with EPERM.

    Args:
        machine: A key of `SYSCALLS`.
        calls: Names to allow; a name that the architecture lacks is passed over.

    Returns:
        BPF instructions.
    """
    table = SYSCALLS[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    if machine == "x86_64":  # the x32 interface would reach calls by other numbers
        code += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL_PROCESS)]
    for names, answer in (
        (calls, _ALLOW),
        (ABSENT_CALLS, _ERRNO | errno.ENOENT),
        (("clone3",), _ERRNO | errno.ENOSYS),  # C libraries fall back to clone on ENOSYS only
    ):
        for name in names:
            if name in table:
                code += [(_JUMP_EQUAL, 0, 1, table[name]), (_RETURN, 0, 0, answer)]
    for name in ("mmap", "mprotect"):
        code += [
            (_JUMP_EQUAL, 0, 4, table[name]),
            (_LOAD, 0, 0, _OFFSET_THIRD_ARGUMENT),
            (_JUMP_BITS, 0, 1, PROT_EXEC),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    code.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return code
