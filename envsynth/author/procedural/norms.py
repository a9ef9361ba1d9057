"""What a norm becomes in a composed world: whether a row is out of order, which rule it breaks, and putting it in order.

A mechanism states rules that all its rows keep (`mechanism.Norm`). From them, here and once for all mechanisms, come two
derived attributes and one action, each with its three texts; so the task program, operators, renderer and parser need no
notion of a disorder. Which rule is broken, and what then has to be done, is nowhere but in the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envsynth.author.procedural.ir import MEND, Type
from envsynth.author.procedural.mechanism import Action, Breach, Composed, Derived, Norm

AMISS = "amiss_"
"""How the names of boolean attributes begin that say whether a row is out of order."""
RULE = "broken_rule_"
"""How the names of attributes begin that say which rule a row breaks."""
KEPT = "none"
"""What stands for the rule that a row in order breaks."""


def norm_attributes(world: Composed, norm: Norm) -> list[Derived]:
    """Write the attributes of a norm: which rule a row breaks, and whether it is out of order.

    Args:
        world: The composed world.
        norm: The norm of one of its entities.

    Returns:
        Both attributes; the policy of the first one says all rules.
    """
    entity, word = norm.entity, world.word(norm.entity)
    rules = " ".join(f"A {word} breaks the rule '{breach.name}' when {breach.rule}." for breach in norm.breaches)
    listed = "one of these rules" if len(norm.breaches) > 1 else "this rule"
    names = [breach.name for breach in norm.breaches]
    first = (
        "the name of the first of the rules of order above that it breaks"
        if len(names) > 1
        else f"'{' '.join(names)}' when it breaks that rule"
    )
    either = " OR ".join(f"({breach.sql})" for breach in norm.breaches)
    tests = "".join(
        f"    if p_{entity}_{breach.name}(row):\n        return {breach.name!r}\n" for breach in norm.breaches
    )
    judged = "".join(
        f"    if v_{entity}_{breach.name}(db, row):\n        return {breach.name!r}\n" for breach in norm.breaches
    )
    return [
        Derived(
            entity=entity,
            name=f"{AMISS}{entity}",
            label="out of order",
            type=Type("bool"),
            sql=f"({either})",
            plan=f"def d_{AMISS}{entity}(row):\n    return d_{RULE}{entity}(row) != {KEPT!r}\n",
            goal=f"def g_{AMISS}{entity}(db, row):\n    return g_{RULE}{entity}(db, row) != {KEPT!r}\n",
            policy=f"A {word} is out of order when it breaks {listed}, else it is in order. {rules}",
            norm=True,
        ),
        Derived(
            entity=entity,
            name=f"{RULE}{entity}",
            label="initially broken rule",
            type=Type("str", "rule"),
            sql=_rule_sql(norm, "{t}"),
            plan=f"{_joined(breach.plan for breach in norm.breaches)}def d_{RULE}{entity}(row):\n"
            f"{tests}    return {KEPT!r}\n",
            goal=f"{_joined(breach.goal for breach in norm.breaches)}def g_{RULE}{entity}(db, row):\n"
            f"{judged}    return {KEPT!r}\n",
            policy=f"The initially broken rule of a {word} is {first} before anything is changed; it is '{KEPT}' when the {word} is in order.",
            norm=True,
        ),
    ]


def _joined(texts: Iterable[str]) -> str:
    return "".join(text.rstrip("\n") + "\n" for text in dict.fromkeys(texts))


def _rule_sql(norm: Norm, alias: str) -> str:
    cases = " ".join(f"WHEN {breach.sql} THEN '{breach.name}'" for breach in norm.breaches)
    return f"(CASE {cases} ELSE '{KEPT}' END)".replace("{t}", alias)


def norm_action(world: Composed, norm: Norm, actions: Mapping[str, Action]) -> Action:
    """Write the action that puts a row in order: the repair of the first rule that it breaks.

    Args:
        world: The composed world.
        norm: The norm of one of its entities.
        actions: The actions of the mechanism, which repairs are made of.

    Returns:
        The action; of a row in order it is not possible.
    """
    entity, name = norm.entity, f"{MEND}{norm.entity}"
    plan = "".join(_repair_plan(breach, actions[breach.action]) for breach in norm.breaches)
    goal = "".join(_repair_goal(breach, actions[breach.action]) for breach in norm.breaches)
    tables = [table for breach in norm.breaches for table in actions[breach.action].tables]
    return Action(
        name=name,
        phrase=f"put the {world.word(entity)} {{{entity}}} in order",
        params=((entity, Type("row", entity)),),
        oracle_sql=" UNION ALL ".join(_repair_sql(norm, breach, actions[breach.action]) for breach in norm.breaches),
        plan=(
            f"def a_{name}(row):\n    rule = d_{RULE}{entity}(row)\n{plan}    raise RuntimeError('it is in order')\n"
        ),
        goal=f"def s_{name}(db, diff, row):\n    rule = g_{RULE}{entity}(db, row)\n{goal}    return None\n",
        tables=tuple(dict.fromkeys(tables)),
        through=tuple(dict.fromkeys(tool for breach in norm.breaches for tool in actions[breach.action].calls)),
        policy=_repair_policy(world.word(entity), norm),
    )


def _repair_policy(word: str, norm: Norm) -> str:
    ways = list(dict.fromkeys(breach.repair for breach in norm.breaches))
    if len(ways) == 1:
        return f"To put a {word} in order, {ways[0]}; nothing else may change."
    each = " ".join(f"If that rule is '{breach.name}', {breach.repair}." for breach in norm.breaches)
    return f"What puts a {word} in order depends on its initially broken rule; nothing else may change. {each}"


def _repair_sql(norm: Norm, breach: Breach, action: Action) -> str:
    """The changes of the action, where the row breaks this rule first."""
    row = f"{{{norm.entity}}}"
    sql = action.oracle_sql.replace(f"{{{breach.parameter}}}", row)
    for name, words in breach.arguments.items():
        value = words.sql.replace("{t}", "z")
        sql = sql.replace(f"{{{name}}}", f'(SELECT {value} FROM "{norm.entity}" z WHERE z."id" = {row})')
    broken = f'(SELECT {_rule_sql(norm, "y")} FROM "{norm.entity}" y WHERE y."id" = {row})'
    return f"SELECT * FROM ({sql}) WHERE {broken} = '{breach.name}'"


def _repair_plan(breach: Breach, action: Action) -> str:
    given = ["row" if name == breach.parameter else breach.arguments[name].plan for name, _ in action.params]
    return f"    if rule == {breach.name!r}:\n        return a_{breach.action}({', '.join(given)})\n"


def _repair_goal(breach: Breach, action: Action) -> str:
    given = ["row" if name == breach.parameter else breach.arguments[name].goal for name, _ in action.params]
    return f"    if rule == {breach.name!r}:\n        return s_{breach.action}({', '.join(['db', 'diff', *given])})\n"
