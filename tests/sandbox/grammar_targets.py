"""What the hostile programs of the grammar do: bodies of a function of `db`, with symbols such as `@path@` to replace.

`hold(name)`, `tell(out, key, deed)` and `session()` are there, see `grammar`. Words such as WROTE are for real success.
DATA ONLY.
"""

from __future__ import annotations

RULES: dict[str, tuple[str, ...]] = {
    "path": (
        "'{folder}/canary.txt'", "'{folder}/canary.txt'", "'{folder}/pwned_%d' % @small@", "'{shared}_%d' % @small@",
        "'/tmp/pwned_%d' % @small@", "'/etc/passwd'", "'/etc/shadow'", "'/proc/self/mem'", "'/proc/self/environ'",
        "'/proc/self/maps'", "'/proc/self/fd/@fd@'", "'/proc/self/root/etc/passwd'", "'/proc/1/environ'",
        "'/proc/%d/environ' % hold('os').getppid()", "'/dev/mem'", "'/dev/shm'", "'/'", "'.'", "''", "b'/etc/passwd'",
        "'../' * 20 + 'etc/passwd'", "'/proc/self/cwd'", "'/sys/kernel'", "'/var/run/docker.sock'",
        "'{folder}/../etc/passwd\\0'", "'/proc/self/task'", "hold('os').__file__",
    ),
    "fd": ("0", "1", "2", "3", "4", "5", "6", "7", "9", "63", "64", "1023", "-1", "-100"),
    "pid": ("1", "-1", "0", "2", "hold('os').getpid()", "hold('os').getppid()", "@number@"),
    "sig": ("9", "15", "19", "0", "11", "14", "64", "@small@"),
    "reader": (
        "open(p)", "open(p, 'rb')", "hold('io').open(p)", "hold('_io').FileIO(p)", "hold('codecs').open(p)",
        "hold('os').fdopen(hold('os').open(p, 0))", "hold('pathlib').Path(p).open()", "hold('io').open_code(p)",
    ),
    "writer": (
        "open(p, 'w').write('pwned')", "open(p, 'ab').write(b'pwned')", "open(p, 'x').write('pwned')",
        "hold('pathlib').Path(p).write_text('pwned')", "hold('os').write(hold('os').open(p, 66, 511), b'pwned')",
        "hold('os').truncate(p, 0)", "hold('os').ftruncate(@fd@, 0)", "hold('os').memfd_create('x')",
        "hold('os').open(p, 0x410002)",
    ),
    "look": (
        "os.stat(p)", "os.lstat(p)", "os.listdir(p)", "list(os.scandir(p))", "os.readlink(p)", "os.statvfs(p)",
        "os.getxattr(p, 'user.x')", "os.access(p, 4) and open(p).read()", "os.path.realpath(p)", "os.getcwd()",
        "[n for n in os.walk(p)]", "os.open(p, os.O_PATH)", "os.stat(@fd@)", "os.getloadavg()", "os.uname()",
        "hold('glob').glob('/*')", "hold('os').sched_getaffinity(0)", "hold('os').times()",
    ),
    "change": (
        "os.symlink('/etc/passwd', '{folder}/pwned_l')", "os.link('/etc/passwd', '{folder}/pwned_h')",
        "os.mkfifo('{folder}/pwned_f')", "os.mkdir('{folder}/pwned_d')", "os.mknod('{folder}/pwned_n')",
        "os.rename('{folder}/canary.txt', '{folder}/pwned_r')", "os.unlink('{folder}/canary.txt')",
        "os.chmod('{folder}/canary.txt', 0)", "os.chown('{folder}/canary.txt', 0, 0)", "os.utime('{folder}/canary.txt')",
        "os.chdir('/tmp')", "os.chroot('/')", "os.fchdir(@fd@)", "os.setxattr('{folder}/canary.txt', 'user.x', b'1')",
        "os.umask(0) and 1 / 0", "os.sync()", "os.setuid(0)", "os.setgroups([0])", "os.nice(-20)", "os.setsid()",
        "os.setpriority(0, 0, -20)", "os.sched_setaffinity(0, [0])", "os.sched_setscheduler(0, 1, os.sched_param(9))",
        "hold('resource').setrlimit(@small@, (-1, -1))", "hold('resource').prlimit(@pid@, 7, (0, 0))",
    ),
    "family": ("1", "2", "10", "16", "17", "38", "40", "44", "@small@", "-1"),
    "kind": ("1", "2", "3", "5", "1 | 0x80000"),
    "address": ("('127.0.0.1', {port})", "('::1', {port})", "'\\0{shared}'", "'/var/run/docker.sock'", "(0, 0)", "b''"),
    "net": (
        "S.socket(@family@, @kind@, @small@)", "S.socketpair(@family@)", "S.socket(fileno=@fd@)",
        "S.create_connection(('127.0.0.1', {port}), 0.01)", "S.getaddrinfo('localhost', 80)", "S.dup(@fd@)",
        "S.socket(@family@, @kind@).bind(@address@)", "S.if_nameindex()", "S.gethostname()",
    ),
    "start": (
        "os.fork() or os._exit(0)", "os.forkpty()", "os.posix_spawn('/bin/true', ['true'], {})", "os.popen('id').read()",
        "os.posix_spawn('/bin/sh', ['sh', '-c', 'touch {folder}/pwned_s'], {})", "os.execv('/bin/true', ['true'])",
        "os.execve(@fd@, ['x'], {})", "os.spawnv(0, '/bin/true', ['true'])", "os.system('touch {folder}/pwned_y') and 1 / 0",
        "hold('subprocess').run(['cat', '{folder}/canary.txt'], capture_output=True).stdout",
        "hold('multiprocessing').Process(target=print).start()", "hold('_posixsubprocess').fork_exec(@small@)",
        "hold('ctypes').CDLL(None).vfork() < 0 and 1 / 0", "hold('ctypes').CDLL(None).daemon(0, 0) and 1 / 0",
    ),
    "signal_out": (
        "os.kill(@pid@, @sig@)", "os.killpg(@pid@, @sig@)", "os.pidfd_open(@pid@)", "os.waitpid(@pid@, 1)",
        "hold('signal').pidfd_send_signal(@fd@, @sig@)", "os.abort() if @small@ > 90 else os.kill(1, 9)",
    ),
    "argument": (
        "0", "-1", "1", "@small@", "@fd@", "buffer", "b'/etc/passwd'", "b'{folder}/canary.txt'", "2 ** 40", "0xffffffff",
        "C.c_long(-1)", "C.c_void_p(0x1000)", "C.byref(buffer)", "7", "4096", "34",
    ),
    "big": (
        "held.append(bytearray(1 << 22))", "held.append([0] * (1 << 20))", "held.append('x' * (1 << 22))",
        "held.append({n: n for n in range(1 << 16)})", "held.append(db.execute('select zeroblob(9000000)').fetchone())",
        "held.append(10 ** 100000)", "held.append(held[:])",
    ),
    "endless": (
        "while True: pass", "sum(range(10 ** 12))", "9 ** 9 ** 7", "hold('re').match('(a|a)*$', 'a' * 60 + 'b')",
        "hold('re').match('(\\\\w+\\\\s?)*$', 'a' * 40 + '!')", "list(hold('itertools').repeat(0))",
        "any(0 for _ in iter(int, 1))", "hold('time').sleep(1000)", "hold('threading').Event().wait()",
        "hold('queue').Queue().get()", "hold('select').select([], [], [])", "hold('signal').pause()",
        "hold('hashlib').pbkdf2_hmac('sha256', b'x', b'y', 10 ** 9)", "hold('zlib').decompress(b'x' * 99)",
        "hold('threading').Lock().acquire() and hold('signal').sigwait([10])", "'%0*d' % (10 ** 9, 1)",
        "int('7' * 10 ** 7)", "hold('os').read(session()._fd, 9)", "x = [0]\nfor _ in x: x.append(0)",
    ),
    "atom": (
        "float('nan')", "float('-inf')", "2 ** 64", "-2 ** 63 - 1", "10 ** 5000", "'\\ud800'", "b'x'", "{1, 2}", "object()",
        "1j", "...", "print", "(n for n in (1,))", "-0.0", "5e-324", "'\\0'", "None", "True", "{(1, 2): 3}", "{None: 1}",
        "{float('nan'): 1}", "{True: 1, 'true': 2}", "db", "session()", "type('I', (int,), {'__repr__': lambda s: '1,2'})(3)",
        "type('S', (str,), {'encode': None})('x')", "type('D', (dict,), {'items': lambda s: [(1, 2)] * 9})(a=1)",
        "type('L', (list,), {'__iter__': lambda s: iter(int, 1)})([1])", "type('F', (float,), {'__repr__': lambda s: ']'})(1)",
        "hold('decimal').Decimal(1)", "hold('datetime').datetime.now()", "hold('uuid').uuid4()", "Refusal('x', 'y')",
    ),
    "size": ("@small@", "250", "900", "990", "1020", "1030", "5000", "10 ** 5", "10 ** 6"),
    "result": (
        "@atom@", "[@atom@, @atom@]", "{'a': @atom@, 'b': [@atom@]}", "'x' * (@size@ * 50)", "[[]] * @size@", "['a'] * @size@",
        "hold('functools').reduce(lambda v, _: [v], range(@size@), 1)", "'\\x00' * @size@", "'\\U0001f600' * @size@",
        "hold('functools').reduce(lambda v, _: {'k': v}, range(@size@), 1)", "{str(n): n for n in range(@size@)}",
        "(lambda v: v.append(v) or v)([1])", "[2 ** 63] * @size@", "{'id': 1, 'status': 'ok', 'value': 2}",
    ),
    "printing": (
        "print('x' * 100000)", "sys.stdout.write('\\ud800' * 99)", "sys.stderr.write('e' * 9999)", "sys.stdout.write(@atom@)",
        "sys.stdout.size = -10 ** 12", "sys.stdout = None", "sys.stdout._parts.append(@atom@)", "sys.__stdout__.write('x')",
        "sys.stdout.buffer.write(b'x')", "hold('os').write(1, b'x' * 65536)", "sys.stdout._limit = 10 ** 12", "print(db)",
        "sys.stdout.close()", "hold('logging').error('x' * 1000)", "hold('warnings').warn('x')", "print(*range(10 ** 5))",
    ),
    "quiet": (
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)", "signal.signal(signal.SIGALRM, signal.SIG_DFL)",
        "signal.setitimer(signal.ITIMER_REAL, 0)", "signal.alarm(0)", "signal.set_wakeup_fd(session()._fd)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))", "signal.siginterrupt(signal.SIGALRM, False)",
        "signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)", "signal.signal(signal.SIGALRM, lambda *_: None)",
        "signal.signal(signal.SIGSEGV, signal.SIG_IGN)", "signal.signal(signal.SIGTERM, lambda *_: 1 / 0)",
        "signal.raise_signal(@sig@)", "signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)", "signal.pthread_kill(0, 0)",
        "hold('faulthandler').enable()", "hold('faulthandler').dump_traceback_later(0.001)",
    ),
    "then": ("return 'after'", "@endless@", "hold('os')._exit(@small@)", "raise SystemExit(3)", "return @result@"),
    "json": (
        "1", "\"forged\"", "NaN", "[]", "{}", "null", "1e999", "18446744073709551616", "-9223372036854775809", "\"\\ud800\"",
        "[1,]", "00", "true", "[[[[]]]]", "{\"a\":1,\"a\":2}", "\"\\u0000\"", "1 2", "",
    ),
    "status": (
        "ok", "ok", "batch", "tool_error", "crash", "hard_timeout", "sandbox_unavailable", "unsupported", "memory", "OK", "",
    ),
    "failure": ("[\"a\",\"b\",\"c\"]", "[]", "[1,2,3]", "null", "\"x\"", "[\"a\",\"b\",\"c\",\"d\"]", "[\"A\",\"\",[]]"),
    "id": ("%d" , "%d", "%d", "%d.0", "\"%d\"", "true", "null", "-%d", "%d0"),
    "item": (
        "{\"status\":\"ok\",\"value\":@json@}", "{\"status\":\"ok\",\"value\":1}", "{\"status\":\"ok\",\"value\":1,\"bytes\":@size_of@}",
        "{\"status\":\"@status@\",\"error\":@failure@}", "@json@", "{}", "{\"status\":\"ok\"}",
    ),
    "size_of": ("0", "1", "-1", "64", "4294967296", "true", "1.0", "\"1\"", "null"),
    "reply": (
        "{\"id\":@id@,\"status\":\"ok\",\"value\":@json@}", "{\"id\":@id@,\"status\":\"@status@\",\"error\":@failure@}",
        "{\"id\":@id@,\"status\":\"ok\",\"value\":1,\"stdout\":@json@}", "{\"id\":@id@,\"status\":\"@status@\"}",
        "{\"id\":@id@,\"status\":\"batch\",\"results\":[@item@]}", "{\"id\":@id@,\"status\":\"batch\",\"results\":@json@}",
        "{\"id\":@id@,\"status\":\"batch\",\"results\":[@item@,@item@,@item@]}", "{\"id\":@id@,\"ask\":@json@}",
        "{\"id\":@id@,\"status\":\"batch\",\"results\":[@item@,@item@]}", "{\"id\":@id@,\"status\":\"ok\",\"value\":\"forged\"}",
        "{\"id\":@id@,\"ask\":{\"tool\":\"t\",\"arguments\":{}}}", "{\"id\":@id@,\"ask\":{\"tool\":@json@,\"arguments\":@json@}}",
        "@json@", "{\"id\":@id@", "{\"id\":@id@,\"id\":1,\"status\":\"ok\",\"value\":1}", "[@item@]",
    ),
    "framed": (
        "struct.pack('>II', len(text), 0) + text", "struct.pack('>II', len(text), 0) + text",
        "struct.pack('>II', len(text), 0) + text", "struct.pack('>II', len(text), @small@) + text + b'b' * @small@",
        "struct.pack('>II', len(text), 4) + text + b'blob'", "struct.pack('>II', len(text) + 9, 0) + text",
        "struct.pack('>II', 2 ** 32 - 1, 2 ** 32 - 1)", "struct.pack('>II', 0, 0)", "struct.pack('>II', 0, 9) + b'x' * 9",
        "struct.pack('<II', len(text), 0) + text", "text", "struct.pack('>I', len(text))", "b'\\0' * 7",
        "struct.pack('>II', 1 << 20, 0) + b'[' * (1 << 20)", "struct.pack('>II', 2 * len(text), 0) + text.decode().encode('utf-16')",
        "struct.pack('>II', len(text) + 3, 0) + b'\\xef\\xbb\\xbf' + text", "(struct.pack('>II', len(text), 0) + text) * 3",
        "struct.pack('>II', 1 << 21, 0) + b'[' + b'[],' * ((1 << 21) // 3)", "struct.pack('>II', len(text), 1 << 20) + text",
    ),
    "send": (
        "os.write(fd, data)", "os.write(fd, data)", "[os.write(fd, data[n:n + 1]) for n in range(len(data))]",
        "os.write(fd, data[:5]), hold('time').sleep(0.02), os.write(fd, data[5:])",
        "[os.write(n, data) for n in range(3, 12) if n == fd or not n]", "os.writev(fd, [data])",
        "hold('socket').socket(fileno=fd).send(data)", "hold('socket').socket(fileno=fd).sendto(data, '\\0{shared}')",
    ),
    "handle": (
        "os.close(fd)", "os.closerange(0, 64)", "os.dup(fd)", "os.dup2(fd, @fd@)", "os.set_blocking(fd, False)",
        "os.set_inheritable(fd, True)", "os.read(fd, 4096)", "hold('fcntl').fcntl(fd, 4, 2048)", "os.pipe()", "os.openpty()",
        "hold('socket').socket(fileno=fd).shutdown(@small@ % 3)", "hold('socket').socket(fileno=fd).detach()",
        "hold('socket').socket(fileno=fd).recv(9, 64)", "os.sendfile(fd, @fd@, 0, 9)", "os.lseek(fd, 0, 0)", "os.fsync(fd)",
        "hold('socket').socket(fileno=fd).sendmsg([b'x'], [(1, 1, b'\\0\\0\\0\\0')])", "hold('select').epoll()", "os.eventfd(1)",
    ),
    "thing": (
        "builtins, 'len'", "builtins, 'isinstance'", "builtins, 'type'", "builtins, '__import__'", "builtins, 'BaseException'",
        "json, 'dumps'", "json, 'loads'", "sqlite3, 'connect'", "hold('os'), 'write'", "hold('os'), 'read'", "hold('os'), '_exit'",
        "hold('time'), 'monotonic'", "hold('signal'), 'setitimer'", "hold('sys'), 'stdout'", "hold('sys'), 'modules'",
        "hold('random'), 'seed'", "hold('marshal'), 'loads'", "type(session()), '_answer'", "type(session()), '_call'",
        "type(session()), '_failed'", "type(session()), '_framed'", "type(session()), '_ring'", "type(session()), '_image'",
        "type(session()), '_disarm'", "session(), '_deadline'", "session(), '_room'", "session(), '_frame_bytes'",
        "session(), '_id'", "session(), '_fd'", "session(), '_capture'", "session(), '_operations'", "session(), '_databases'",
        "session(), '_in_call'", "session(), '_blob_bytes'", "type(db), 'end_call'", "type(db), 'serialize'", "db, 'restoring'",
        "hold('sys')._getframe(0).f_globals, 'attack'",
    ),
    "fake": (
        "None", "lambda *a, **k: 0", "lambda *a, **k: b'\"status\":\"ok\",\"value\":@json@'", "lambda *a, **k: (b'null', b'x' * 99)",
        "float('inf')", "-1", "2 ** 62", "0", "{}", "[]", "print", "lambda *a, **k: 1 / 0", "lambda *a, **k: hold('os')._exit(0)",
        "lambda *a, **k: (b'{\"id\":3}', b'')", "True", "''",
    ),
    "thread": (
        "hold('_thread').start_new_thread(print, ())", "hold('threading').Thread(target=print).start()",
        "hold('threading').Timer(0.001, print).start()", "hold('multiprocessing').Pool(2)",
        "hold('ctypes').pythonapi.PyThread_start_new_thread(0, 0) + 1 or 1 / 0",
    ),
    "late": (
        "hold('atexit').register(lambda: hold('os').write(session()._fd, b'late'))", "hold('weakref').finalize(db, print, 1)",
        "globals().update(keep=type('K', (), {'__del__': lambda s: [0 for _ in iter(int, 1)]})())", "hold('gc').set_threshold(1)",
        "hold('gc').callbacks.append(lambda *_: 1 / 0)", "hold('sys').addaudithook(lambda *_: None)", "hold('gc').freeze()",
        "hold('sys').__dict__.update(excepthook=0)", "hold('sys').setswitchinterval(1e-9)", "hold('sys').setprofile(lambda *_: 1 / 0)",
        "hold('sys').set_asyncgen_hooks(print)", "hold('sys').unraisablehook and setattr(hold('sys'), 'unraisablehook', 0)",
    ),
    "sql": (
        "ATTACH '{folder}/pwned_a.db' AS z", "ATTACH '/etc/passwd' AS p", "VACUUM INTO '{folder}/pwned_v.db'", "VACUUM",
        "select load_extension('{folder}/pwned.so')", "select readfile('/etc/passwd')", "select writefile('{folder}/pwned_w', 'x')",
        "with recursive r(n) as (select 1 union all select n + 1 from r) select sum(n) from r",
        "with recursive r(n) as (select zeroblob(1000000) union all select n || n from r) select count(*) from r",
        "PRAGMA writable_schema = 1", "update sqlite_master set sql = 'create table t(x)'", "PRAGMA journal_mode = wal",
        "PRAGMA temp_store_directory = '/tmp'", "PRAGMA temp_store = 1", "PRAGMA mmap_size = 1000000000", "PRAGMA page_size = 65536",
        "PRAGMA max_page_count = 2147483647", "PRAGMA data_store_directory = '/tmp'", "PRAGMA hard_heap_limit = 1", "COMMIT",
        "create trigger g after insert on people begin insert into people(name) select name from people; end",
        "PRAGMA recursive_triggers = 1", "insert into people(name) values ('x')", "insert into people(name) values (zeroblob(9999999))",
        "insert into people(name) select randomblob(100000) from people a, people b, people c", "create temp table q(x)",
        "RELEASE call_scope", "ROLLBACK TO call_scope", "SAVEPOINT call_scope", "BEGIN", "ROLLBACK", "drop table people",
        "create virtual table f using fts5(x)", "create virtual table z using zipfile('/etc/passwd')", "select * from dbstat",
        "select * from pragma_database_list", "PRAGMA integrity_check", "PRAGMA user_version = -1", "select sqlite_version()",
        "create table w(x, y as (x || x))", "select printf('%.*c', 100000000, 'x')", "select hex(randomblob(9000000))", "select 1; select 2",
        "PRAGMA trusted_schema = 1", "select group_concat(a.name) from people a, people b", "REINDEX", "ANALYZE", "select ?1", "\\0",
    ),
    "database": (
        "db.set_authorizer(None)", "db.set_progress_handler(None, 1)", "db.setlimit(7, 10)", "db.setlimit(0, 2 ** 31 - 1)",
        "db.deserialize(b'x' * 4096)", "db.deserialize(db.serialize()[:2000])", "len(db.serialize())", "db.interrupt()",
        "sqlite3.connect('{folder}/pwned_c.db').execute('create table t(x)')", "sqlite3.connect('file:/etc/passwd?mode=ro', uri=True)",
        "db.backup(sqlite3.connect('{folder}/pwned_b.db'))", "type(db).__base__.close(db)", "db.__init__('{folder}/pwned_i.db')",
        "db.create_function('f', -1, lambda *a: @atom@)", "db.create_collation('c', lambda a, b: 2 ** 99)", "db.iterdump().__next__()",
        "setattr(db, 'restoring', True)", "setattr(db, 'isolation_level', 'EXCLUSIVE')", "db.executescript('select 1;' * 99)",
        "db.executemany('insert into people(name) values (?)', iter(lambda: ('x',), 0))", "db.set_trace_callback(lambda s: 1 / 0)",
        "db.blobopen('people', 'name', 1)", "setattr(db, 'row_factory', lambda *a: @atom@)", "db.enable_load_extension(True)",
        "db.create_aggregate('g', 1, object)", "db.deserialize(b'')", "setattr(db, 'text_factory', print)", "sqlite3.enable_callback_tracebacks(1)",
    ),
    "error": (
        "KeyboardInterrupt", "SystemExit(0)", "GeneratorExit", "StopIteration(1)", "MemoryError", "RecursionError", "Refusal(1, 2)",
        "Refusal('a' * 10 ** 6, 'b' * 10 ** 6)", "OSError(1, 'EPERM')", "PermissionError(13, 'x' * 10 ** 6)", "FileNotFoundError(2, @atom@)",
        "ModuleNotFoundError('\\ud800')", "ExceptionGroup('g', [ValueError(1)])", "UnicodeDecodeError('a', b'b', 1, 2, 'c')", "TimeoutError",
        "type('E' * 10 ** 6, (Exception,), {})('x')", "type('E', (Exception,), {'__str__': lambda s: 1})()", "BrokenPipeError(32, 'x')",
        "type('E', (Exception,), {'__str__': lambda s: [0 for _ in iter(int, 1)]})()", "type('E\\ud800', (BaseException,), {})()",
        "type('E', (Exception,), {'__class__': property(lambda s: MemoryError)})()", "EOFError", "BlockingIOError(11, 'x')", "AssertionError(db)",
        "type('M', (type(Exception),), {'__name__': property(lambda c: 1 / 0)})('E', (Exception,), {})()", "UserWarning('x')", "SyntaxError(*'ab')",
        "hold('sqlite3').OperationalError('x')", "type('SoftTimeout', (BaseException,), {})()", "Refusal(db, db)", "CallError(1)",
    ),
    "module": (
        "antigravity", "asyncio", "ctypes", "_ctypes", "multiprocessing", "http.client", "pip", "envsynth", "envsynth.sandbox.jailed.session",
        "tests", "orjson", "site", "runpy", "imp", "pty", "tty", "socket", "ssl", "mmap", "fcntl", "resource", "pickle", "marshal", "gc", "_posixshmem",
    ),
    "harm": (
        "hold('ctypes').string_at(0)", "hold('ctypes').memset(id(db), 255, 64)", "hold('ctypes').memset(id(None), 0, 8)",
        "exec((lambda: 0).__code__.replace(co_code=bytes(range(@small@)) * 2))", "hold('ctypes').pythonapi.abort()",
        "(lambda: 0).__code__.replace(co_consts=(), co_stacksize=0) and exec((lambda: 0).__code__.replace(co_consts=()))",
        "hold('ctypes').pythonapi.Py_Finalize()", "hold('ctypes').pythonapi.PyErr_SetInterrupt()", "hold('os').abort()",
        "hold('ctypes').cast(id(session()), hold('ctypes').POINTER(hold('ctypes').c_long))[0] == 2 ** 60", "hold('sys').setrecursionlimit(1)",
        "hold('ctypes').CDLL(None).longjmp(0, 0)", "hold('ctypes').CDLL(None).exit(@small@)", "hold('sys').modules.clear()",
        "[hold('ctypes').pythonapi.Py_DecRef(hold('ctypes').py_object(db)) for _ in range(99)]", "eval('(' * 90 + ')' * 90)",
    ),
}  # fmt: skip
"""Symbol -> what may stand for it; `number` and `small` are drawn by `grammar`."""

_MANY = "for _ in range(@small@):\n    "

TARGETS: dict[str, tuple[str, ...]] = {
    "read a file": (
        "out = {}\nfor p in (@path@, @path@, @path@):\n    tell(out, p, lambda: 'OPENED ' + repr(@reader@.read(200)))\nreturn out",
        "p = @path@\nwith @reader@ as f: return 'OPENED' + repr(f.read(99))",
    ),
    "write a file": (
        "out = {}\nfor p in (@path@, @path@):\n    tell(out, p, lambda: 'WROTE' + str(@writer@))\nreturn out",
    ),
    "look at paths": (
        "import os\nout = {}\nfor p in (@path@, @path@):\n    tell(out, p, lambda: @look@)\n    tell(out, 'b', lambda: @look@)\nreturn out",
    ),
    "change the file system": (
        "os = hold('os')\nout = {}\ntell(out, 1, lambda: @change@)\ntell(out, 2, lambda: @change@)\ntell(out, 3, lambda: @change@)\nreturn out",
    ),
    "environment": (
        "os = hold('os')\nreturn [dict(os.environ), os.getenv('ENVSYNTH_CANARY'), list(map(repr, os.environb.items()))]",
        "os = hold('os')\nos.putenv('PATH', '{folder}')\nsys = hold('sys')\nreturn [sys.argv, sys.orig_argv, sys.path, sys.flags, repr(vars(sys))[:2000]]",
    ),
    "sockets": (
        "S = hold('_socket' if @small@ % 2 else 'socket')\nout = {}\ntell(out, 1, lambda: @net@)\ntell(out, 2, lambda: @net@)\nreturn out",
        "S = hold('_socket')\ns = S.socket(@family@, @kind@)\ns.connect(@address@)\nreturn 'CONNECTED'",
    ),
    "start a program": (
        "os = hold('os')\nout = {}\nfor n in range(@small@ % 9):\n    tell(out, n, lambda: 'STARTED' + repr(@start@))\nreturn out",
        "os = hold('os')\nwhile True:\n    try: @start@\n    except OSError: pass",
    ),
    "signal others": (
        "os = hold('os')\nout = {}\ntell(out, 1, lambda: 'SENT' + repr(@signal_out@))\ntell(out, 2, lambda: @signal_out@)\nreturn out",
    ),
    "raw system calls": (
        "C = ctypes = hold('ctypes')\nlibc = C.CDLL(None, use_errno=True)\nbuffer = C.create_string_buffer(256)\nout = []\n"
        + "".join(
            "nr = @number@\nout.append([nr, libc.syscall(nr, @argument@, @argument@, @argument@, @argument@), C.get_errno()])\n"
            for _ in range(6)
        )
        + "return out",
        "C = hold('ctypes')\nlibc = C.CDLL(None, use_errno=True)\nrng = hold('random').Random(@number@)\nout = []\n"
        "for _ in range(300):\n    nr = rng.choice((rng.randrange(470), rng.randrange(470), rng.randrange(1 << 12)))\n"
        "    if nr in (60, 231, 15, 1, 3): continue\n"
        "    out.append([nr, libc.syscall(nr, *[rng.choice((0, 1, -1, 4096, rng.randrange(1 << 31))) for _ in range(6)])])\n"
        "return [pair for pair in out if pair[1] >= 0]",
        "C = hold('ctypes')\nreturn C.CDLL(None).syscall(0x40000000 + @number@, @fd@, @fd@)",
        "C = hold('ctypes')\nlibc = C.CDLL(None, use_errno=True)\n"
        "out = [libc.ptrace(16, @pid@, 0, 0), libc.prctl(@small@, @fd@, 0, 0, 0), libc.unshare(0x10000000), libc.setns(@fd@, 0)]\n"
        "return ['ESCAPE' if n >= 0 else n for n in out]",
    ),
    "executable memory": (
        "mmap = hold('mmap')\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xc3')\nreturn 'ESCAPE'",
        "C = hold('ctypes')\nlibc = C.CDLL(None)\nlibc.mmap.restype = C.c_void_p\n"
        "p = libc.mmap(0, 4096, 3, 34, -1, 0)\nr = libc.mprotect(C.c_void_p(p), 4096, 7)\n"
        "return 'ESCAPE' if r == 0 else r",
        "C = hold('ctypes')\nlibc = C.CDLL(None)\nreturn libc.pkey_mprotect(0, 4096, 7, -1), libc.syscall(10, id(db) & ~4095, 4096, 4 | @small@)",
        "C = hold('ctypes')\nreturn C.CFUNCTYPE(C.c_int)(lambda: 7)()",
    ),
    "memory": (
        "held = []\nwhile True: @big@",
        "held = []\n" + _MANY + "@big@\nreturn len(held)",
        "held = []\ntry:\n    while True: @big@\nexcept MemoryError: return [len(held), @result@]",
        "return len('x' * 2 ** @small@) + len(hold('zlib').decompress(hold('zlib').compress(bytes(1 << 26))))",
    ),
    "time": ("@endless@", "try:\n    while True: sum(range(999))\nfinally:\n    @endless@"),
    "recursion": (
        "hold('sys').setrecursionlimit(10 ** @small@ % 10 ** 9)\ndef f(n): return f(n + 1)\nreturn f(0)",
        "v = []\nfor _ in range(10 ** 5): v = [v]\nreturn repr(v)",
        "hold('sys').setrecursionlimit(10 ** 9)\nclass R:\n    def __repr__(self): return repr(self)\n    __getattr__ = lambda s, n: getattr(s, n)\nreturn repr(R())",
        "return eval('-' * @size@ + '1'), eval('[' * @small@ + ']' * @small@), eval('lambda:' * @size@ + '0')()",
        "hold('sys').setrecursionlimit(10 ** 9)\nf = lambda a: sorted([a], key=f)\nreturn f(1)",
    ),
    "odd results": ("return @result@", "return [@result@, @result@]", "for n in range(3): print(@atom@)\nreturn @result@"),
    "output": (
        "sys = hold('sys')\n" + _MANY + "@printing@\nreturn @result@",
        "sys = hold('sys')\n@printing@\n@printing@\n@then@",
        "sys = hold('sys')\nwhile True: @printing@",
    ),
    "signals": ("signal = hold('signal')\n@quiet@\n@quiet@\n@then@", "signal = hold('signal')\nwhile True: @quiet@"),
    "keep the time limit out": (
        "n = 0\nwhile True:\n    try:\n        while True: n += 1\n    except BaseException: n = 0",
        "for n in range(@small@ % 4):\n    try:\n        while True: pass\n    except BaseException as e: last = type(e)\nraise last()",
        "s = session()\ntry:\n    while True: pass\nexcept BaseException as e:\n    s._armed = False\n    s._deadline = 1e99\n@then@",
        "s = session()\ns._armed = False\nhold('signal').setitimer(0, 0)\n@then@",
    ),
    "forged frames": (
        "os, struct = hold('os'), hold('struct')\ns = session()\nfd = s._fd\n"
        "text = '@reply@'\ntext = (text % s._id if '%d' in text else text).encode('utf-8', 'surrogatepass')\n"
        "data = @framed@\n@send@\n@then@",
        "os, struct = hold('os'), hold('struct')\ns = session()\nfd = s._fd\nfor n in range(@small@ % 5):\n"
        "    text = '@reply@'\n    text = (text % (s._id + n) if '%d' in text else text).encode('utf-8', 'surrogatepass')\n"
        "    data = @framed@\n    @send@\n@then@",
        "os, struct = hold('os'), hold('struct')\ns = session()\nfd = s._fd\n"
        "for text in (b'{\"id\":%d,\"status\":\"ok\",\"value\":\"forged\"}' % s._id, b'{\"id\":%d,\"status\":\"ok\",\"value\":[]}' % (s._id + 1)):\n"
        "    data = struct.pack('>II', len(text), 0) + text\n    os.write(fd, data)\n    os.read(fd, 65536)\n@then@",
        "os, rng = hold('os'), hold('random').Random(@number@)\nos.write(session()._fd, rng.randbytes(@size@ % 5000))\n@then@",
        "os = hold('os')\nwhile True: os.write(session()._fd, bytes(8))",
    ),
    "descriptors": (
        "os = hold('os')\nfd = session()._fd\nout = {}\ntell(out, 1, lambda: @handle@)\ntell(out, 2, lambda: @handle@)\nreturn out",
        "os = hold('os')\nfd = session()._fd\n@handle@\n@then@",
        "os = hold('os')\nfor fd in range(@small@):\n    try: @handle@\n    except OSError: pass\n@then@",
    ),
    "changed modules": (
        "import builtins, json, sqlite3\nsetattr(@thing@, @fake@)\nreturn @result@",
        "import builtins, json, sqlite3\nfor _ in (1, 2):\n    setattr(@thing@, @fake@)\n    setattr(@thing@, @fake@)\n@then@",
        "import builtins, json, sqlite3\nout = {}\ntell(out, 1, lambda: setattr(@thing@, @fake@))\ntell(out, 2, lambda: delattr(@thing@))\nreturn out",
    ),
    "threads": (
        "out = {}\nfor n in range(@small@):\n    tell(out, n, lambda: 'STARTED' + repr(@thread@))\nreturn out",
        "@thread@\n@then@",
    ),
    "later": ("@late@\nreturn @result@", "@late@\n@late@\n@then@"),
    "sqlite": (
        "out = {}\nfor q in ('''@sql@ ''', '''@sql@ ''', '''@sql@ '''): tell(out, q[:30], lambda: db.execute(q).fetchall())\nreturn out",
        "import sqlite3\nout = {}\ntell(out, 1, lambda: @database@)\ntell(out, 2, lambda: db.execute('''@sql@ ''').fetchmany(9))\ntell(out, 3, lambda: @database@)\nreturn out",
        "import sqlite3\ndb.restoring = True\ndb.setlimit(7, 9)\ndb.execute('''@sql@ ''')\nreturn db.execute(\"ATTACH '/etc/passwd' AS p\").fetchall()",
        "import sqlite3\n@database@\nreturn db.execute('''@sql@ ''').fetchall()",
    ),
    "errors": ("raise @error@", "try: raise @error@\nexcept BaseException as e: raise @error@ from e", "print(1)\nraise @error@"),
    "imports": (
        "out = {}\nfor n in ('@module@', '@module@', '@module@'): tell(out, n, lambda: __import__(n))\nreturn out",
        "import sys\nsys.meta_path.insert(0, type('H', (), {'find_spec': lambda *a: @fake@})())\nreturn __import__('@module@')",
        "import sys\nsys.path[:] = ['{folder}', '/usr/lib/python3']\nsys.path_hooks.append(print)\nimport @module@\nreturn sys.modules['@module@']",
    ),
    "search for secrets": (
        "import gc, sys\nfound = [o for o in gc.get_objects() if isinstance(o, dict) for o in o.values() if isinstance(o, str) and 'CANARY' in o]\nreturn found[:9]",
        "import sys\nf = sys._getframe()\nout = []\nwhile f:\n    out.append(repr({**f.f_globals, **f.f_locals})[:3000])\n    f = f.f_back\nreturn out",
        "return [repr(vars(m))[:300] for n, m in list(hold('sys').modules.items()) if hasattr(m, '__dict__')][:@small@]",
        "C = hold('ctypes')\nreturn [repr(C.string_at(id(o) - 64, 4096)) for o in (db, session(), attack)]",
        "return '{0._fd} {0._module} {0.__init__.__globals__}'.format(session())[:5000]",
    ),
    "harm itself": ("@harm@\nreturn 'alive'", "@harm@\n@then@"),
    "ask for tools": (
        "return [call('tool', a=@atom@), call(@atom@), call('x' * @size@, y='y' * @size@)]",
        "while True: call('tool', n=1)",
        "try: return call('tool')\nexcept CallError as e: return [str(e), call('again', value=@result@)]",
    ),
}  # fmt: skip
"""What is done -> bodies to choose from."""
