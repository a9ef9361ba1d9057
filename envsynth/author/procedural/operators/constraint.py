"""H1: add a condition to a description."""

from __future__ import annotations

from collections.abc import Sequence

from envsynth.author.procedural.ir import Atom, Choose, GroupBy, Pick, Task
from envsynth.author.procedural.operators.edit import Edit, shares, winner
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import Filtered, filtered_lets, with_atoms
from envsynth.errors import Rejected

MAX_ATOMS = 4
"""Conditions on one description; more read badly."""
ATOM_DRAWS = 12
"""Draws of a condition that fits its witnesses, on an attribute that the description does not test yet."""


def add_constraint(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H1: add a condition to a description.

    On a pick it must be false of the old winner: a condition that is true of the winner never changes a maximum, so it
    could never bind. On a count or sum it is true of some member; on a choice, of all rows of one optimal set; where groups
    are compared, false of a member of the winning group when the most wins, and of another group when the least does.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no site, or no new attribute.
    """
    sites = filtered_lets(task)
    if not sites:
        raise Rejected("no_site", "no description with conditions")
    let, node = sampler.rng.choice(sites)
    if len(node.atoms) >= MAX_ATOMS:
        raise Rejected("wide", f"{let.var} has {MAX_ATOMS} conditions already")
    if not isinstance(node, Choose) and len(result.info[let.var].ids) < 3:
        raise Rejected("too_few", f"{let.var} has fewer than 3 members")
    used = [atom.attr.name for atom in node.atoms]
    for _ in range(ATOM_DRAWS):
        rows, truth = _witnesses(sampler, node, let.var, result)
        atom = sampler.atom(node.entity, rows[0], truth=truth)
        if atom.attr.name in used or not _true_of_all(sampler, node.entity, rows[1:], atom):
            continue
        child = with_atoms(task, let, node, (*node.atoms, atom))
        return Edit(child, sampler.overlay, {"var": let.var, "attribute": atom.attr.name, "op": atom.op})
    raise Rejected("no_atom", f"every draw for {let.var} repeats an attribute or leaves no set")


def _witnesses(sampler: Sampler, node: Filtered, var: str, result: OracleResult) -> tuple[list[int | str], bool]:
    """The rows that decide on a new condition, and the truth that it must have of them."""
    info = result.info[var]
    if isinstance(node, Pick):
        return [winner(result, var)], False
    if isinstance(node, GroupBy):
        won, lost = shares(sampler, node, result, var)
        return [sampler.rng.choice(won if node.dir == "max" or not lost else lost)], False
    if isinstance(node, Choose) and info.nearest:
        return [sampler.rng.choice(info.nearest)], False
    if isinstance(node, Choose):
        chosen = sampler.rng.choice(info.optimal)
        return sampler.rng.sample(chosen, len(chosen)), True
    return [sampler.rng.choice(info.ids)], True


def _true_of_all(sampler: Sampler, entity: str, rows: Sequence[int | str], atom: Atom) -> bool:
    if not rows:
        return True
    met = sampler.oracle.ids(entity, (atom,))
    return all(row_id in met for row_id in rows)
