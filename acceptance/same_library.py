"""Modules of `same_modules` that use the standard library."""

from __future__ import annotations

LIBRARY = """
### decimals
from decimal import Decimal, ROUND_HALF_EVEN, ROUND_HALF_UP, getcontext, localcontext
def decimals(db, n):
    price = Decimal("19.995") * (n + 1)
    with localcontext() as context:
        context.prec = 6
        third = Decimal(1) / 3
    if n == 3: return str(Decimal("x"))
    return [str(price.quantize(Decimal("0.01"), ROUND_HALF_EVEN)), str(price.quantize(Decimal("0.01"), ROUND_HALF_UP)), str(third), getcontext().prec, f"{price:,.3f}"]
### fractional
from fractions import Fraction
def fractional(db, n):
    return [str(sum(Fraction(1, k) for k in range(1, n + 5))), str(Fraction(0.1).limit_denominator(100)), float(Fraction(1, n))]
### dates
from datetime import date, datetime, time, timedelta, timezone
def dates(db, n):
    day = date(2024, 2, 28) + timedelta(days=n)
    moment = datetime.fromisoformat("2024-03-10T23:30:00+02:00") + timedelta(hours=n)
    if n == 3: return datetime.strptime("2024-13-01", "%Y-%m-%d")
    return [day.isoformat(), day.strftime("%A %d %B %Y week %V"), day.isocalendar(), moment.astimezone(timezone.utc).isoformat(), str(moment - datetime(2024, 1, 1, tzinfo=timezone.utc)), time(9, 5).isoformat("minutes")]
### zones
from datetime import datetime
from zoneinfo import ZoneInfo
def zones(db, n):
    zone = ZoneInfo(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "No/Where"][n])
    moments = [datetime(2024, month, 31, 2, 30, fold=fold, tzinfo=zone) for month in (3, 10) for fold in (0, 1)]
    return [[m.isoformat(), m.tzname(), m.astimezone(ZoneInfo("UTC")).isoformat()] for m in moments]
### calendars
import calendar
def calendars(db, n):
    return [calendar.monthrange(2023 + n, 2), calendar.month(2024, n + 1), calendar.isleap(2000 + n), list(calendar.Calendar(n).itermonthdays(2024, 2))]
### regular
import re
PATTERN = re.compile(r"(?P<name>[a-z]+)(?:-(?P<n>\\d+))?(?=,|$)", re.I)
def regular(db, n):
    text = "alpha-1,Beta,gamma-22,\\u00e9t\\u00e9-3"
    if n == 3: return re.compile("(")
    return [[m.groupdict() for m in PATTERN.finditer(text)], re.sub(r"\\d+", lambda m: str(int(m[0]) * n), text), re.split(r"[,-]", text, maxsplit=n), re.findall(r"\\w+", text), bool(re.fullmatch(r"a.*?3", text))]
### json_text
import json
def json_text(db, n):
    if n == 3: return json.loads('{"a": [1, 2,]}')
    data = {"b": [1, 2.50, None, True], "a": {"\\u00e9": "\\u4e2d\\n"}}
    return [json.dumps(data, indent=n or None, sort_keys=bool(n)), json.dumps(data, ensure_ascii=False), json.loads("[1e3, -0, 12345678901234567890]")]
### csv_text
import csv, io
def csv_text(db, n):
    out = io.StringIO()
    writer = csv.DictWriter(out, ["a", "b"], delimiter=",;\\t|"[n])
    writer.writeheader(); writer.writerow({"a": 'say "hi"', "b": "x,y;z"}); writer.writerow({"a": None, "b": 1.5})
    return [out.getvalue(), list(csv.reader(io.StringIO(out.getvalue()), delimiter=",;\\t|"[n]))]
### stats
import statistics
def stats(db, n):
    data = [1.5, 2, 2, 3.25, 10][: n + 1] if n else []
    return [statistics.mean(data), statistics.median(data), statistics.multimode(data), statistics.stdev(data) if len(data) > 1 else None, statistics.quantiles([1, 2, 3, 4], n=4)]
### iteration
from itertools import accumulate, chain, combinations, groupby, islice, pairwise, permutations, product, zip_longest, cycle
def iteration(db, n):
    return [list(accumulate(range(n + 3))), list(combinations("abc", n)), [[k, list(g)] for k, g in groupby("aabbca")], list(islice(cycle("xy"), n)), list(pairwise(range(n))), len(list(product("ab", repeat=n))), list(zip_longest("ab", range(n))), list(permutations("abc"))[n], list(chain.from_iterable(["ab", "c"]))]
### heaps
import heapq
def heaps(db, n):
    heap = [5, 1, 4, 1, 3]; heapq.heapify(heap); heapq.heappush(heap, n)
    return [heap, heapq.nsmallest(n, heap), heapq.nlargest(2, heap), list(heapq.merge([1, 4], [2, 3], key=lambda x: x)), [heapq.heappop(heap) for _ in range(3)]]
### bisection
from bisect import bisect_left, bisect_right, insort
def bisection(db, n):
    items = [1, 2, 2, 3]; insort(items, n, key=lambda x: -x if n > 2 else x)
    return [bisect_left([1, 2, 2, 3], n), bisect_right([1, 2, 2, 3], n), items]
### hashes
import base64, binascii, hashlib, hmac, zlib
def hashes(db, n):
    data = bytes(range(n * 10))
    return [hashlib.new(["md5", "sha256", "blake2b", "sha3_256"][n], data).hexdigest(), hmac.new(b"k", data, "sha1").hexdigest(), base64.b64encode(data).decode(), zlib.crc32(data), zlib.decompress(zlib.compress(data)).hex(), binascii.hexlify(data).decode()]
### identifiers
import uuid
def identifiers(db, n):
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"item/{n}")
    return [str(made), made.version, str(uuid.uuid3(uuid.NAMESPACE_DNS, "x")), uuid.UUID(int=n).hex, uuid.UUID("no" if n == 3 else made.hex).urn]
### wrapping
import textwrap
def wrapping(db, n):
    text = "The quick brown fox jumps over the lazy dog. " * 2
    return [textwrap.fill(text, 20 + n), textwrap.shorten(text, 15 + n), textwrap.dedent("  a\\n    b\\n"), textwrap.indent("a\\n\\nb", "> "), textwrap.wrap("x" * 30, 8)]
### differences
import difflib
def differences(db, n):
    return [difflib.get_close_matches("appel", ["ape", "apple", "peach"], n=n + 1), list(difflib.unified_diff("abc", "abx", lineterm="")), difflib.SequenceMatcher(None, "abcd", "bcde").ratio()]
### seeded
import random
def seeded(db, n):
    rng = random.Random(f"seed/{n}")
    items = list(range(8)); rng.shuffle(items)
    return [rng.random(), rng.randint(1, 6), items, rng.sample(range(100), 3), rng.gauss(0, 1), rng.choices("abc", [1, 2, 3], k=4)]
### dice
import random
def dice(db, n):
    return [random.randrange(6) for _ in range(n + 1)]
### dice_again
import random
START = random.random()
def dice_again(db, n):
    if n == 1: random.seed("mine")
    return [START, random.random(), random.choice("abcdef")]
### formats
def formats(db, n):
    x, s, name = 1234.5678 * (n + 1), "tea\\u00e9", "w"
    return [f"{x:>12,.2f}|{n:03d}|{s!r:>10}|{s!a}|{n:#x}|{x:e}|{n:%}|{s:^{8 + n}}", "%5.1f %s %-5s| %r" % (x, s, n, s), "{0[a]} {1.real} {n!s:*<4}".format({"a": 1}, n, n=n), f"{x=:.1f}", format(10 ** 9, "_"), str(1e16), repr(0.1 * 3)]
### unicodes
import unicodedata
def unicodes(db, n):
    text = "\\u00c5\\u0073\\u0307\\ufb03\\u1e9e\\u0130"
    return [unicodedata.normalize(["NFC", "NFD", "NFKC", "NFKD"][n], text), text.casefold(), text.upper(), text.lower(), [unicodedata.name(c) for c in text], text.encode("utf-8").hex(), "\\u4e2d".isidentifier(), "\\u0663".isdigit(), int("\\u0663")]
### encodings
def encodings(db, n):
    text = "na\\u00efve \\u20ac"
    return ["utf-8 utf-16 latin-1 ascii".split()[n], text.encode("utf-8 utf-16-le latin-1 ascii".split()[n]).hex()]
### string_methods
import string
def string_methods(db, n):
    text = "  Hello, World!\\tfoo  "
    return [text.split(), text.strip().partition(","), text.expandtabs(n + 1), "a-b-c".rsplit("-", n), text.translate(str.maketrans("lo", "01", "!")), "x".join("abc"), "abc".center(7, "*"), string.Template("$a ${b}").substitute(a=n, b=2), string.capwords("ab cd"), "Title case".swapcase(), "aXbX".removesuffix("X"), "12".zfill(5)]
### collections_types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
def collections_types(db, n):
    counts = Counter("mississippi"); counts.subtract("miss")
    queue = deque(range(5), maxlen=4); queue.rotate(n)
    groups = defaultdict(list)
    for word in ("ant", "bee", "ape"): groups[word[0]].append(word)
    od = OrderedDict.fromkeys("abc"); od.move_to_end("a")
    return [counts.most_common(), list(queue), dict(groups), ChainMap({"a": 1}, {"a": 2, "b": 3})["b"], list(od), namedtuple("P", "x y")(n, 2)._asdict()]
### mathematics
import cmath, math
def mathematics(db, n):
    if n == 3: return math.sqrt(-1)
    return [math.comb(10, n), math.isqrt(99), math.gcd(12, 18, n), math.fsum([0.1] * 10), math.hypot(3, 4), round(2.5), round(-1.005, 2), divmod(-7, 3), -7 // 2, 7 % -3, math.log2(8), pow(3, -1, 7), math.prod(range(1, 6)), str(cmath.sqrt(-1)), math.floor(-0.5), math.nextafter(1.0, 2.0)]
### structs
import array, struct
def structs(db, n):
    data = struct.pack("<hIq3s", -n, n, 2 ** 40, b"ab")
    return [data.hex(), struct.unpack("<hI", data[:6]), struct.calcsize("!bhl"), array.array("i", range(n)).tolist(), (1000).to_bytes(n + 1, "big").hex()]
### functional
import functools, operator
def functional(db, n):
    @functools.singledispatch
    def show(x): return "object"
    @show.register
    def _(x: int): return "int"
    @show.register(list)
    def _(x): return "list"
    return [functools.reduce(operator.mul, range(1, n + 2)), show(n), show([]), show(""), functools.partial(int, base=2)("101"), operator.itemgetter(1, 0)("ab"), sorted([3, 1, 2], key=functools.cmp_to_key(lambda a, b: b - a))]
### copies
import copy
def copies(db, n):
    a = [[n], {"k": [1]}]; a.append(a[0])
    shallow, deep = copy.copy(a), copy.deepcopy(a)
    a[0].append("new")
    return [shallow, deep, deep[0] is deep[2]]
### graphs
import graphlib
def graphs(db, n):
    graph = {"d": {"b", "c"}, "b": {"a"}, "c": {"a"}}
    if n == 3: graph["a"] = {"d"}
    sorter = graphlib.TopologicalSorter({key: sorted(value) for key, value in graph.items()})
    return list(sorter.static_order())
### quoting
import html, shlex, urllib.parse
def quoting(db, n):
    text = "a b&c=<\\u00e9>'" + '"'
    return [html.escape(text), html.unescape("&lt;&eacute;&#x41;"), shlex.quote(text), shlex.split("a 'b c' d"), urllib.parse.quote(text), urllib.parse.urlsplit("http://u@h:80/p?q=1#f")._asdict(), urllib.parse.parse_qs("a=1&a=2&b=")]
### abstracts
from abc import ABC, abstractmethod
import inspect, ast, types
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, side): self.side = side
    def area(self): return self.side ** 2
def abstracts(db, n):
    if n == 3: return Shape()
    return [Square(n).area(), str(inspect.signature(Square)), ast.literal_eval("[1, (2, 'x')]"), ast.unparse(ast.parse("x=1+2*3")), types.SimpleNamespace(a=n).a]
### pretty
import pprint, reprlib
def pretty(db, n):
    return [pprint.pformat({"b": list(range(30)), "a": {"x": "y" * 50}}, width=40 + n), reprlib.repr(list(range(100)))]
"""
