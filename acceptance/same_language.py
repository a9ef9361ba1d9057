"""Modules of `same_modules` that use the language."""

from __future__ import annotations

LANGUAGE = """
### generators
def count(limit):
    got = yield "start"
    while limit:
        limit -= 1
        got = yield (limit, got)
    return "done"
def outer(limit):
    result = yield from count(limit)
    yield result
def generators(db, n):
    made = outer(n)
    found = [next(made)]
    for value in range(9):
        try: found.append(made.send(value))
        except StopIteration as stop: return [found, stop.value]
### closures
def closures(db, n):
    total = 0
    def add(x, /, *more, scale=1, **named):
        nonlocal total
        total += (x + sum(more) + sum(named.values())) * scale
        return total
    return [add(1), add(2, 3, scale=n), add(4, a=1, b=2), (lambda *a: a[::-1])(*range(n))]
### classes
from functools import total_ordering
@total_ordering
class Version:
    __slots__ = ("parts",)
    def __init__(self, text): self.parts = tuple(map(int, text.split(".")))
    def __eq__(self, other): return self.parts == other.parts
    def __lt__(self, other): return self.parts < other.parts
    def __hash__(self): return hash(self.parts)
    def __repr__(self): return "v" + ".".join(map(str, self.parts))
    @property
    def major(self): return self.parts[0]
    @classmethod
    def zero(cls): return cls("0")
def classes(db, n):
    found = [Version(text) for text in ("1.10", "1.2", "0.9", "2")]
    return [repr(sorted(found)), max(found).major, Version.zero() <= found[n], len({Version("1"), Version("1")})]
### metaclasses
class Meta(type):
    seen = []
    def __new__(mcls, name, bases, space, **options):
        mcls.seen.append((name, sorted(options)))
        return super().__new__(mcls, name, bases, space)
class Plugin(metaclass=Meta):
    names = []
    def __init_subclass__(cls, **options): Plugin.names.append(cls.__name__)
def metaclasses(db, n):
    for index in range(n): type(Plugin)(f"P{index}", (Plugin,), {})
    return [Plugin.names, Meta.seen, [kind.__name__ for kind in Plugin.__subclasses__()][:0]]
### dataclass_records
from dataclasses import asdict, dataclass, field, replace, FrozenInstanceError
@dataclass(frozen=True, order=True)
class Point:
    x: int
    y: int = 0
    tags: list = field(default_factory=list, compare=False)
def dataclass_records(db, n):
    point = Point(n, tags=["a"])
    if n == 3: point.x = 1
    return [asdict(replace(point, y=5)), repr(point), Point(1) < Point(2), point == Point(n)]
### enums
from enum import Enum, IntFlag, StrEnum, auto
class Color(Enum): RED = auto(); GREEN = auto(); CRIMSON = RED
class Mode(StrEnum): READ = auto(); WRITE = auto()
class Perm(IntFlag): R = 4; W = 2; X = 1
def enums(db, n):
    if n == 3: return Color("no")
    return [list(Color.__members__), Color(n or 1).name, Mode.WRITE, str(Perm.R | Perm(n)), Color.CRIMSON is Color.RED]
### matching
def matching(db, n):
    def kind(value):
        match value:
            case {"type": "point", "at": [x, y, *rest]} if x == y: return ["diagonal", rest]
            case {"type": str(name), **other}: return [name, sorted(other)]
            case [] | [_]: return "short"
            case int() | float() as number: return -number
            case _: return "other"
    return [kind(v) for v in ({"type": "point", "at": [n, 1, 2]}, {"type": "x", "b": 1, "a": 2}, [], [1], n, None, [1, 2])]
### exceptions_chain
class Base(Exception): pass
class Special(Base):
    def __init__(self, number): super().__init__(f"number {number}"); self.number = number
def exceptions_chain(db, n):
    found = []
    try:
        try: {}[n]
        except KeyError as error: raise Special(n) from error
        finally: found.append("finally")
    except Base as error:
        found += [str(error), repr(error.__cause__), type(error).__mro__[1].__name__]
    if n == 2: raise Special(7)
    if n == 3: raise ExceptionGroup("many", [ValueError("a"), TypeError("b")])
    return found
### exception_groups
def exception_groups(db, n):
    found = []
    try: raise ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [TypeError(2), KeyError(n)])])
    except* TypeError as group: found.append(group.message)
    except* (ValueError, KeyError) as group: found.append([str(item) for item in group.exceptions])
    return found
### builtin_errors
def builtin_errors(db, n):
    return [lambda: 1 / 0, lambda: [][5], lambda: int("x1"), lambda: "a" + 1][n]()
### more_errors
def more_errors(db, n):
    if n == 0: return undefined_name
    if n == 1: return None.anything
    if n == 2: a, b = [1, 2, 3]
    assert n < 3, f"n was {n}"
### refusals
def refusals(db, n):
    if n == 0: raise Refusal("not_found", "no such thing: \\u00e9 \\u4e2d")
    if n == 1: raise Refusal("conflict")
    try: raise Refusal("inner", "caught")
    except Refusal as refusal:
        if n == 2: raise ValueError("outer") from refusal
        return [refusal.code, refusal.message, isinstance(refusal, Exception)]
### bad_results
def bad_results(db, n):
    return [float("nan"), {1, 2}, 2 ** 70, "\\ud800"][n]
### odd_results
def odd_results(db, n):
    return [{1: "int key", None: 2, True: 3, 2.5: 4}, (1, (2, 3)), -0.0, [1e300, 1e-300, 0.1 + 0.2, 2 ** 63, -(2 ** 63)]][n]
### module_state
calls = []
def module_state(db, n):
    calls.append(n)
    if n == 2: raise RuntimeError(f"after {len(calls)}")
    return calls
### helpers
LIMIT = 3
def _double(x): return x * 2
def helpers(db, n):
    global LIMIT
    LIMIT += n
    return [_double(LIMIT), __name__, sorted(name for name in globals() if name.islower())]
### comprehensions
def comprehensions(db, n):
    pairs = {(x, y): x * y for x in range(4) for y in range(x) if (x + y) % 2 == n % 2}
    total = sum(last := value for value in pairs.values())
    first, *rest = [*pairs, "end"]
    return [str(pairs), total, last if pairs else None, len(rest), [[c for c in row] for row in ("ab", "cd")]]
### context_managers
from contextlib import ExitStack, contextmanager, suppress
def context_managers(db, n):
    found = []
    @contextmanager
    def note(name):
        found.append("+" + name)
        try: yield name
        except ValueError: found.append("swallowed")
        finally: found.append("-" + name)
    with ExitStack() as stack:
        for name in "abc"[: n + 1]: stack.enter_context(note(name))
        if n == 1: raise ValueError
    with suppress(KeyError): {}["x"]
    return found
### descriptors
class Positive:
    def __set_name__(self, owner, name): self.name = "_" + name
    def __get__(self, item, owner): return getattr(item, self.name, 0)
    def __set__(self, item, value):
        if value <= 0: raise ValueError(f"{self.name[1:]} must be positive, not {value!r}")
        setattr(item, self.name, value)
class Box:
    size = Positive()
def descriptors(db, n):
    box = Box(); box.size = n
    return [box.size, vars(box)]
### async_code
def async_code(db, n):
    async def leaf(x): return x * 2
    async def root(): return [await leaf(x) for x in range(n)]
    task = root()
    try: task.send(None)
    except StopIteration as stop: return stop.value
### recursion
from functools import lru_cache
@lru_cache(maxsize=None)
def fib(k): return k if k < 2 else fib(k - 1) + fib(k - 2)
def recursion(db, n):
    return [fib(20 * n), fib.cache_info()._asdict()]
### set_order
def set_order(db, n):
    words = {"pear", "fig", "apple", "plum", "lime", "kiwi"} - {"kiwi"}
    return [list(words), list({"b": 1, "a": 2} | {"c": 3}), list(frozenset(range(20, 0, -3 - n))), hash("text") % 1000]
### sorting
def sorting(db, n):
    rows = [("b", 2), ("a", 1), ("c", 1), ("a", 2), ("b", 1)]
    return [sorted(rows, key=lambda r: r[n % 2]), sorted(rows, key=lambda r: (-r[1], r[0])), sorted("zeta Alpha \\u00e9 beta".split(), key=str.casefold, reverse=n > 1)]
### slices
def slices(db, n):
    items = list(range(10)); items[n::3] = ["x"] * len(items[n::3]); del items[-2:]
    return [items, items[::-1], "hello"[-3:], bytes(range(5))[1:3].hex(), list(memoryview(b"abcdef")[n::2])]
### typing_names
from typing import NamedTuple, TypedDict, Literal, Protocol, get_type_hints
class Row(NamedTuple):
    name: str
    n: int = 0
class Data(TypedDict, total=False):
    a: int
def typing_names(db, n):
    return [Row("x", n)._asdict(), Row("y")._replace(n=n), sorted(get_type_hints(Data)), Row._fields]
"""
