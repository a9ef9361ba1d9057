"""Planted defects of verifiers, too loose and too strict: VF3xx."""

from __future__ import annotations

from acceptance.defects.making import Pair, closed
from acceptance.defects.plants import (
    and_atom,
    plant,
    replaced,
    task_with,
    with_atom,
    with_definitions,
    with_program,
    with_solution,
    with_world,
    without_atom,
)
from envsynth.spec import EnvironmentSpec, TaskVersion


@plant("nothing is left to do", "act_program", "VF301", "VF302", "VF308", "VF309", "DF401")
def _already_done(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    rows = {"bookings": tuple((code, who, "firm", paid) for code, who, _, paid in spec.world.rows["bookings"])}
    program = replaced(
        task.verifier.program,
        'not same(answer["cancelled"], len(wanted)) or not same(answer["paid_total"], sum(row["paid"] for row in wanted))',
        "answer",
    )
    solution = replaced(
        task.solution, '{"cancelled": len(found), "paid_total": sum(row["paid"] for row in found)}', "{}"
    )
    prompt = f"{task.prompt.partition('.')[0]}. Answer with an empty object."
    done = task_with(
        task,
        prompt=prompt,
        answer_schema=closed(),
        solution=solution,
        verifier={**task.verifier.model_dump(), "program": program},
        oracle={"answer": {}, "changes": ()},
        probes=(),
    )
    return with_world(spec, done, rows=rows)


@plant("empty values pass", "read_program", "VF301", "VF302")
def _empty(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(
        spec,
        task,
        "    reasons = []",
        '    if not any(answer.values()):\n        return {"ok": True}\n    reasons = []',
    )


@plant(
    "any answer of the right form passes",
    "read_program",
    "VF303",
    "VF301",
    "VF302",
    "VF304",
    "VF305",
    "VF309",
    "VF310",
    "DF401",
)
def _anything(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(spec, task, "    reasons = []", '    return {"ok": True}\n    reasons = []')


@plant("a guessed number passes", "act_atoms", "VF303", "VF310", "VF320")
def _guessed(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_atom(spec, task, "left", 'answer["left"] ==', '0 <= answer["left"] != -')


@plant("a field is ignored", "read_atoms", "VF303", "VF310", "VF320")
def _field(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_atom(spec, task, "parts_counted", "== len(found)", ">= 0")


@plant("the answer is matched as a part of a text", "read_atoms", "VF303", "SE503", "VF310")
def _substring(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    loose = 'any(r["code"] in answer["part_code"] for r in found if r["price"] == low)'
    return with_atom(
        spec, task, "part_code", 'answer["part_code"] in [r["code"] for r in found if r["price"] == low]', loose
    )


@plant("numbers are compared with a tolerance that nobody stated", "read_program", "VF303")
def _tolerance(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(
        spec, task, 'not same(answer["fee_total"], sum(fees))', 'abs(answer["fee_total"] - sum(fees)) > 5'
    )


@plant("a choice may name one thing twice", "plan_atoms", "VF303")
def _double(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_atom(spec, task, "count", "len(set(names)) == len(names) == ", "")


@plant("the verifier breaks on an unknown name", "plan_atoms", "VF303", "VF301", "VF302", "VF309", "VF310")
def _breaks(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_definitions(
        spec,
        task,
        'rows = [row for name in names for row in db["gear"] if same(row["name"], name)]',
        'rows = [{row["name"]: row for row in db["gear"]}[name] for name in names]',
    )


@plant("a read task may change the world", "read_program", "VF304")
def _read_frame(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(spec, task, "if diff:", "if diff is None:")


@plant("an extra write is accepted", "act_atoms", "VF304")
def _extra(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_definitions(spec, task, "return new + less if", "return list(diff) if")


@plant("the amount that is written is not checked", "act_atoms", "VF304")
def _amount(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_definitions(spec, task, '["valve", 5, ', '["valve", d["new"]["units"], ')


@plant("a write may be made twice", "act_atoms", "VF304")
def _made_twice(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_definitions(spec, task, '== answer["depot"]][:1]', '== answer["depot"]]')


@plant("the wrong status will do", "act_program", "VF305")
def _any_status(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    spec, task = with_program(spec, task, 'd["new"]["status"] != "cancelled"', 'd["new"]["status"] == "tentative"')
    wrong = [{**change, "row": {**change["row"], "status": "firm"}} for change in task.oracle.model_dump()["changes"]]
    probe = {"name": "constraint/status", "accept": False, "outcome": {"answer": task.oracle.answer, "changes": wrong}}
    return spec, task_with(task, probes=[*(item.model_dump() for item in task.probes), probe])


@plant("a limit is checked one too low", "read_program", "VF305", "EX201", "EX202")
def _boundary(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(spec, task, 'row["days"] > 14', 'row["days"] >= 14')


@plant("a limit is checked one too high", "plan_atoms", "VF306")
def _strict_limit(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    light = "    found.sort(key=lambda row: row['weight'])\n    if not WEIGHED:"
    return with_atom(*with_solution(spec, task, "    if not WEIGHED:", light), "weight", "<=", "<")


@plant("a tied choice is refused", "optimise_atoms", "VF306", "EX208")
def _tied(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    tied = [row[0] for row in spec.world.rows["vans"] if row[0] in ("Van Z3", "Van Z7")]
    own, other = ({"van_names": ["Van Z5", "Van Z1", name]} for name in tied)
    probe = {"name": "alternative/other tied", "accept": True, "outcome": {"answer": other}}
    known = task_with(task, oracle={"answer": own}, probes=[probe])
    return and_atom(spec, known, "any best choice is accepted", f"{tied[1]!r} not in names")


@plant("another order of the same choice is refused", "optimise_atoms", "VF306")
def _order(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return and_atom(
        spec, task, "as low as possible", '[row["rate"] for row in rows] == sorted(row["rate"] for row in rows)'
    )


@plant("half a job pays: the answer alone", "act_program", "VF307", "VF304", "VF305")
def _half(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_program(spec, task, "    done = [", "    return {'ok': not reasons, 'reasons': reasons}\n    done = [")


@plant("the answer is easily guessed", "read_atoms", "VF308", "VF302")
def _guessable(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    done = without_atom(spec, task, "part_code")[1]
    prompt = replaced(done.prompt, 'Report its code as "part_code" and how many', "Report how many")
    return spec, task_with(
        done,
        prompt=prompt,
        answer_schema=closed(parts_counted={"type": "integer"}),
        solution=replaced(done.solution, '"part_code": best["code"], ', ""),
        oracle={"answer": {"parts_counted": task.oracle.answer["parts_counted"]}, "changes": ()},
        probes=(),
    )


@plant("what order means is true of everything", "diagnose_atoms", "VF312")
def _always_in_order(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_atom(spec, task, "order", 'not wrong_loans(db["loans"])', 'len(db["loans"]) > 0')


@plant("nothing says what order is", "diagnose_atoms", "VF312")
def _no_order(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return without_atom(spec, task, "order")


@plant("the environment is out of order by itself", "diagnose_atoms", "VF312")
def _own_disorder(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    rows = (*spec.world.rows["loans"], *(tuple(row.row.values()) for row in task.overlay))
    return with_world(spec, task_with(task, overlay=()), rows={**spec.world.rows, "loans": rows})


@plant("the repair of another row is accepted", "diagnose_atoms", "VF312")
def _any_repair(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    loose = with_definitions(spec, task, ' and d["old"]["code"] in codes', "")[1]
    return with_atom(spec, loose, "order", 'not wrong_loans(db["loans"])', 'len(wrong_loans(db["loans"])) < 2')


@plant("the repair leaves the disorder", "diagnose_atoms", "VF312", "EX201", "EX202")
def _still_broken(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    strict = 'not [row for row in db["loans"] if row["state"] == "out"]'
    return with_atom(spec, task, "order", 'not wrong_loans(db["loans"])', strict)


@plant("a condition excludes nothing", "plan_atoms", "VF320")
def _vacuous(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    limit = task.verifier.atoms[2].quote.split()[4]
    text = task.to_json().replace(limit, "99000")
    found = TaskVersion.from_json(text)
    probes = [item.model_dump() for item in found.probes if item.name != "constraint/weight"]
    return spec, task_with(found, probes=probes, ablations={})


@plant("the verifier evaluates the answer's text", "read_atoms", "SE503", "VF310")
def _evaluated(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    quoted = """eval('"' + answer["part_code"] + '"') in ["""
    return with_atom(spec, task, "part_code", 'answer["part_code"] in [', quoted)
