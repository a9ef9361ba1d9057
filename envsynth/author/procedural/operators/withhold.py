"""H11: withhold a convenience, the tool that finds a row by its name; the listing, page by page, tells it as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.ir import Named, Task, walk
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.delivery import Delivery
from envsynth.errors import Rejected

WITHHOLD_SKILL = "no_pagination"
"""The skill that takes the place of the tool."""


def withhold(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H11: take away the tool that finds a row by the name that the task calls it by; program and outcome stay.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal; its solution is compiled without the tool.

    Raises:
        Rejected: `no_site` where no named row has such a tool; `no_skill` where pages must be turned already; `nonbinding`
            where the rows stand on the first pages of their listings.
    """
    del result
    found = [node for node in walk(task) if isinstance(node, Named) and node.by == "name"]
    sites = [(node, tool) for node in found if (tool := sampler.world.access[node.entity].find_tool) is not None]
    if not sites:
        raise Rejected("no_site", "no row is found by its name")
    if WITHHOLD_SKILL in sampler.needed:
        raise Rejected("no_skill", "the parent needs all pages of listings already")
    tools = list(dict.fromkeys(tool for node, tool in sites if _behind_the_first_page(sampler, node)))
    if not tools:
        raise Rejected("nonbinding", "the rows stand on the first pages of their listings")
    tool = sampler.rng.choice(tools)
    return Edit(task, sampler.overlay, {"tool": tool}, delivery=Delivery(withheld=(tool,)))


def _behind_the_first_page(sampler: Sampler, node: Named) -> bool:
    """Whether a listing, which is ordered by id, shows the row on a later page only."""
    key = sampler.row(node)["id"]
    before = [row for row in sampler.rows(node.entity) if _order(row["id"]) < _order(key)]
    return len(before) >= sampler.world.style.page_size


def _order(key: int | str) -> tuple[bool, int | str]:
    return isinstance(key, str), key


def without_tools(world: Composition, withheld: Sequence[str]) -> Composition:
    """The world as a solver knows it from whom tools are withheld: names are found in listings.

    Args:
        world: The composed world; it stays as it is.
        withheld: Tools that find rows by their names.

    Returns:
        The world itself where nothing is withheld, else a copy with less access.
    """
    if not withheld:
        return world
    access = {
        entity: replace(item, find_tool=None) if item.find_tool in withheld else item
        for entity, item in world.access.items()
    }
    return replace(world, access=access)
