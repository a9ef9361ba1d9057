"""H12: ask a second question whose answer depends on what the first one found."""

from __future__ import annotations

from envsynth.author.procedural.ir import Atom, Attr, Let, Ref, Step, Sum, Task, check, fresh_var
from envsynth.author.procedural.operators.edit import Edit, winner
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import chosen_lets
from envsynth.errors import Rejected

DRAWS = 24
"""Draws of the second question."""
MOST_FIELDS = 4
"""Fields of an answer."""


def couple(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H12: report, besides, the sum of an attribute over the rows that belong to the row which the task has found.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal; the data dependency is a relation to the bound row.

    Raises:
        Rejected: no bound row that others belong to, or the answer is wide already.
    """
    if len(task.report) >= MOST_FIELDS or chosen_lets(task):
        raise Rejected("no_site", "the answer is wide already, or a set that is left to the actor")
    rows = [(var, type_.detail) for var, type_ in check(task, sampler.world).items() if type_.kind == "row"]
    sites = [
        (var, entity, col.name)
        for var, owner in rows
        for entity, cols in sampler.world.tables.items()
        for col in cols
        if col.kind == "fk" and col.ref == owner and sampler.additive(entity)
    ]
    if not sites:
        raise Rejected("no_site", "no bound row has rows that belong to it")
    var, entity, relation = sampler.rng.choice(sites)
    target = winner(result, var)
    for _ in range(DRAWS):
        belongs = Atom(Attr(relation), "==", Ref(var))
        attr = sampler.attr(entity, sampler.rng.choice(sampler.additive(entity)))
        field = f"sum_of_{sampler.world.attr_slug(entity, attr.name)}"
        if field in [name for name, _ in task.report]:
            continue
        mine = [
            row["id"]
            for row in sampler.rows(entity)
            if sampler.oracle.value(entity, row["id"], Attr(relation)) == target
        ]
        if len(mine) < 2:
            raise Rejected("too_few", f"fewer than two {entity} belong to the row found")
        atoms = (belongs, sampler.atom(entity, sampler.rng.choice(mine)))
        if atoms[1].attr.name == relation:
            continue
        new = fresh_var(task)
        steps = _before_writes(task, Let(new, Sum(entity, atoms, attr)))
        return Edit(Task(steps, (*task.report, (field, Ref(new)))), sampler.overlay, {"var": new, "entity": entity})
    raise Rejected("no_question", f"no second question about {entity}")


def _before_writes(task: Task, let: Let) -> tuple[Step, ...]:
    """The steps with the new one after the last description, so that it reads before anything is changed."""
    lets = [index for index, step in enumerate(task.steps) if isinstance(step, Let)]
    place = lets[-1] + 1
    return (*task.steps[:place], let, *task.steps[place:])
