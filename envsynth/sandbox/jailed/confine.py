"""Kernel restrictions of the jail, by ctypes: namespaces, empty root, privileges, Landlock, seccomp, limits.

seccomp is the boundary that must hold; everything else is added where the kernel permits it, and reported.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
import struct
from pathlib import Path

from envsynth.sandbox.jailed import syscalls

NOBODY = 65534
"""User and group that root becomes."""

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 4, 38, 24
_SIGKILL = 9
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET_VERSION = 1

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x02000000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_MNT_DETACH = 2


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint),
    )


class Filter(ctypes.Structure):
    """A seccomp program in the kernel's form; build it with `build_filter`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@functools.cache  # asked again where `uname` is no longer allowed
def machine() -> str:
    """Return the architecture's name.

    Raises:
        OSError: There is no system call table for it.
    """
    name = os.uname().machine
    if name not in syscalls.SYSCALLS:
        raise OSError(errno.ENOSYS, f"there is no system call table for {name}")
    if name == "x86_64" and struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, "a 32-bit interpreter on a 64-bit kernel has no system call table")
    return name


def build_filter(calls: tuple[str, ...]) -> Filter:
    """Build a seccomp program that allows the named calls."""
    code = [_Instruction(*item) for item in syscalls.program(machine(), calls)]
    array = (_Instruction * len(code))(*code)
    return Filter(len(code), ctypes.cast(array, ctypes.POINTER(_Instruction)))


def apply_filter(program: Filter) -> None:
    """Install a seccomp program in this process for good; programs add up, and none can be removed.

    Raises:
        OSError: The kernel has no seccomp, or refuses it.
    """
    number = syscalls.SYSCALLS[machine()]["seccomp"]
    _check(_libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)), "seccomp")


def landlock_abi() -> int:
    """Return the kernel's Landlock version; 0 when it has none."""
    number = syscalls.SYSCALLS[machine()]["landlock_create_ruleset"]
    return max(0, _libc.syscall(number, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION))


def apply_landlock() -> int:
    """Forbid every access to files, TCP ports, outside abstract sockets and outside signals, as far as Landlock can.

    Returns:
        The Landlock version in force; 0 when the kernel has none.

    Raises:
        OSError: The kernel has Landlock but refuses these rules.
    """
    abi = landlock_abi()
    if abi == 0:
        return 0
    access_bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    network = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = ctypes.create_string_buffer(struct.pack("<QQQ", (1 << access_bits) - 1, network, scopes))
    table = syscalls.SYSCALLS[machine()]
    ruleset = _libc.syscall(table["landlock_create_ruleset"], attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        _check(ruleset, "landlock_create_ruleset")
    try:
        _check(_libc.syscall(table["landlock_restrict_self"], ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return abi


def enter_namespaces() -> str:
    """Move this process (its children, for processes) into namespaces of their own.

    Returns:
        What was entered, for people.

    Raises:
        OSError: The kernel or its policy refuses.
    """
    user, group = os.getuid(), os.getgid()
    as_root = os.geteuid() == 0
    flags = _NAMESPACES if as_root else _NAMESPACES | _CLONE_NEWUSER
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")
    if not as_root:
        maps = (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1"))
        for name, text in maps:
            Path("/proc/self", name).write_text(text, encoding="ascii")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount private")
    return ("user, " if not as_root else "") + "mount, network, process, ipc, host name, cgroup"


def enter_empty_root() -> None:
    """Replace the root by an empty read-only file system; needs a mount namespace.

    Raises:
        OSError: The kernel or its policy refuses.
    """
    target = b"/dev/shm" if Path("/dev/shm").is_dir() else b"/tmp"
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_libc.mount(b"tmpfs", target, b"tmpfs", ctypes.c_ulong(flags), b"size=4k"), "mount an empty root")
    os.chdir(target)
    number = syscalls.SYSCALLS[machine()]["pivot_root"]
    _check(_libc.syscall(number, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "unmount the old root")
    os.chdir("/")


def namespaces_work() -> str:
    """Try namespaces and the empty root in a throw-away child; a half-entered namespace cannot be left again.

    Returns:
        Empty when they work, else why not.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_namespaces()
            enter_empty_root()
            os.write(writer, b"+")
        except OSError as error:
            os.write(writer, str(error).encode()[:200])
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 256)
    os.close(reader)
    os.waitpid(child, 0)
    return "" if answer == b"+" else answer.decode(errors="replace") or "the probe died"


def drop_privileges() -> str:
    """Become nobody when root, and give up every capability and every way to gain one.

    Returns:
        Who this process is now, for people.

    Raises:
        OSError: The kernel refuses to drop them.
    """
    who = f"unchanged (uid {os.geteuid()})"
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            who = f"nobody (uid {NOBODY})"
        except PermissionError:  # root without CAP_SETUID, as in a stripped container
            who = "root without the right to become another user; its capabilities are dropped"
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    _check(_libc.capset(header, ctypes.create_string_buffer(24)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "not dumpable")
    return who


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends; a change of user or a fork clears this.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "kill with parent")


def limit_files() -> None:
    """Forbid growing files, core dumps, locked memory and message queues, and keep descriptors few."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    files = min(64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def limit_worker(cpu_s: int, address_space: int) -> None:
    """Limit processor seconds and the address space in bytes, and forbid children."""
    hard_cpu = resource.getrlimit(resource.RLIMIT_CPU)[1]
    cpu = cpu_s if hard_cpu == resource.RLIM_INFINITY else min(cpu_s, hard_cpu - 1)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    hard_space = resource.getrlimit(resource.RLIMIT_AS)[1]
    space = address_space if hard_space == resource.RLIM_INFINITY else min(address_space, hard_space)
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def address_space() -> int:
    """Return the size of this process's address space in bytes; needs /proc, so read it before the root is gone."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def keep_freed_memory() -> None:
    """Have the C library keep what is freed instead of giving it back and faulting it in anew, where it can be told so.

    A database that is filled anew is one large allocation after another; the limit on the address space still holds.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def prefer_when_out_of_memory() -> None:
    """Ask the kernel to take this process first when the machine runs out of memory.

    Raises:
        OSError: The kernel refuses.
    """
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
