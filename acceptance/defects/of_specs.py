"""Planted defects of records and words: SP1xx and SE5xx."""

from __future__ import annotations

from acceptance.defects.making import Pair, closed
from acceptance.defects.plants import (
    and_atom,
    plant,
    rebased,
    replaced,
    task_with,
    with_prompt,
    with_rows,
    with_solution,
    with_tool,
    with_world,
    without_atom,
)
from envsynth.spec import EnvironmentSpec, TaskVersion


@plant("a row breaks a CHECK", "act_atoms", "SP101")
def _check(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_rows(spec, task, "stock", ("valve", "Moon", -1))


@plant("a foreign key leads nowhere", "read_atoms", "SP101")
def _foreign(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_rows(spec, task, "parts", ("P-9", "S-999", 3, 999))


@plant("a primary key occurs twice", "optimise_atoms", "SP101")
def _twice(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_rows(spec, task, "vans", ("Van Z1", 4, 999))


@plant("the task is for another environment version", "read_program", "SP102")
def _version(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, environment="0" * 32)


@plant("a tool accepts unknown arguments", "act_program", "SP103")
def _open_tool(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    schema = {**closed(code={"type": "string"}), "additionalProperties": True}
    return with_tool(spec, task, "cancel_booking", parameters=schema)


@plant("a tool has no description", "read_atoms", "SP103")
def _mute_tool(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_tool(spec, task, "supplier_facts", description="")


@plant("a tool's source defines another function", "read_atoms", "SP103", "EX201", "EX202", "DF403", "VF309")
def _lost_tool(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_tool(spec, task, "supplier_facts", source="def facts(db, code):\n    return code\n")


@plant("the answer schema is open", "read_program", "SP104")
def _open_answer(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    # One more field is then no matter of form; the verifier still refuses it, so that this is the one defect.
    schema = {**task.answer_schema, "additionalProperties": True}
    program = replaced(
        task.verifier.program, "    if diff:", '    if len(answer) != 2:\n        reasons.append("more")\n    if diff:'
    )
    return spec, task_with(task, answer_schema=schema, verifier={**task.verifier.model_dump(), "program": program})


@plant("the answer schema refuses the right answer", "read_atoms", "SP104", "EX201", "EX202", "VF320")
def _refusing(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, answer_schema=closed(part_code={"type": "string"}, parts_counted={"type": "string"}))


@plant("an atom quotes nothing", "plan_atoms", "SP105")
def _unquoted(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    atoms = [{**atom.model_dump(), "quote": "" if atom.id == "kind" else atom.quote} for atom in task.verifier.atoms]
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "atoms": atoms})


@plant("the verifier demands what nobody was told", "optimise_atoms", "SP105")
def _secret(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return and_atom(spec, task, "none of them may be dear", 'all(row["rate"] < 100 for row in rows)')


@plant("the prompt demands what nobody checks: a limit", "optimise_atoms", "SP107")
def _unchecked_limit(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(
        spec, task, "any best choice is accepted", "none has a rate of more than 999; any best choice is accepted"
    )


@plant("the prompt demands what nobody checks: a place", "plan_atoms", "SP107")
def _unchecked_place(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    name = next(row[0] for row in spec.world.rows["gear"] if row[1] == "map")
    return spec, task_with(task, prompt=f"{name} must be among them. {task.prompt}")


@plant("the prompt demands what nobody checks: a comparison", "plan_atoms", "SP107")
def _unchecked_comparison(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, "; any such", ", and at least two of them are of cloth; any such")


@plant("the verifier ignores a stated limit", "plan_atoms", "VF305", "SP107", "DF401")
def _ignored_limit(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return without_atom(spec, task, "weight")


@plant("two tiers of the rules overlap", "optimise_atoms", "SP108")
def _overlap(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    rule = (
        "If the hire costs less than 300 credits, no deposit is due.",
        "If the hire costs at least 300 credits and at most 600 credits, the deposit is 50 credits.",
        "If the hire costs 600 credits or more, the deposit is 90 credits.",
    )
    return rebased(spec, task, policy=rule)


@plant("the rules leave a hole between two tiers", "read_program", "SP108")
def _hole(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    rule = (
        "When a loan is at most 10 days late, nothing happens.",
        "When a loan is more than 10 days and less than 20 days late, a letter is sent.",
        "When a loan is more than 20 days late, the card is blocked.",
    )
    return rebased(spec, task, policy=rule)


@plant("the rules say nothing below the lowest tier", "act_program", "SP108")
def _below(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    rule = (
        "If the sum paid is at least 100 credits and less than 200 credits, half of it is paid back.",
        "If the sum paid is 200 credits or more, all of it is paid back.",
    )
    return rebased(spec, task, policy=rule)


@plant("the prompt names another key than the schema", "read_program", "SP109")
def _key(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, '"fee_total"', '"fee_sum"')


@plant("a placeholder in the prompt is misspelt", "plan_atoms", "SP109")
def _misspelt(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, "in any order.", 'in any order: {"gear_names": ["gaer_name", ...]}.')


@plant("a limit is loose: over", "read_atoms", "SP110")
def _over(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, "with at least 20 units", "with over 19 units")


@plant("a limit is loose: a range", "act_program", "SP110")
def _range(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return rebased(spec, task, policy=("Bookings of 100-200 credits are paid in two parts.",))


@plant("a relation between chosen rows is not spoken of", "plan_atoms", "SP111")
def _relation(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    columns = [{"name": name, "type": "TEXT", "references": "gear.name"} for name in ("one", "other")]
    tables = [
        *(item.model_dump() for item in spec.world.tables),
        {"name": "incompatibilities", "columns": columns, "primary_key": ["one", "other"]},
    ]
    names = [row[0] for row in spec.world.rows["gear"]]
    return with_world(spec, task, tables=tables, rows={**spec.world.rows, "incompatibilities": [(names[0], names[1])]})


@plant("the answer stands in the prompt", "read_atoms", "SE501", "SP107")
def _in_prompt(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(
        spec, task, 'as "parts_counted"', f'(such as {task.oracle.answer["part_code"]}) as "parts_counted"'
    )


@plant("the answer stands in a tool's documentation", "read_atoms", "SE501")
def _in_docs(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_tool(
        spec, task, "list_parts", description=f"List the parts, such as {task.oracle.answer['part_code']}."
    )


@plant("the answer stands in the answer schema", "act_atoms", "SE501")
def _in_schema(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    depot = {"type": "string", "examples": [task.oracle.answer["depot"]]}
    return spec, task_with(task, answer_schema=closed(depot=depot, left={"type": "integer"}))


@plant("the solution imports the operating system", "plan_atoms", "SE502")
def _import(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_solution(spec, task, "PAGES = True", "def host():\n    import os\n    return os\n\n\nPAGES = True")


@plant("the solution reaches for the database", "read_program", "SE502")
def _database(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_solution(
        spec, task, "PAGES = True", "def peek(call):\n    return call.__globals__['db']\n\n\nPAGES = True"
    )
