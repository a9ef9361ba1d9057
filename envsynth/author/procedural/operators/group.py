"""H3, second form: describe a named row as the one that most or fewest others belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from envsynth.author.procedural.ir import Atom, Attr, GroupBy, Let, Named, Ref, Task, fresh_var, swap, walk
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult, Reject
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

DRAWS = 8
"""Draws of a condition and a total for one relation to one named row."""
MOST_SITES = 3
"""Relations to named rows that are tried."""
GROUP_SKILLS = frozenset({"no_aggregation", "first_match", "no_filter", "wrong_boundary", "no_pagination"})
"""Skills that comparing groups can make necessary."""
_SHIFTED = {">=": ">", ">": ">=", "<=": "<", "<": "<="}


def add_group(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H3: replace a named row by the one for which the number, or a total, of the rows related to it is extreme.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal; the description resolves to the named row alone, and the task changes without its condition.

    Raises:
        Rejected: `no_skill` when it would add none; `no_site` without a named row that others are related to; `no_group` when
            none is singled out.
    """
    if sampler.needed >= GROUP_SKILLS:
        raise Rejected("no_skill", "comparing groups would need no new skill")
    sites = [
        (node, entity, rel)
        for node in walk(task)
        if isinstance(node, Named)
        for entity, rel, _ in sampler.relations(node.entity)
    ]
    if not sites:
        raise Rejected("no_site", "no named row that others are related to")
    var = fresh_var(task)
    for site, entity, rel in sampler.rng.sample(sites, min(MOST_SITES, len(sites))):
        child = swap(task, site, Ref(var))
        for node in _descriptions(sampler, site, entity, rel):
            if _binds(sampler, child, Let(var, node), result):
                params: dict[str, JsonValue] = {"var": var, "entity": entity, "measure": node.agg}
                return Edit(Task((Let(var, node), *child.steps), child.report), sampler.overlay, params)
    raise Rejected("no_group", "no count or total singles out a named row")


def _binds(sampler: Sampler, child: Task, let: Let, result: OracleResult) -> bool:
    """Whether the task changes when the description loses its condition; a row that decides nothing is no site."""
    assert isinstance(let.node, GroupBy)
    try:
        other = sampler.oracle.run(Task((Let(let.var, replace(let.node, atoms=())), *child.steps), child.report))
    except Reject as reason:
        return reason.code == "tie"
    return (other.answer, other.changes) != (result.answer, result.changes)


_Key = int | str


@dataclass(frozen=True)
class _Groups:
    """Rows by the row that they are related to, with what is counted or added up."""

    owners: Mapping[_Key, object]
    """Related row of each row."""
    amounts: Mapping[_Key, object]
    """1, or the attribute that is added up."""
    direction: str
    """`max` or `min`."""

    def totals(self, ids: Sequence[_Key], *, by_first: bool = False) -> dict[object, int]:
        """Number or total of each related row; `by_first`: the amount of its first member alone."""
        found: dict[object, int] = {}
        for row_id in ids:
            owner, amount = self.owners[row_id], self.amounts[row_id]
            if isinstance(amount, int) and not (by_first and owner in found):
                found[owner] = found.get(owner, 0) + amount
        return found

    def taken(self, totals: Mapping[object, int]) -> object:
        """Whom a solver takes: the first of those that come to the most or least."""
        best = (max if self.direction == "max" else min)(totals.values(), default=None)
        return next((owner for owner, total in totals.items() if total == best), None)

    def wins(self, target: _Key, ids: Sequence[_Key]) -> bool:
        """Whether a row comes to more, or less, than each other one."""
        totals = self.totals(ids)
        whole = all(isinstance(self.amounts[row_id], int) and self.owners[row_id] is not None for row_id in ids)
        alone = list(totals.values()).count(totals.get(target, 0)) == 1
        return whole and alone and len(totals) > 1 and self.taken(totals) == target


def _descriptions(sampler: Sampler, site: Named, entity: str, rel: str) -> Iterator[GroupBy]:
    """Comparisons of groups that the named row wins, and that whoever lacks enough further skills gets wrong."""
    target = sampler.row(site)["id"]
    related = sampler.oracle.values(entity, Attr(rel))
    mine = [row_id for row_id, owner in related.items() if owner == target]
    wanted = 2 if "fuzzy_name" in sampler.needed and _is_mistaken(sampler, site) else 1
    for _ in range(DRAWS if mine else 0):
        atom, attr = sampler.atom(entity, sampler.rng.choice(mine)), sampler.measure(entity)
        if atom.attr.name in (rel, attr.name if attr else ""):
            continue
        amounts = sampler.oracle.values(entity, attr) if attr is not None else dict.fromkeys(related, 1)
        members = sampler.oracle.ids(entity, (atom,))
        for direction in sampler.rng.sample(("max", "min"), 2):
            groups = _Groups(related, amounts, direction)
            if not groups.wins(target, members) or groups.wins(target, list(related)):
                continue
            if len(_gains(sampler, groups, entity, atom, target) - sampler.needed) >= wanted:
                yield GroupBy(entity, (atom,), rel, "sum" if attr else "count", direction, attr)


def _gains(sampler: Sampler, groups: _Groups, entity: str, atom: Atom, target: _Key) -> frozenset[str]:
    """Skills without which another row is taken; what depends on pages is left to the ladder."""
    members = sampler.oracle.ids(entity, (atom,))
    taken = {
        "first_match": groups.owners[members[0]],
        "no_aggregation": groups.taken(groups.totals(members, by_first=True)),
        "no_filter": groups.taken(groups.totals(list(groups.owners))),
    }
    if atom.op in _SHIFTED:
        shifted = sampler.oracle.ids(entity, (replace(atom, op=_SHIFTED[atom.op]),))
        taken["wrong_boundary"] = groups.taken(groups.totals(shifted))
    return frozenset(skill for skill, owner in taken.items() if owner != target)


def _is_mistaken(sampler: Sampler, site: Named) -> bool:
    """Whether a careless reader of names takes another row: then the skill to read them is lost with the name."""
    if site.by != "name":
        return False
    alike = [
        row for row in sampler.rows(site.entity) if str(row["name"]).split(" ")[0] == str(site.value).split(" ")[0]
    ]
    return min(alike, key=lambda row: (str(type(row["id"])), row["id"]))["name"] != site.value
