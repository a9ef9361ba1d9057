"""A world of six rooms and eight visits, written by hand, so that every right answer is known without any backend."""

from __future__ import annotations

from dataclasses import replace

from envsynth.author.procedural.compose import Composition
from envsynth.author.procedural.interface import read_tools
from envsynth.author.procedural.ir import Const, Named, Type
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanism import Action, Col, Derived, InterfaceStyle, ToolDraft

STYLE = InterfaceStyle(
    page_size=2,
    paging="page",
    projection="full",
    filters="none",
    lookup="id",
    error_style="terse",
    ids="int",
    result_key="items",
    verb="list",
)

ROOM = (
    Col(name="id", kind="id", column="id"),
    Col(name="name", kind="name", column="name"),
    Col(name="size", kind="num", unit="people", column="size"),
    Col(name="rate", kind="num", unit="credits", column="rate"),
    Col(name="wing", kind="enum", values=("East", "West"), column="wing"),
    Col(name="opened", kind="date", column="opened"),
)
VISIT = (
    Col(name="id", kind="id", column="id"),
    Col(name="room", kind="fk", ref="room", refkey="name", column="room_name"),
    Col(name="day", kind="date", column="day"),
    Col(name="heads", kind="num", unit="people", column="heads"),
    Col(name="state", kind="enum", values=("live", "gone"), column="state"),
)
ROOMS = [
    (10, "Oak Hall", 8, 30, "East", "2030-01-05"),
    (20, "Oak Room", 4, 20, "East", "2030-03-01"),
    (30, "Elm Room", 6, 25, "West", "2029-07-09"),
    (40, "Fir Room", 12, 60, "West", "2030-02-02"),
    (50, "Ash Room", 6, 15, "East", "2028-11-30"),
    (60, "Yew Room", 10, 45, "West", "2030-05-05"),
]
VISITS = [
    (1, "Oak Hall", "2031-05-03", 5, "live"),
    (2, "Oak Hall", "2031-05-03", 2, "gone"),
    (3, "Oak Room", "2031-05-03", 4, "live"),
    (4, "Elm Room", "2031-05-04", 3, "live"),
    (5, "Fir Room", "2031-05-04", 9, "live"),
    (6, "Fir Room", "2031-05-05", 1, "gone"),
    (7, "Ash Room", "2031-05-05", 6, "live"),
    (8, "Fir Room", "2031-05-03", 2, "live"),
]

LOAD = Derived(
    entity="room",
    name="load",
    label="load on {0}",
    params=(Type("date"),),
    type=Type("num", "people"),
    sql=(
        '(SELECT COALESCE(SUM(v."heads"), 0) FROM "visit" v'
        ' WHERE v."room_name" = {t}."name" AND v."day" = {0} AND v."state" = \'live\')'
    ),
    plan=(
        "def visits_of(row):\n"
        "    return [v for v in rows('visit', {'room_name': row['name']}) if not POLICY or v['state'] == 'live']\n"
        "def d_load(row, day):\n"
        "    return sum([v['heads'] for v in visits_of(row) if v['day'] == day])\n"
    ),
    goal=(
        "def g_load(db, row, day):\n"
        "    mine = [v for v in db['visit'] if v['room_name'] == row['name'] and v['day'] == day]\n"
        "    return sum(v['heads'] for v in mine if v['state'] != 'gone')\n"
    ),
    policy="Only live visits count.",
)
QUIET = Derived(
    entity="room",
    name="quiet",
    label="quiet",
    type=Type("bool"),
    sql=('(NOT EXISTS (SELECT 1 FROM "visit" v WHERE v."room_name" = {t}."name" AND v."state" = \'live\'))'),
    plan=(
        "def visits_of(row):\n"
        "    return [v for v in rows('visit', {'room_name': row['name']}) if not POLICY or v['state'] == 'live']\n"
        "def d_quiet(row):\n"
        "    return not visits_of(row)\n"
    ),
    goal=(
        "def g_quiet(db, row):\n"
        "    return all(v['state'] == 'gone' for v in db['visit'] if v['room_name'] == row['name'])\n"
    ),
    policy="A room is quiet if it has no live visit.",
)
BOOK = Action(
    name="book",
    phrase="book {room} on {day} for {heads}",
    params=(("room", Type("row", "room")), ("day", Type("date")), ("heads", Type("num", "people"))),
    oracle_sql=(
        "SELECT 'insert', 'visit', json_object('room_name', r.\"name\", 'day', {day}, 'heads', {heads},"
        " 'state', 'live') FROM \"room\" r WHERE r.\"id\" = {room}"
    ),
    plan="def a_book(room, day, heads):\n    write('book_room', room_id=room['id'], day=day, heads=heads)\n",
    goal=(
        "def s_book(db, diff, room, day, heads):\n"
        "    for d in diff:\n"
        "        if d['op'] == 'insert' and d['table'] == 'visit':\n"
        "            n = d['new']\n"
        "            if (n['room_name'], n['day'], n['heads'], n['state']) == (room['name'], day, heads, 'live'):\n"
        "                return [d]\n"
        "    return None\n"
    ),
    tables=("visit",),
)
CANCEL = Action(
    name="cancel",
    phrase="cancel {visit}",
    params=(("visit", Type("row", "visit")),),
    oracle_sql=(
        "SELECT 'update', 'visit', json_object('id', v.\"id\", 'state', 'gone')"
        ' FROM "visit" v WHERE v."id" = {visit}'
    ),
    plan="def a_cancel(visit):\n    write('cancel_visit', visit_id=visit['id'])\n",
    goal=(
        "def s_cancel(db, diff, visit):\n"
        "    for d in diff:\n"
        "        if d['op'] == 'update' and d['table'] == 'visit' and d['new']['id'] == visit['id']:\n"
        "            return [d] if d['changed'] == ['state'] and d['new']['state'] == 'gone' else None\n"
        "    return None\n"
    ),
    tables=("visit",),
)
RESIZE = Action(
    name="resize",
    phrase="set the size of {room} to {size}",
    params=(("room", Type("row", "room")), ("size", Type("num", "people"))),
    oracle_sql="SELECT 'update', 'room', json_object('id', {room}, 'size', {size})",
    plan="def a_resize(room, size):\n    write('resize_room', room_id=room['id'], size=size)\n",
    goal=(
        "def s_resize(db, diff, room, size):\n"
        "    found = [d for d in diff if d['op'] == 'update' and d['new']['id'] == room['id']]\n"
        "    return [d for d in found if d['table'] == 'room' and d['changed'] == ['size'] and d['new']['size'] == size]\n"
    ),
    tables=("room",),
)


def _write_tool(name: str, arguments: str, body: str) -> ToolDraft:
    return ToolDraft(
        name=name,
        effect="write",
        description=name,
        parameters={"type": "object"},
        returns="",
        errors=("not_found", "conflict"),
        source=f"def {name}(db, *, {arguments}):\n{body}",
    )


def tiny_world(**style: object) -> Composition:
    """Build the world; keyword arguments override fields of the interface style."""
    world = Composition(
        mechanisms=("tiny",),
        pack=load_pack("general"),
        style=replace(STYLE, **style),
        words={"room": ("room", "rooms"), "visit": ("visit", "visits")},
        tables={"room": ROOM, "visit": VISIT},
        rules={},
        rows={
            "room": [dict(zip([col.column for col in ROOM], cells, strict=True)) for cells in ROOMS],
            "visit": [dict(zip([col.column for col in VISIT], cells, strict=True)) for cells in VISITS],
        },
        derived={("room", "load"): LOAD, ("room", "quiet"): QUIET},
        actions={"book": BOOK, "cancel": CANCEL, "resize": RESIZE},
    )
    tools, world.access = read_tools(world)
    world.tools = [
        *tools,
        _write_tool(
            "book_room",
            "room_id, day, heads",
            "    room = db.execute('SELECT * FROM room WHERE id = ?', [room_id]).fetchone()\n"
            "    if heads > room['size']:\n"
            "        raise Refusal('conflict', 'too many')\n"
            "    db.execute('INSERT INTO visit (room_name, day, heads, state) VALUES (?, ?, ?, ?)',"
            " [room['name'], day, heads, 'live'])\n",
        ),
        _write_tool(
            "cancel_visit", "visit_id", "    db.execute(\"UPDATE visit SET state = 'gone' WHERE id = ?\", [visit_id])\n"
        ),
        _write_tool(
            "resize_room",
            "room_id, size",
            "    db.execute('UPDATE room SET size = ? WHERE id = ?', [size, room_id])\n",
        ),
    ]
    return world


def people(value: int) -> Const:
    return Const(value, "num", "people")


def credits_(value: int) -> Const:
    return Const(value, "num", "credits")


def day(number: int) -> Const:
    return Const(f"2031-05-{number:02d}", "date")


def room(name: str) -> Named:
    return Named("room", "name", name)


def visit(number: int) -> Named:
    return Named("visit", "id", number)
