"""Hostile programs from a grammar, by number: the same number is the same program.

A program holds something by one of `WAYS`, does one of the things in `grammar_targets.TARGETS`, and hides the deed in up
to three of `WRAPPERS`. It defines `attack(db)` and has the marks of `hostile_programs`, so that `prepare` fits. DATA ONLY:
the sources run nowhere but inside the sandbox.
"""

from __future__ import annotations

import random
import re
import textwrap
from dataclasses import dataclass

from tests.sandbox.grammar_targets import RULES, TARGETS

HEAD = """
def tell(out, key, deed):
    try:
        said = deed()
        out[str(key)] = (said if isinstance(said, str) else repr(said))[:200]
    except Exception as e: out[str(key)] = 'X ' + type(e).__name__ + ' ' + str(e)[:60]

def session():
    import sys
    f = sys._getframe()
    while f:
        s = f.f_locals.get('self')
        if hasattr(s, '_fd'): return s
        f = f.f_back
"""

WAYS: dict[str, str] = {
    "import": "return __import__(name)",
    "importlib": "import importlib\nreturn importlib.import_module(name)",
    "sys.modules": "import sys\nreturn sys.modules.get(name) or __import__(name)",
    "subclasses": """
for c in ().__class__.__base__.__subclasses__():
    g = getattr(c.__init__, '__globals__', {})
    if hasattr(g.get(name), '__spec__'): return g[name]
return __import__(name)""",
    "frames": """
import sys
f = sys._getframe()
while f:
    if hasattr(f.f_globals.get(name), '__spec__'): return f.f_globals[name]
    f = f.f_back
return __import__(name)""",
    "gc": """
import gc, types
for m in gc.get_referrers(types.ModuleType):
    if getattr(m, '__name__', '') == name: return m
return __import__(name)""",
    "builtins": "b = __builtins__\nreturn getattr(b, '__imp' + 'ort__', None)(name)",
    "format": """
import string
found, _ = string.Formatter().get_field('0.__globals__[__builtins__].__import__', (hold,), {})
return found(name)""",
    "traceback": """
try: 1 / 0
except ZeroDivisionError as e: return e.__traceback__.tb_frame.f_builtins['__import__'](name)""",
    "closure": "return (lambda: (lambda m=__import__: m))()()(name)",
    "loader": """
import sys
for finder in sys.meta_path:
    spec = finder.find_spec(name) if hasattr(finder, 'find_spec') else None
    if spec: return spec.loader.load_module(name)
return __import__(name)""",
    "ctypes": """
import ctypes
load = ctypes.pythonapi.PyImport_ImportModule
load.restype, load.argtypes = ctypes.py_object, [ctypes.c_char_p]
return load(name.encode())""",
}
"""Ways to get hold of a module: bodies of `hold(name)`."""

WRAPPERS: dict[str, str] = {
    "plain": "def OUTER(db): return INNER(db)",
    "catch all": """
def OUTER(db):
    try: return INNER(db)
    except BaseException as e: return ['caught', type(e).__name__, str(e)[:200]]""",
    "try again": """
def OUTER(db):
    said = []
    for _ in range(3):
        try: said.append(INNER(db))
        except BaseException as e: said.append(type(e).__name__)
    return said""",
    "finally": """
def OUTER(db):
    try: return INNER(db)
    finally:
        try: INNER(db)
        except Exception: pass""",
    "finally wins": """
def OUTER(db):
    try: INNER(db)
    finally: return 'the finally'""",
    "generator": """
def OUTER_steps(db): yield INNER(db)
def OUTER(db): return next(OUTER_steps(db))""",
    "generator close": """
def OUTER_steps(db, out):
    try: yield 1
    finally: out.append(INNER(db))
def OUTER(db):
    out = []
    steps = OUTER_steps(db, out); next(steps); steps.close()
    return out""",
    "decorator": """
def OUTER_twice(f):
    def inner(db): f(db); return f(db)
    return inner
@OUTER_twice
def OUTER(db): return INNER(db)""",
    "exec": "exec('def OUTER(db): return INNER(db)')",
    "eval": "OUTER = eval('lambda db: INNER(db)')",
    "compile": """
exec(compile('def OUTER(db): return (INNER)(db)', '<string>', 'exec'), globals())""",
    "lambda": "OUTER = lambda db: (lambda f: f(f))(lambda f: INNER(db))",
    "nested": """
def OUTER(db):
    def one():
        def two():
            nonlocal db
            return INNER(db)
        return two()
    return one()""",
    "class body": """
def OUTER(db):
    class C: value = INNER(db)
    return C.value""",
    "metaclass": """
def OUTER(db):
    class M(type):
        def __new__(m, name, bases, space):
            space['value'] = INNER(db)
            return type.__new__(m, name, bases, space)
    class C(metaclass=M): pass
    return C.value""",
    "init subclass": """
def OUTER(db):
    out = []
    class B:
        def __init_subclass__(cls): out.append(INNER(db))
    class C(B): pass
    return out""",
    "descriptor": """
def OUTER(db):
    class D:
        def __get__(self, *_): return INNER(db)
        def __set_name__(self, *_): INNER(db)
    class C: value = D()
    return C().value""",
    "del": """
def OUTER(db):
    out = []
    class D:
        def __del__(self): out.append(INNER(db))
    D()
    return out""",
    "context": """
def OUTER(db):
    class W:
        def __enter__(self): return INNER(db)
        def __exit__(self, *_): return True
    with W() as value: return value""",
    "exit": """
def OUTER(db):
    out = []
    class W:
        def __enter__(self): raise_later = self; return self
        def __exit__(self, *_): out.append(INNER(db)); return True
    with W(): raise KeyboardInterrupt
    return out""",
    "async": """
async def OUTER_later(db): return INNER(db)
def OUTER(db):
    try: OUTER_later(db).send(None)
    except StopIteration as e: return e.value""",
    "sort key": """
def OUTER(db):
    out = []
    sorted([1, 2], key=lambda _: out.append(INNER(db)) or 0)
    return out""",
    "match": """
def OUTER(db):
    class P:
        __match_args__ = ('x',)
        @property
        def x(self): return INNER(db)
    match P():
        case P(found): return found""",
    "sqlite function": """
def OUTER(db):
    out = []
    db.create_function('f', 0, lambda: out.append(INNER(db)) or 1)
    db.execute('select f()').fetchall()
    return out""",
    "signal handler": """
def OUTER(db):
    import signal
    out = []
    signal.signal(signal.SIGALRM, lambda *_: out.append(INNER(db)))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    for _ in range(10 ** 5): pass
    return out""",
    "trace": """
def OUTER(db):
    import sys
    out = []
    def hook(*_): sys.settrace(None); out.append(INNER(db))
    sys.settrace(hook)
    (lambda: 0)()
    return out""",
    "repr": """
class OUTER_shown(Exception):
    db = None
    def __str__(self): return str(INNER(self.db))
def OUTER(db):
    OUTER_shown.db = db
    raise OUTER_shown""",
    "at load": """
OUTER_early = []
try: OUTER_early.append(INNER(None))
except Exception as e: OUTER_early.append(type(e).__name__)
def OUTER(db): return OUTER_early + [INNER(db)]""",
}
"""Ways to hide a deed: `OUTER` is the new function, `INNER` the one inside."""


@dataclass(frozen=True)
class Program:
    """One program and how it was made."""

    number: int
    """Its number is its seed."""
    way: str
    target: str
    wrappers: tuple[str, ...]
    source: str


FAVOURED = ("forged frames", "forged frames", "raw system calls", "changed modules", "odd results", "descriptors")
"""Targets that are drawn more often, because the host itself reads what comes of them."""

_SYMBOL = re.compile(r"@([a-z_]+)@")


def expand(text: str, rng: random.Random) -> str:
    """Replace the symbols in a text by the grammar's rules until none is left."""
    while match := _SYMBOL.search(text):
        text = text[: match.start()] + _chosen(match[1], rng) + text[match.end() :]
    return text


def _chosen(symbol: str, rng: random.Random) -> str:
    if symbol == "number":
        return str(rng.randrange(470))
    if symbol == "small":
        return str(rng.randrange(1, 100))
    return rng.choice(RULES[symbol])


def generate(number: int) -> Program:
    """Make a program.

    Args:
        number: Any number; it alone decides.

    Returns:
        The program, with the marks of `prepare`.
    """
    rng = random.Random(f"hostile program {number}")
    way, target = rng.choice(list(WAYS)), rng.choice([*TARGETS, *FAVOURED])
    wrappers = tuple(rng.choice(list(WRAPPERS)) for _ in range(rng.choice((0, 1, 1, 2, 3))))
    deed = expand(rng.choice(TARGETS[target]), rng)
    parts = [HEAD.strip("\n"), _function("hold(name)", WAYS[way]), _function("deed_0(db)", deed)]
    for level, name in enumerate(wrappers, 1):
        parts.append(WRAPPERS[name].strip("\n").replace("OUTER", f"deed_{level}").replace("INNER", f"deed_{level - 1}"))
    parts.append(f"def attack(db):\n    return deed_{len(wrappers)}(db)")
    return Program(number, way, target, wrappers, "\n\n".join(parts) + "\n")


def _function(head: str, body: str) -> str:
    return f"def {head}:\n" + textwrap.indent(body.strip("\n"), "    ")
