"""Source text that every compiled solver starts with: skills, reading through tools, filtering, choosing."""

from __future__ import annotations

SKILL_COMMENTS = {
    "PAGES": "read every page of a listing, not only the first",
    "POLICY": "follow the published rules",
    "FIRST": "take the first candidate instead of the best or fitting one",
    "GREEDY": "choose sets one by one instead of searching them all",
    "BRANCH": "test conditions instead of assuming that they hold",
    "WRITES": "make changes",
    "FUZZY": "take the first name that starts alike instead of the exact one",
    "STRICT": "tell < from <= and > from >=",
    "NONE": "report that no set fits instead of the one that comes nearest",
    "TOTALS": "add up all values instead of taking the first",
    "SLIPS": "number of a careless solver, one in eight of whose decisions goes wrong; 0 for a careful one",
    "RETRY": "call again when a call failed",
    "DOUBT": 'what is done when a change timed out: "look" whether it was made, "repeat" it, or take it for "made"',
    "ASKS": "ask the user for what the user alone knows instead of doing without it",
    "READS": 'what is read: what is needed, "once"; the same "again" whenever it is wanted; or "all" that there is, first',
    "CHECKS": "hold rows against the rules of order themselves, not only against what looks like a breach",
    "ATOMS": 'which conditions of a description are tested: "all", "first" or "none"',
}
"""What each flag means, as the comment beside it in the solver."""

LISTING = {
    "page": '''\
def listing(tool, filters):
    """All rows of a listing, page by page."""
    found, page = [], 1
    while page:
        reply = read(tool, page=page, **filters)
        found = found + reply[KEY]
        page = reply["next_page"] if PAGES else None
    return found
''',
    "offset": '''\
def listing(tool, filters):
    """All rows of a listing, from offset to offset."""
    found = []
    while True:
        reply = read(tool, offset=len(found), **filters)
        found = found + reply[KEY]
        if not PAGES or not reply[KEY] or len(found) >= reply["total"]:
            return found
''',
    "none": '''\
def listing(tool, filters):
    """All rows of a listing without pages."""
    return read(tool, **filters)
''',
    "cursor": '''\
def listing(tool, filters):
    """All rows of a listing, from cursor to cursor."""
    reply = read(tool, **filters)
    found = reply[KEY]
    while PAGES and reply["next_cursor"] is not None:
        reply = read(tool, cursor=reply["next_cursor"], **filters)
        found = found + reply[KEY]
    return found
''',
}
"""Reading a whole listing, by paging style."""

READING = '''\
SESSION = {}
MEMO = {}


def slips():
    """Whether this decision goes wrong, in a careless solver."""
    if not SLIPS:
        return False
    SESSION["decisions"] = SESSION["decisions"] + 1
    return (SLIPS * 7919 + SESSION["decisions"] * 104729) % 1009 % 8 == 0


def read(tool, **arguments):
    """Call a reading tool; what was read is remembered until the next change."""
    key = tool + repr(sorted(arguments.items()))
    if key not in MEMO:
        MEMO[key] = SESSION["call"](tool, **arguments)
    return MEMO[key]


def write(tool, **arguments):
    """Call a changing tool."""
    if not WRITES or slips():
        return {}
    MEMO.clear()
    return SESSION["call"](tool, **arguments)


'''
"""Calling tools."""

THINKING = '''\
def holds(left, op, right):
    """Compare two values."""
    if not STRICT:
        op = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}.get(op, op)
    if op == "is":
        return bool(left)
    if op == "==":
        return left == right
    if op == "!=":
        return left != right
    if op == "<":
        return left < right
    if op == "<=":
        return left <= right
    return left > right if op == ">" else left >= right


def meets(row, conditions):
    """Whether a row meets conditions on its columns."""
    for column, op, value in conditions:
        if not holds(row[column], op, value):
            return False
    return True


def listed(tool, filters, exact):
    """Rows of a listing; of a whole one only those with the value of the first exact condition."""
    key = "rows of " + tool + repr(sorted(filters.items()))
    if key not in MEMO:
        MEMO[key] = listing(tool, filters)
    if filters or not exact:
        return MEMO[key]
    column, op, value = exact[0]
    index = "rows of " + tool + " by " + column
    if index not in MEMO:
        MEMO[index] = {}
        for row in MEMO[key]:
            MEMO[index].setdefault(row[column], []).append(row)
    return MEMO[index].get(value, [])


def fetch(entity, conditions):
    """Whole rows that meet conditions on columns; a tool filters what it can."""
    tools = TOOLS[entity]
    filters = {column: value for column, op, value in conditions if op == "==" and column in tools["filters"]}
    asked = MEMO.setdefault("filters of " + tools["list"], [])
    if filters and filters not in asked:
        asked.append(filters)
    if len(asked) > 2:
        filters = {}  # reading the whole listing once costs fewer calls than one filter after the other
    shown = [condition for condition in conditions if condition[0] in tools["columns"]]
    exact = [condition for condition in shown if condition[1] == "=="]
    found = [row for row in listed(tools["list"], filters, exact) if meets(row, shown)]
    if tools["get"]:
        found = [read(tools["get"], id=row["id"]) for row in found]
    return [row for row in found if meets(row, conditions)]


def rows(entity, equal):
    """Rows whose columns have these values."""
    return fetch(entity, [(column, "==", value) for column, value in equal.items()])


def named(entity, by, value):
    """The one row with this name or id."""
    tools = TOOLS[entity]
    if by == "id" and tools["get"]:
        return read(tools["get"], id=value)
    found = read(tools["find"], name=value)[KEY] if by == "name" and tools["find"] else rows(entity, {by: value})
    if len(found) != 1:
        raise RuntimeError("no single " + entity + " with " + by + " " + repr(value))
    return found[0]


def lookup(entity, by, value):
    """The row that the task calls by this name or id."""
    if FUZZY and by == "name":
        return [row for row in rows(entity, {}) if row["name"].split()[0] == value.split()[0]][0]
    return named(entity, by, value)


def select(entity, conditions):
    """Rows that meet all conditions: (column or function of a row, comparator, value)."""
    if ATOMS == "first":
        conditions = conditions[:1]
    if ATOMS == "none":
        conditions = []
    conditions = [condition for condition in conditions if not slips()]
    found = fetch(entity, [condition for condition in conditions if isinstance(condition[0], str)])
    for attribute, op, value in conditions:
        if not isinstance(attribute, str):
            found = [row for row in found if holds(attribute(row), op, value)]
    return found


def total(values):
    """The sum of values."""
    if slips():
        values = values[1:]
    return sum(values) if TOTALS else values[0]


def pick(found, attribute, direction):
    """The row with the largest ("max") or smallest ("min") attribute."""
    if FIRST:
        return found[0]
    best = max(found, key=attribute) if direction == "max" else min(found, key=attribute)
    return found[0] if slips() else best
'''
"""Filtering and picking."""

ATTEMPTING = '''\
def attempt(told, name, action, *arguments):
    """Make a change if the tools allow it, and note what became of it; an error that no tool raised is none of theirs."""
    call, refused = SESSION["call"], []

    def watched(tool, **given):
        try:
            return call(tool, **given)
        except Exception:
            refused.append(tool)
            raise

    SESSION["call"] = watched
    try:
        action(*arguments)
        told[name] = "done"
    except Exception:
        if not refused:
            raise
        told[name] = "denied"
    finally:
        SESSION["call"] = call
'''
"""Changes that may be denied; part of a solver only when its task asks for one."""

RECOVERING = '''\
def fault(error):
    """What kept a call from ending: "timeout" or "unavailable"; "" for an answer, which a refusal is."""
    told = error.payload
    code = told.get("code") if isinstance(told, dict) else {408: "timeout", 503: "unavailable"}.get(told)
    return code if code in ("timeout", "unavailable") else ""


def seen(entities, given):
    """Rows of these entities, as the tools tell them now; where a listing filters by an argument of a change, those alone."""
    MEMO.clear()
    found = []
    for entity in entities:
        found.append(rows(entity, {name: value for name, value in given.items() if name in TOOLS[entity]["filters"]}))
    MEMO.clear()
    return found


def patient(call):
    """Call tools that may fail: wait for those that are unavailable, and look before a change is made again."""

    def calling(tool, **arguments):
        changing = CHANGING.get(tool, [])
        before = seen(changing, arguments) if changing and DOUBT == "look" else []
        lost = False
        for trial in range(TRIALS):
            try:
                return call(tool, **arguments)
            except CallError as error:
                why = fault(error)
                if not why and lost and changing and DOUBT == "repeat":
                    return {}  # it looks as if it had been made already
                if not why or not RETRY:
                    raise
                lost = lost or why == "timeout"
            if changing and lost and (DOUBT == "made" or (DOUBT == "look" and seen(changing, arguments) != before)):
                return {}
        raise RuntimeError(tool + " fails again and again")

    return calling
'''
"""Tools that fail; part of a solver only when its task warns of them."""

ASKING = '''\
def said(topic):
    """What the user says when asked: the text in quotes, else the number or date behind "It is"."""
    words = read("ask_user", about=topic)
    return words.split('"')[1] if '"' in words else words.strip(".").split()[2]
'''
"""Asking the user; part of a solver only when its task has one."""

SPENDING = '''\
def begin():
    """Read, without thrift, every row of every listing before the work begins."""
    SESSION["reads"] = 0
    if READS == "all":
        for entity in TOOLS:
            rows(entity, {})


def anew(read):
    """Read as `read` does; without thrift, after forgetting what was read before, until so much was read that notes are taken."""

    def forgetful(*arguments, **named):
        if READS == "again" and SESSION["reads"] < NOTES:
            SESSION["reads"] = SESSION["reads"] + 1
            MEMO.clear()
        return read(*arguments, **named)

    return forgetful


read, lookup, select = anew(read), anew(lookup), anew(select)
'''
"""Tool calls that are limited; part of a solver only when its task says so."""

CHOOSING = '''\
from itertools import combinations


def feasible(chosen, values, conditions, final=True):
    """Whether the chosen numbers meet the set conditions; a set that may still grow only must not exceed a total."""
    for index, (kind, attribute, op, bound) in enumerate(conditions):
        column = [values[number][index] for number in chosen]
        if kind == "distinct" and len(set(column)) < len(column):
            return False
        if kind == "sum" and (final or op in ("<", "<=")) and not holds(sum(column), op, bound):
            return False
    return True


def choose(found, count, conditions, goal):
    """`count` rows that meet the set conditions, with the best total if there is a goal (direction, attribute)."""
    if FIRST or slips():
        return found[:count]
    values = [[attribute(row) for kind, attribute, op, bound in conditions] for row in found]
    sign = -1 if goal and goal[0] == "min" else 1
    gains = [sign * goal[1](row) if goal else 0 for row in found]
    best = None
    if GREEDY and goal:
        best = []
        for number in sorted(range(len(found)), key=lambda number: -gains[number]):
            if len(best) < count and feasible(best + [number], values, conditions, final=False):
                best = best + [number]
        return [found[number] for number in best]
    most = None
    for tried, chosen in enumerate(combinations(range(len(found)), count)):
        if tried == 20000:
            raise RuntimeError("too many sets to try")
        gain = sum([gains[number] for number in chosen])
        if (most is None or gain > most) and feasible(chosen, values, conditions):
            best, most = chosen, gain
    if best is None:
        raise RuntimeError("no " + str(count) + " rows meet the conditions on the set")
    return [found[number] for number in best]
'''
"""Choosing sets; part of a solver only when its task chooses one."""

GROUPING = '''\
def leading(found, key, measure, direction):
    """The key whose rows, counted or added up, come to the most ("max") or least ("min"); only keys that rows have."""
    if FIRST:
        return key(found[0])
    groups = {}
    for row in found:
        groups.setdefault(key(row), []).append(measure(row))
    standing = sorted(groups, key=lambda name: total(groups[name]), reverse=direction == "max")
    return standing[-1] if slips() else standing[0]
'''
"""Comparing groups of rows; part of a solver only when its task does so."""

CHOOSING_OR_NONE = '''\
def choose_or_none(found, count, conditions, goal, number):
    """Rows as `choose` finds them, or none where no set meets the conditions; and the set nearest to condition `number`."""
    if FIRST:
        return found[:count], found[:count]
    kind, attribute, op, bound = conditions[number]
    others = [condition for index, condition in enumerate(conditions) if index != number]
    near = choose(found, count, others, ("max" if op in (">", ">=") else "min", attribute))
    if not holds(sum([attribute(row) for row in near]), op, bound):
        return [] if NONE else near, near
    return choose(found, count, conditions, goal), near
'''
"""Choosing sets where there may be none; part of a solver only when its task says what to do then."""

DEFINED = (
    *("SESSION", "MEMO", "TOOLS", "KEY", "read", "write", "listing", "holds", "meets", "fetch"),
    *("listed", "rows", "named", "lookup", "select", "total", "pick", "leading", "combinations", "feasible", "choose"),
    *("choose_or_none", "attempt", "solve", "slips", "said", "fault", "seen", "patient", "CHANGING", "TRIALS"),
    *("begin", "anew", "NOTES"),
    *SKILL_COMMENTS,
)
"""Names that the prelude defines."""
