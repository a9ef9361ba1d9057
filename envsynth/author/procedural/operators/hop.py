"""H2: replace a named row by a description of it."""

from __future__ import annotations

from envsynth.author.procedural.ir import Let, Named, Pick, Ref, Task, To, fresh_var, swap, walk
from envsynth.author.procedural.mechanism import Row
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

HOP_DRAWS = 16
"""Draws of an attribute and a condition under which a named row is an extreme."""
EXTREME_SHARE = 0.65
"""Share of hops that try to describe the row as an extreme, where the parent needs the skills of that already."""
EXTREME_SKILLS = ("first_match", "no_filter")
"""Skills that describing a row as an extreme makes necessary; following a relation hardly ever makes one so."""


def add_hop(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H2: replace a named row by a description that resolves to it, uniquely.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no named row, or no description denotes it alone.
    """
    sites = [node for node in walk(task) if isinstance(node, Named)]
    if not sites:
        raise Rejected("no_site", "no named row")
    site = sampler.rng.choice(sites)
    target = sampler.row(site)
    node: To | Pick | None = None
    aimed = any(skill not in sampler.needed for skill in EXTREME_SKILLS)
    if aimed or sampler.rng.random() < EXTREME_SHARE:
        node = _extreme_hop(sampler, site, target)
    if node is None and not aimed:
        node = _relation_hop(sampler, site, target)
    if node is None:
        raise Rejected("no_hop", f"no description denotes {site.value!r} alone")
    var = fresh_var(task)
    child = swap(task, site, Ref(var))
    how = "extreme" if isinstance(node, Pick) else "relation"
    return Edit(Task((Let(var, node), *child.steps), child.report), sampler.overlay, {"var": var, "hop": how})


def _relation_hop(sampler: Sampler, site: Named, target: Row) -> To | None:
    """Describe the row as what a relation of another named row leads to."""
    options: list[tuple[str, str, Row]] = []
    for entity, cols in sampler.world.tables.items():
        for col in cols:
            if col.kind == "fk" and col.ref == site.entity:
                pointing = [row for row in sampler.rows(entity) if row[col.column] == target[col.refkey]]
                options += [(entity, col.name, row) for row in pointing]
    named = [option for option in options if sampler.world.naming(option[0]) == "name"]
    if not options:
        return None
    entity, relation, row = sampler.rng.choice(named or options)
    return To(sampler.named(entity, row), relation)


def _extreme_hop(sampler: Sampler, site: Named, target: Row) -> Pick | None:
    """Describe the row as the largest or smallest by some attribute among rows that meet a condition."""
    numeric = sampler.attr_names(site.entity, ("num",))
    for _ in range(HOP_DRAWS if numeric else 0):
        attr = sampler.attr(site.entity, sampler.rng.choice(numeric))
        atoms = () if sampler.rng.random() < 0.25 else (sampler.atom(site.entity, target["id"]),)
        ids = sampler.oracle.ids(site.entity, atoms)
        values = sampler.numbers(site.entity, ids, attr)
        if len(ids) < 3 or target["id"] not in values or len(values) < len(ids):
            continue
        if ids[0] == target["id"] and "first_match" not in sampler.needed:
            continue  # whoever takes the first row that fits would be right
        mine = values.pop(target["id"])
        if all(mine > value for value in values.values()):
            return Pick(site.entity, atoms, "max", attr)
        if all(mine < value for value in values.values()):
            return Pick(site.entity, atoms, "min", attr)
    return None
