"""H6: add rows that a careless reader takes for the right ones."""

from __future__ import annotations

from collections.abc import Sequence

from envsynth.author.procedural.ir import Atom, Choose, Const, GroupBy, Let, Named, Pick, Task, walk
from envsynth.author.procedural.mechanism import Row
from envsynth.author.procedural.operators.edit import Edit, shares, winner
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import Filtered, filtered_lets
from envsynth.errors import Rejected

MAX_OVERLAY = 12
"""Distractor rows of one task version."""
COINING_DRAWS = 60
"""Draws of an id or a name that no row has."""


def add_distractors(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H6: add rows that a careless reader takes for the right ones; the oracle's outcome must not change.

    Either a twin of a named row (same first word, sorts first) while names may still be read carelessly, or near misses
    of the winning row, each failing exactly one condition, with the value at the threshold where there is one.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: `no_site` without a row to imitate; `no_skill` when none would need a new one; `overlay_full`.
    """
    if len(sampler.overlay) >= MAX_OVERLAY:
        raise Rejected("overlay_full", f"{MAX_OVERLAY} distractor rows already")
    twins = [node for node in walk(task) if isinstance(node, Named) and node.by == "name" and " " in str(node.value)]
    if twins and "fuzzy_name" not in sampler.needed:
        return _twin(sampler, task, sampler.rng.choice(twins))
    skills = [(let, node, _near_miss_skills(sampler, node)) for let, node in filtered_lets(task)]
    near = [(let, node) for let, node, found in skills if found - sampler.needed]
    if not near and (twins or any(found for _, _, found in skills)):
        raise Rejected("no_skill", "no row to imitate would need a new skill")
    if not near:
        raise Rejected("no_site", "no row to imitate")
    let, node = sampler.rng.choice(near)
    return _near_misses(sampler, task, result, let, node)


def _near_miss_skills(sampler: Sampler, node: Filtered) -> frozenset[str]:
    """Skills that near misses of a description can make necessary; none when no condition can be missed."""
    atoms = _stored_atoms(sampler, node)
    if not atoms:
        return frozenset()
    found = ["no_filter"]
    if isinstance(node, Pick | Choose):
        found.append("first_match")
    if len(node.atoms) > 1:
        found.append("first_constraint_only")
    if any(atom.op in ("<", ">") for atom in atoms):  # the near miss then lies at the threshold itself
        found.append("wrong_boundary")
    return frozenset(found)


def _stored_atoms(sampler: Sampler, node: Filtered) -> list[Atom]:
    # Rows of entities without names are events (bookings, tickets): a twin of one would change what derived
    # attributes count, so only things that have names get near misses.
    if sampler.world.naming(node.entity) != "name":
        return []
    return [atom for atom in node.atoms if (node.entity, atom.attr.name) not in sampler.world.derived]


def _twin(sampler: Sampler, task: Task, site: Named) -> Edit:
    base = sampler.row(site)
    coined = {
        "id": _earlier_id(sampler, site.entity, base, ()),
        "name": _similar_name(sampler, site.entity, str(base["name"]), ()),
    }
    overlay = (*sampler.overlay, (site.entity, {**base, **coined}))
    return Edit(task, overlay, {"twin_of": str(site.value), "rows": 1})


def _near_misses(sampler: Sampler, task: Task, result: OracleResult, let: Let, node: Filtered) -> Edit:
    wanted = _wanted(sampler, result, let.var, node)
    base = next(row for row in sampler.rows(node.entity) if row["id"] == wanted)
    added: list[Row] = []
    for atom in _stored_atoms(sampler, node):
        changed = _missing_by_one(sampler, node.entity, base, atom)
        if changed is None:
            continue
        row = {**base, **changed, "id": _earlier_id(sampler, node.entity, base, added)}
        row["name"] = _similar_name(sampler, node.entity, str(base["name"]), added)
        if isinstance(node, Pick):
            row.update(_more_tempting(sampler, node, atom, row))
        added.append(row)
    if not added:
        raise Rejected("no_near_miss", f"no condition of {let.var} can be missed by one")
    overlay = (*sampler.overlay, *((node.entity, row) for row in added))
    return Edit(task, overlay, {"var": let.var, "rows": len(added)})


def _wanted(sampler: Sampler, result: OracleResult, var: str, node: Filtered) -> int | str:
    """The id of a right row."""
    if isinstance(node, Pick):
        return winner(result, var)
    if isinstance(node, Choose):
        return sampler.rng.choice((*result.info[var].optimal, result.info[var].nearest)[0])
    if isinstance(node, GroupBy):  # what is overlooked adds to a rival of the most, or to the least
        won, lost = shares(sampler, node, result, var)
        return sampler.rng.choice(lost if node.dir == "max" and lost else won)
    return sampler.rng.choice(result.info[var].ids)


def _missing_by_one(sampler: Sampler, entity: str, base: Row, atom: Atom) -> Row | None:
    """The cell with which a row fails one condition as narrowly as its type allows; None when it has no such value."""
    col = sampler.world.col(entity, atom.attr.name)
    if col.kind == "num":
        by = {">=": -1, ">": 0, "<=": 1, "<": 0}.get(atom.op)
        if by is None or not isinstance(atom.value, Const):
            return None
        missed = int(atom.value.value) + by
        return {col.column: missed} if missed >= 0 else None
    if col.kind in ("fk", "enum") and atom.op == "==":
        cells = [row[col.column] for row in sampler.world.rows[entity]]
        others = [cell for cell in dict.fromkeys(cells) if cell != base[col.column]]
        return {col.column: sampler.rng.choice(others)} if others else None
    return None


def _more_tempting(sampler: Sampler, node: Pick, atom: Atom, row: Row) -> Row:
    """A better value of what the pick looks for, so that a reader who overlooks the condition takes this row."""
    if (node.entity, node.attr.name) in sampler.world.derived or node.attr.name == atom.attr.name:
        return {}
    col = sampler.world.col(node.entity, node.attr.name)
    value = row[col.column]
    if col.kind != "num" or not isinstance(value, int):
        return {}
    return {col.column: value + 3 if node.dir == "max" else max(1, value - 2)}


def _earlier_id(sampler: Sampler, entity: str, base: Row, also: Sequence[Row]) -> int | str:
    """Find an unused id that sorts before the original: a first-match solver must meet the distractor first.

    Raises:
        Rejected: no such id was found.
    """
    taken = dict.fromkeys(row["id"] for row in (*sampler.rows(entity), *also))
    true_id = base["id"]
    for _ in range(COINING_DRAWS):
        if isinstance(true_id, int):
            number = sampler.rng.randint(1, max(1, true_id - 1))
            if number not in taken and number < true_id:
                return number
        else:
            head, _, digits = true_id.rpartition("-")
            low = 10 ** (len(digits) - 1)
            code = f"{head}-{sampler.rng.randint(low, max(low, int(digits) - 1))}"
            if code not in taken and code < true_id:
                return code
    raise Rejected("no_id", f"no free id before {true_id!r}")


def _similar_name(sampler: Sampler, entity: str, name: str, also: Sequence[Row]) -> str:
    """Coin an unused name with the same first word and a last word that differs in its end.

    Raises:
        Rejected: no such name was found.
    """
    taken = dict.fromkeys(row.get("name") for row in (*sampler.rows(entity), *also))
    *head, last = name.split(" ")
    for _ in range(COINING_DRAWS):
        vowel = sampler.rng.choice([letter for letter in "aeiou" if letter != last[-1]])
        candidate = " ".join([*head, last[:-1] + vowel + sampler.rng.choice("nrst")])
        if candidate not in taken:
            return candidate
    raise Rejected("no_name", f"no free name beside {name!r}")
