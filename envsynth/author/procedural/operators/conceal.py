"""H10: conceal which row is meant behind a description that only one row fits."""

from __future__ import annotations

from envsynth.author.procedural.ir import Atom, Let, Named, Only, Ref, Task, fresh_var, swap, walk
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

DRAWS = 24
"""Draws of a condition that is true of the row."""
MOST = 3
"""Conditions of a description."""


def conceal(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H10: replace a named row by conditions that it alone meets; none of them can be left out.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no named row, or no few conditions that it alone meets.
    """
    sites = [node for node in walk(task) if isinstance(node, Named)]
    if not sites:
        raise Rejected("no_site", "no named row")
    site = sampler.rng.choice(sites)
    target = sampler.row(site)["id"]
    atoms = _description(sampler, site.entity, target)
    if atoms is None:
        raise Rejected("no_description", f"no {MOST} conditions denote {site.value!r} alone")
    var = fresh_var(task)
    child = swap(task, site, Ref(var))
    steps = (Let(var, Only(site.entity, atoms)), *child.steps)
    return Edit(Task(steps, child.report), sampler.overlay, {"var": var, "conditions": len(atoms)})


def _description(sampler: Sampler, entity: str, target: int | str) -> tuple[Atom, ...] | None:
    """Conditions that only this row meets: each draw that leaves fewer rows is kept, what became idle is dropped."""
    atoms: tuple[Atom, ...] = ()
    left = [row["id"] for row in sampler.rows(entity)]
    for _ in range(DRAWS):
        atom = sampler.atom(entity, target)
        if atom.attr.name in [other.attr.name for other in atoms]:
            continue
        ids = sampler.oracle.ids(entity, (*atoms, atom))
        if len(ids) < len(left) and target in ids:
            atoms, left = (*atoms, atom), ids
        if len(left) == 1:
            needed = _without_idle(sampler, entity, atoms)
            return needed if 2 <= len(needed) <= MOST else None
    return None


def _without_idle(sampler: Sampler, entity: str, atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
    for atom in atoms:
        rest = tuple(other for other in atoms if other is not atom)
        if rest and len(sampler.oracle.ids(entity, rest)) == 1:
            return _without_idle(sampler, entity, rest)
    return atoms
