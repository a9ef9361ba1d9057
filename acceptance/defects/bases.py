"""Six sound specs, each in as many variants as one likes: other rows, other limits, other names; oracles by SQL."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from acceptance.defects.making import (
    Pair,
    closed,
    insert,
    list_tool,
    query,
    spec_of,
    table,
    task_of,
    text_list,
    update,
    world_of,
)
from envsynth.spec import GoalAtom, Outcome, OverlayRow, ProbeCase, Tool, Verifier

SUPPLIERS = ("Aldermoor", "Brackwell", "Cindervale", "Dunmarrow", "Eastfold", "Fennimore")
PEOPLE = (
    "Irma Moreau",
    "Tomas Birk",
    "Yuki Arden",
    "Leila Osman",
    "Piet Vandal",
    "Rosa Quill",
    "Hana Lind",
    "Omar Teske",
)
KINDS = ("tent", "stove", "rope", "lamp", "boot", "flask", "pack", "map")
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def _rng(name: str, variant: int) -> random.Random:
    return random.Random(f"defects/{name}/{variant}")


def _atom(name: str, quote: str, expression: str, kind: str = "answer") -> GoalAtom:
    return GoalAtom.parse({"id": name, "kind": kind, "quote": quote, "expression": expression})


def _probe(name: str, accept: bool, answer: dict[str, object], changes: tuple[object, ...] = ()) -> ProbeCase:
    return ProbeCase(name=name, accept=accept, outcome=Outcome(answer=answer, changes=changes))


def read_atoms(variant: int = 0) -> Pair:
    """Read: the cheapest part of a supplier with enough stock, and how many there are."""
    rng = _rng("read_atoms", variant)
    suppliers = [
        (f"S-{10 + 7 * number}", name, rng.choice(("Norham", "Velby"))) for number, name in enumerate(SUPPLIERS)
    ]
    prices = rng.sample(range(120, 990), 48)
    parts = [
        (f"P-{number}", rng.choice(suppliers)[0], rng.randint(0, 80), price)
        for number, price in zip(rng.sample(range(1000, 9999), 48), prices, strict=True)
    ]
    least, (code, name, _) = 20 + variant, suppliers[variant % 6]
    parts += [("P-100", code, least, 110), ("P-101", code, least - 1, 101), ("P-102", code, least + 1, 112)]
    world = world_of(
        [
            table("suppliers", "code! name city"),
            table("parts", "code! supplier>suppliers.code units:i price:i", ["price > 0"]),
        ],
        {"suppliers": suppliers, "parts": parts},
    )
    find = Tool(
        name="supplier_facts",
        effect="read",
        description="Look up a supplier by its code.",
        parameters=closed(code=TEXT),
        errors=("not_found",),
        source=(
            "def supplier_facts(db, code):\n"
            '    found = list(db.execute("SELECT * FROM suppliers WHERE code = ?", (code,)))\n'
            "    if not found:\n"
            '        raise Refusal("not_found", "there is no such supplier")\n'
            "    return found[0]\n"
        ),
    )
    spec = spec_of(
        "part-store",
        "A store of parts",
        world,
        [list_tool("suppliers", "suppliers"), list_tool("parts", "parts"), find],
    )
    rows = query(world, "SELECT code FROM parts WHERE supplier = ? AND units >= ? ORDER BY price", code, least)
    among = f"Among the parts of the supplier {name} with at least {least} units in stock"
    solution = f"""
STOCK = True


def solve(call):
    codes = [row["code"] for row in read_all(call, "suppliers") if row["name"] == "{name}"]
    found = [row for row in read_all(call, "parts") if row["supplier"] in codes and (not STOCK or row["units"] >= {least})]
    best = min(found, key=lambda row: row["price"])
    return {{"part_code": best["code"], "parts_counted": len(found)}}
"""
    definitions = f"""
codes = [row["code"] for row in db["suppliers"] if row["name"] == "{name}"]
found = [row for row in db["parts"] if row["supplier"] in codes and row["units"] >= {least}]
low = min(row["price"] for row in found)
"""
    atoms = (
        _atom(
            "part_code",
            f"{among}, find the cheapest one",
            'answer["part_code"] in [r["code"] for r in found if r["price"] == low]',
        ),
        _atom("parts_counted", "how many such parts there are", 'answer["parts_counted"] == len(found)'),
    )
    prompt = (
        f'{among}, find the cheapest one. Report its code as "part_code" and how many such parts there are as '
        '"parts_counted".'
    )
    wrong = {"part_code": "P-101", "parts_counted": len(rows)}
    return spec, task_of(
        spec,
        kind="read",
        prompt=prompt,
        answer_schema=closed(part_code=TEXT, parts_counted=WHOLE),
        solution=solution,
        ablations={"ignores_stock": {"STOCK": False}, "no_pagination": {"PAGES": False}},
        verifier=Verifier(form="atoms", definitions=definitions, atoms=atoms),
        oracle=Outcome(answer={"part_code": rows[0][0], "parts_counted": len(rows)}),
        probes=(_probe("constraint/below the stock", False, wrong),),
    )


def read_program(variant: int = 0) -> Pair:
    """Read, with a program as verifier: fees of overdue loans of one desk."""
    rng = _rng("read_program", variant)
    desks = ("North", "South", "Garden", "Annex", "Tower")
    loans = [
        (f"L-{number}", rng.choice(PEOPLE), rng.choice(desks), rng.randint(0, 60), rng.randint(2, 95))
        for number in rng.sample(range(1000, 9999), 56)
    ]
    desk, late = desks[variant % 5], 14 + variant
    loans += [("L-200", PEOPLE[0], desk, late, 50), ("L-201", PEOPLE[1], desk, late + 1, 41)]
    world = world_of([table("loans", "code! member desk days:i fee:i")], {"loans": loans})
    spec = spec_of(
        "loan-desk", "Loans of a library", world, [list_tool("loans", "loans, with days overdue and fee in cents")]
    )
    count, total = query(world, "SELECT count(*), sum(fee) FROM loans WHERE desk = ? AND days > ?", desk, late)[0]
    prompt = (
        f"Consider the loans of the desk {desk} that are more than {late} days overdue. Report how many there are as "
        '"loan_count" and the sum of their fees, in cents, as "fee_total".'
    )
    solution = f"""
STRICT = True


def solve(call):
    limit = {late} if STRICT else {late - 1}
    found = [row for row in read_all(call, "loans") if row["desk"] == "{desk}" and row["days"] > limit]
    return {{"loan_count": len(found), "fee_total": sum(row["fee"] for row in found)}}
"""
    program = f"""
def verify(answer, before, after, diff):
    fees = [row["fee"] for row in before["loans"] if row["desk"] == "{desk}" and row["days"] > {late}]
    reasons = []
    if not same(answer["loan_count"], len(fees)):
        reasons.append("wrong count")
    if not same(answer["fee_total"], sum(fees)):
        reasons.append("wrong sum")
    if diff:
        reasons.append("something changed")
    return {{"ok": not reasons, "reasons": reasons}}
"""
    return spec, task_of(
        spec,
        kind="read",
        prompt=prompt,
        answer_schema=closed(loan_count=WHOLE, fee_total=WHOLE),
        solution=solution,
        ablations={"wrong_boundary": {"STRICT": False}, "no_pagination": {"PAGES": False}},
        verifier=Verifier(form="program", program=program),
        oracle=Outcome(answer={"loan_count": count, "fee_total": total}),
        probes=(_probe("constraint/boundary", False, {"loan_count": count + 1, "fee_total": total + 50}),),
    )


def plan_atoms(variant: int = 0) -> Pair:
    """Plan: any four pieces of one kind that are light enough."""
    rng = _rng("plan_atoms", variant)
    kinds = [kind for kind in KINDS for _ in range(7)]
    rng.shuffle(kinds)
    names = [
        f"{kind.title()} {letter}{number}"
        for number, (kind, letter) in enumerate(zip(kinds, itertools.cycle("QRSTVW")), 11)
    ]
    gear = [(name, kind, rng.randint(200, 990)) for name, kind in zip(names, kinds, strict=True)]
    kind = KINDS[variant % 8]
    weights = sorted((weight, name) for name, other, weight in gear if other == kind)
    limit = sum(weight for weight, _ in weights[:3]) + weights[4][0]
    world = world_of([table("gear", "name! kind weight:i")], {"gear": gear})
    spec = spec_of("gear-room", "A room of gear", world, [list_tool("gear", "pieces of gear, with weight in grams")])
    choose = f"Choose 4 different pieces of gear of the kind {kind}"
    weigh = f"they weigh at most {limit} grams together"
    prompt = (
        f'{choose} such that {weigh}; any such choice is accepted. Report their names as "gear_names", in any order.'
    )
    solution = f"""
WEIGHED = True


def solve(call):
    found = [row for row in read_all(call, "gear") if row["kind"] == "{kind}"]
    if not WEIGHED:
        found.sort(key=lambda row: -row["weight"])
        return {{"gear_names": [row["name"] for row in found[:4]]}}
    for one in range(len(found)):
        for two in range(one):
            for three in range(two):
                for four in range(three):
                    chosen = [found[one], found[two], found[three], found[four]]
                    if sum(row["weight"] for row in chosen) <= {limit}:
                        return {{"gear_names": [row["name"] for row in chosen]}}
"""
    definitions = """
names = answer["gear_names"]
rows = [row for name in names for row in db["gear"] if same(row["name"], name)]
"""
    atoms = (
        _atom("count", choose, "len(set(names)) == len(names) == len(rows) == 4"),
        _atom("kind", choose, f'all(row["kind"] == "{kind}" for row in rows)'),
        _atom("weight", weigh, f'sum(row["weight"] for row in rows) <= {limit}'),
    )
    light, heavy = [name for _, name in weights[:4]], [name for _, name in weights[-4:]]
    at_limit = [name for _, name in (*weights[:3], weights[4])]
    other = next(name for name, found, weight in gear if found != kind and weight <= weights[3][0])
    return spec, task_of(
        spec,
        kind="plan",
        prompt=prompt,
        answer_schema=closed(gear_names=text_list(4)),
        solution=solution,
        ablations={"ignores_weight": {"WEIGHED": False}},
        verifier=Verifier(form="atoms", definitions=definitions, atoms=atoms),
        oracle=Outcome(answer={"gear_names": light}),
        probes=(
            _probe("alternative/at the limit", True, {"gear_names": at_limit}),
            _probe("alternative/other order", True, {"gear_names": light[::-1]}),
            _probe("constraint/weight", False, {"gear_names": heavy}),
            _probe("constraint/kind", False, {"gear_names": [*light[:3], other]}),
        ),
    )


_RESERVE = """
def reserve(db, item, depot, units, customer):
    found = list(db.execute("SELECT free FROM stock WHERE item = ? AND depot = ?", (item, depot)))
    if not found:
        raise Refusal("not_found", "that depot does not have the item")
    if units > found[0]["free"]:
        raise Refusal("conflict", "too few units are free")
    db.execute("UPDATE stock SET free = free - ? WHERE item = ? AND depot = ?", (units, item, depot))
    db.execute(
        "INSERT INTO reservations (item, depot, units, customer) VALUES (?, ?, ?, ?)", (item, depot, units, customer)
    )
    return {"reserved": units}
"""


def act_atoms(variant: int = 0) -> Pair:
    """Act: reserve where most is free."""
    rng = _rng("act_atoms", variant)
    items, depots = (
        ("valve", "gasket", "rotor", "clamp", "hinge"),
        ("Quay", "Ridge", "Mill", "Harbour", "Orchard", "Depot Nine"),
    )
    stock = [
        (item, depot, free)
        for item in items
        for depot, free in zip(depots, rng.sample(range(15, 95), len(depots)), strict=True)
    ]
    item, who, units = items[variant % 5], PEOPLE[variant % 8], 5 + variant
    world = world_of(
        [
            table("stock", "item! depot! free:i", ["free >= 0"]),
            table("reservations", "id!:i item depot units:i customer", ["units > 0"]),
        ],
        {"stock": stock, "reservations": [(1, "rotor", "Mill", 3, "Nora Feld"), (2, "clamp", "Quay", 7, "Nora Feld")]},
    )
    reserve = Tool(
        name="reserve",
        effect="write",
        description="Reserve units of an item at a depot for a customer.",
        parameters=closed(item=TEXT, depot=TEXT, units={"type": "integer", "minimum": 1}, customer=TEXT),
        errors=("not_found", "conflict"),
        source=_RESERVE.lstrip(),
    )
    spec = spec_of(
        "depots", "Depots", world, [list_tool("stock", "stock"), list_tool("reservations", "reservations"), reserve]
    )
    depot, free = query(world, "SELECT depot, free FROM stock WHERE item = ? ORDER BY free DESC", item)[0]
    wanted = f"Reserve {units} units of the item {item} for {who} at the depot with the most free units of it"
    prompt = (
        f'{wanted}. Report the depot as "depot" and how many units of the item are free there afterwards as "left".'
    )
    solution = f"""
WRITES = True


def solve(call):
    found = [row for row in read_all(call, "stock") if row["item"] == "{item}"]
    best = max(found, key=lambda row: row["free"])
    if WRITES:
        call("reserve", item="{item}", depot=best["depot"], units={units}, customer="{who}")
    return {{"depot": best["depot"], "left": best["free"] - {units}}}
"""
    definitions = f"""
found = [row for row in db["stock"] if row["item"] == "{item}"]
most = max(row["free"] for row in found)
best = [row["depot"] for row in found if row["free"] == most]


def reserved():
    new = [d for d in diff if d["op"] == "insert" and d["table"] == "reservations"]
    new = [d for d in new if [d["new"][k] for k in ("item", "units", "customer")] == ["{item}", {units}, "{who}"]]
    new = [d for d in new if d["new"]["depot"] in best and d["new"]["depot"] == answer["depot"]][:1]
    less = [d for d in diff if d["op"] == "update" and d["table"] == "stock" and d["changed"] == ["free"]]
    less = [d for d in less if d["new"]["item"] == "{item}" and d["new"]["depot"] == answer["depot"]]
    less = [d for d in less if d["old"]["free"] - d["new"]["free"] == {units}]
    return new + less if new and less else None
"""
    atoms = (
        _atom("depot", "Report the depot", 'answer["depot"] in best'),
        _atom("left", "how many units of the item are free there afterwards", f'answer["left"] == most - {units}'),
        _atom("reserved", wanted, "reserved()", "state"),
    )
    changes = (
        update("stock", item=item, depot=depot, free=free - units),
        insert("reservations", item=item, depot=depot, units=units, customer=who),
    )
    return spec, task_of(
        spec,
        kind="act",
        prompt=prompt,
        answer_schema=closed(depot=TEXT, left=WHOLE),
        solution=solution,
        ablations={"never_writes": {"WRITES": False}},
        verifier=Verifier(form="atoms", definitions=definitions, atoms=atoms),
        oracle=Outcome(answer={"depot": depot, "left": free - units}, changes=changes),
        probes=(
            _probe("alternative/changes in another order", True, {"depot": depot, "left": free - units}, changes[::-1]),
        ),
    )


def optimise_atoms(variant: int = 0) -> Pair:
    """Optimise: the cheapest three vans that hold enough; two of them tie, and either will do."""
    rng = _rng("optimise_atoms", variant)
    least = 12 + variant
    rates = rng.sample(range(60, 400), 42)
    vans = [
        (f"Van {letter}{number}", rng.randint(4, 30), rate)
        for number, (letter, rate) in enumerate(zip(itertools.cycle("ABCDEFG"), rates), 21)
    ]
    vans += [
        ("Van Z3", least, 41),
        ("Van Z1", least + 1, 37),
        ("Van Z7", least + 2, 41),
        ("Van Z5", least, 33),
        ("Van Z9", least - 1, 30),
    ]
    rng.shuffle(vans)
    world = world_of([table("vans", "name! room:i rate:i")], {"vans": vans})
    spec = spec_of(
        "van-hire", "Vans for hire", world, [list_tool("vans", "vans, with room in cubic metres and daily rate")]
    )
    hold = f"Choose 3 different vans, each with room of at least {least} cubic metres"
    best = "their combined daily rate is as low as possible"
    prompt = f'{hold}, such that {best}; any best choice is accepted. Report their names as "van_names", in any order.'
    names = [name for name, _ in query(world, "SELECT name, rate FROM vans WHERE room >= ? ORDER BY rate, name", least)]
    solution = f"""
ROOMY = True


def solve(call):
    found = [row for row in read_all(call, "vans") if not ROOMY or row["room"] >= {least}]
    found.sort(key=lambda row: row["rate"])
    return {{"van_names": [row["name"] for row in found[:3]]}}
"""
    definitions = f"""
names = answer["van_names"]
rows = [row for name in names for row in db["vans"] if same(row["name"], name)]
rates = sorted(row["rate"] for row in db["vans"] if row["room"] >= {least})
"""
    atoms = (
        _atom("count", hold, "len(set(names)) == len(names) == len(rows) == 3"),
        _atom("room", hold, f'all(row["room"] >= {least} for row in rows)'),
        _atom("best", best, 'sum(row["rate"] for row in rows) == sum(rates[:3])'),
    )
    return spec, task_of(
        spec,
        kind="optimise",
        prompt=prompt,
        answer_schema=closed(van_names=text_list(3)),
        solution=solution,
        ablations={"ignores_room": {"ROOMY": False}, "no_pagination": {"PAGES": False}},
        verifier=Verifier(form="atoms", definitions=definitions, atoms=atoms),
        oracle=Outcome(answer={"van_names": names[:3]}),
        probes=(
            _probe("alternative/tied", True, {"van_names": [*names[:2], names[3]]}),
            _probe("alternative/other order", True, {"van_names": names[:3][::-1]}),
            _probe("constraint/room", False, {"van_names": [*names[:2], "Van Z9"]}),
            _probe("constraint/best", False, {"van_names": [*names[:2], names[4]]}),
        ),
    )


_CANCEL = """
def cancel_booking(db, code):
    found = list(db.execute("SELECT status FROM bookings WHERE code = ?", (code,)))
    if not found:
        raise Refusal("not_found", "there is no such booking")
    if found[0]["status"] != "tentative":
        raise Refusal("conflict", "only a tentative booking can be cancelled")
    db.execute("UPDATE bookings SET status = 'cancelled' WHERE code = ?", (code,))
    return {"cancelled": code}
"""


def act_program(variant: int = 0) -> Pair:
    """Act, with a program as verifier: cancel what is tentative, and say what was paid for it."""
    rng = _rng("act_program", variant)
    guest = PEOPLE[variant % 8]
    bookings = [
        (f"B-{number}", rng.choice(PEOPLE), rng.choice(("tentative", "firm", "cancelled")), rng.randint(20, 400))
        for number in rng.sample(range(1000, 9999), 44)
    ]
    bookings += [("B-301", guest, "tentative", 57), ("B-302", guest, "tentative", 88), ("B-303", guest, "firm", 61)]
    world = world_of([table("bookings", "code! guest status paid:i")], {"bookings": bookings})
    cancel = Tool(
        name="cancel_booking",
        effect="write",
        description="Cancel a tentative booking.",
        parameters=closed(code=TEXT),
        errors=("not_found", "conflict"),
        source=_CANCEL.lstrip(),
    )
    spec = spec_of("guest-house", "Bookings", world, [list_tool("bookings", "bookings, with what was paid"), cancel])
    rows = query(world, "SELECT code, paid FROM bookings WHERE guest = ? AND status = 'tentative'", guest)
    prompt = (
        f'Cancel every tentative booking of the guest {guest}. Report how many you cancelled as "cancelled" and the sum '
        'that was paid for them as "paid_total".'
    )
    solution = f"""
EVERY = True


def solve(call):
    found = [row for row in read_all(call, "bookings") if row["guest"] == "{guest}" and row["status"] == "tentative"]
    for row in found if EVERY else found[:1]:
        call("cancel_booking", code=row["code"])
    return {{"cancelled": len(found), "paid_total": sum(row["paid"] for row in found)}}
"""
    program = f"""
def verify(answer, before, after, diff):
    wanted = [row for row in before["bookings"] if row["guest"] == "{guest}" and row["status"] == "tentative"]
    reasons = []
    if not same(answer["cancelled"], len(wanted)) or not same(answer["paid_total"], sum(row["paid"] for row in wanted)):
        reasons.append("wrong report")
    done = [d["new"]["code"] for d in diff if d["op"] == "update" and d["changed"] == ["status"]]
    if sorted(done) != sorted(row["code"] for row in wanted) or len(done) != len(diff):
        reasons.append("not exactly these bookings changed")
    elif any(d["new"]["status"] != "cancelled" for d in diff):
        reasons.append("a booking has another status")
    return {{"ok": not reasons, "reasons": reasons}}
"""
    answer: dict[str, object] = {"cancelled": len(rows), "paid_total": sum(paid for _, paid in rows)}
    changes = tuple(update("bookings", code=code, status="cancelled") for code, _ in rows)
    firm = update("bookings", code="B-303", status="cancelled")
    return spec, task_of(
        spec,
        kind="act",
        prompt=prompt,
        answer_schema=closed(cancelled=WHOLE, paid_total=WHOLE),
        solution=solution,
        ablations={"first_only": {"EVERY": False}, "no_pagination": {"PAGES": False}},
        verifier=Verifier(form="program", program=program),
        oracle=Outcome.parse({"answer": answer, "changes": [change.model_dump() for change in changes]}),
        probes=(
            _probe("alternative/changes in another order", True, answer, changes[::-1]),
            _probe("constraint/a firm booking as well", False, answer, (*changes, firm)),
        ),
    )


_RETURN = """
def return_loan(db, code):
    found = list(db.execute("SELECT state FROM loans WHERE code = ?", (code,)))
    if not found:
        raise Refusal("not_found", "there is no such loan")
    if found[0]["state"] != "out":
        raise Refusal("conflict", "the book is back already")
    db.execute("UPDATE loans SET state = 'back' WHERE code = ?", (code,))
    return {"returned": code}
"""


def diagnose_atoms(variant: int = 0) -> Pair:
    """Diagnose: a book is out twice, by a loan that the task plants; the later loan has to be returned."""
    rng = _rng("diagnose_atoms", variant)
    books = [
        f"Book {letter}{number}" for number, letter in enumerate(itertools.islice(itertools.cycle("PQRSTU"), 40), 11)
    ]
    days = [f"2031-04-{number:02}" for number in range(1, 29)]
    loans = [
        (f"L-{number}", book, rng.choice(PEOPLE), rng.choice(days), state)
        for number, (book, state) in zip(
            rng.sample(range(1000, 8999), 52),
            [
                *((book, "out" if place % 3 else "back") for place, book in enumerate(books)),
                *((book, "back") for book in books[:12]),
            ],
            strict=True,
        )
    ]
    first = next(loan for loan in loans if loan[4] == "out" and loan[3] < "2031-04-20")
    wrong = ("L-9007", first[1], PEOPLE[variant % 8], "2031-04-30", "out")
    near = ("L-9003", first[1], PEOPLE[(variant + 3) % 8], "2031-04-29", "back")
    names = ("code", "book", "reader", "day", "state")
    world = world_of([table("loans", "code! book reader day state")], {"loans": loans})
    give_back = Tool(
        name="return_loan",
        effect="write",
        description="Enter that the book of a loan is back.",
        parameters=closed(code=TEXT),
        errors=("not_found", "conflict"),
        source=_RETURN.lstrip(),
    )
    rule = (
        "A book is out on at most one loan. Of several loans of one book that are out, the one with the earliest day is "
        "right, and each of the others is wrong and has to be returned."
    )
    spec = spec_of(
        "library", "Loans of a library", world, [list_tool("loans", "loans, with day and state"), give_back], [rule]
    )
    find = "One loan is wrong by the rules of the library."
    prompt = f'{find} Return it and change nothing else. Report its code as "loan_code" and its reader as "reader".'
    solution = """
CHECKED = True


def solve(call):
    out = [row for row in read_all(call, "loans") if row["state"] == "out"]
    wrong = [row for row in out if not CHECKED or any(o["book"] == row["book"] and o["day"] < row["day"] for o in out)]
    call("return_loan", code=wrong[0]["code"])
    return {"loan_code": wrong[0]["code"], "reader": wrong[0]["reader"]}
"""
    definitions = """
def wrong_loans(rows):
    first = {}
    for row in rows:
        if row["state"] == "out":
            first[row["book"]] = min(row["day"], first.get(row["book"], row["day"]))
    return [row for row in rows if row["state"] == "out" and row["day"] > first[row["book"]]]


def returned():
    codes = [row["code"] for row in wrong_loans(db["loans"])]
    return [d for d in diff if d["op"] == "update" and d["new"] == {**d["old"], "state": "back"} and d["old"]["code"] in codes]
"""
    atoms = (
        _atom("code", "Report its code", 'answer["loan_code"] in [row["code"] for row in wrong_loans(db["loans"])]'),
        _atom("reader", "its reader", 'answer["reader"] in [row["reader"] for row in wrong_loans(db["loans"])]'),
        _atom("returned", "Return it", "returned()", "state"),
        _atom("order", find, 'not wrong_loans(db["loans"])', "order"),
    )
    return spec, task_of(
        spec,
        kind="diagnose",
        prompt=prompt,
        answer_schema=closed(loan_code=TEXT, reader=TEXT),
        solution=solution,
        overlay=tuple(OverlayRow(table="loans", row=dict(zip(names, row, strict=True))) for row in (near, wrong)),
        ablations={"fixes_first": {"CHECKED": False}, "no_pagination": {"PAGES": False}},
        verifier=Verifier(form="atoms", definitions=definitions, atoms=atoms),
        oracle=Outcome(
            answer={"loan_code": wrong[0], "reader": wrong[2]}, changes=(update("loans", code=wrong[0], state="back"),)
        ),
        probes=(
            _probe(
                "repair/the right loan",
                False,
                {"loan_code": first[0], "reader": first[2]},
                (update("loans", code=first[0], state="back"),),
            ),
        ),
    )


BASES: dict[str, Callable[[int], Pair]] = {
    "read_atoms": read_atoms,
    "read_program": read_program,
    "plan_atoms": plan_atoms,
    "act_atoms": act_atoms,
    "optimise_atoms": optimise_atoms,
    "act_program": act_program,
    "diagnose_atoms": diagnose_atoms,
}
"""Base -> its variants."""
