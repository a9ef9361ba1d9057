"""Write tools of an approval world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.approval.bindings import HEAVY_POINTS, STEP, Bindings, verdicts
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    fetch_source,
    id_schema,
    insert_source,
)


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def open_source(self) -> str:
        """Tool source that refuses a request that is not open."""
        late = f"request['due'] < {self.today!r}" if self.due else f"request['day'] < {self.filed_from!r}"
        return (
            "    if request['stage'] != 'submitted':\n"
            "        raise Refusal('conflict', 'its stage is ' + request['stage'])\n"
            f"    if {late}:\n"
            "        raise Refusal('conflict', 'it has lapsed')\n"
        )

    def signed_source(self) -> str:
        """Tool source that binds `signed`: who has approved the request so that it counts."""
        fresh = ' AND "day" >= ?' if self.stale_days else ""
        values = f", {self.counts_from!r}" if self.stale_days else ""
        query = (
            f'SELECT DISTINCT "{self.decider}" AS "decider" FROM "decision" WHERE "{self.request}" = ?'
            f' AND "verdict" = ?{fresh}'
        )
        return (
            f"    found = db.execute({query!r}, (request[{self.request_key!r}], 'approve'{values})).fetchall()\n"
            "    signed = [row['decider'] for row in found]\n"
        )

    def level_source(self) -> str:
        """Tool source that refuses a decider whose level is too low; only a strict desk looks at it."""
        if not self.strict:
            return ""
        heavy = f"    needed += {HEAVY_POINTS} * (request['kind'] == 'contract')\n" if self.heavy else ""
        source = (
            self.post_source("level", f"decider[{self.holder_key!r}]", "    ")
            + f"    needed = {self.levels[0]} + {STEP} * sum(request['amount'] {self.reach} limit for limit in {self.limits})\n"
            + heavy
        )
        if self.delegations:
            query = f'SELECT "{self.giver}" AS "giver" FROM "delegation" WHERE "{self.taker}" = ? AND "until" >= ?'
            who = f'SELECT * FROM "person" WHERE "{self.giver_key}" = ?'
            source += (
                f"    for row in db.execute({query!r}, (decider[{self.taker_key!r}], {self.today!r})).fetchall():\n"
                f"        giver = db.execute({who!r}, (row['giver'],)).fetchone()\n"
                f"        if giver[{self.requester_key!r}] != request[{self.requester!r}]:\n"
                + self.post_source("lent", f"giver[{self.holder_key!r}]", "            ")
                + f"            level = max(level, lent - {self.loss})\n"
            )
        return f"{source}    if level < needed:\n        raise Refusal('conflict', 'the level of the decider is too low')\n"

    def post_source(self, variable: str, holder: str, indent: str) -> str:
        """Tool source that binds the highest level of the posts of a person, 0 without any."""
        term, value = (' AND "until" >= ?', f", {self.today!r}") if self.terms else ("", "")
        query = f'SELECT "level" FROM "post" WHERE "{self.holder}" = ?{term} ORDER BY "level" DESC LIMIT 1'
        return (
            f"{indent}top = db.execute({query!r}, ({holder}{value},)).fetchone()\n"
            f"{indent}{variable} = top['level'] if top is not None else 0\n"
        )

    def stage_source(self) -> str:
        """Tool source that sets the stage after a decision."""
        statement = 'UPDATE "request" SET "stage" = ? WHERE "id" = ?'
        source = "    stage = request['stage']\n    if verdict == 'reject':\n        stage = 'rejected'\n"
        if not self.closing:
            source += (
                f"    enough = 2 if request['amount'] >= {self.double_from} else 1\n"
                "    if verdict == 'approve' and len(signed) + 1 >= enough:\n"
                "        stage = 'approved'\n"
            )
        return source + (
            f"    if stage != request['stage']:\n        db.execute({statement!r}, (stage, request['id']))\n"
        )

    def decide_draft(self) -> ToolDraft:
        """The tool that records a decision."""
        world, request = self.world, self.request_argument
        cells = {
            self.request: f"request[{self.request_key!r}]",
            self.decider: f"decider[{self.decider_key!r}]",
            "verdict": "verdict",
            "day": repr(self.today),
        }
        verdict = {"type": "string", "enum": list(verdicts(world.rules)), "description": "what the decider says"}
        return ToolDraft(
            name=self.decide_tool,
            effect="write",
            description=f"Record today's {world.word('decision')} of a {world.word('person')} on a {world.word('request')}.",
            parameters=arguments_schema(
                {
                    request: id_schema(world, "request"),
                    "decider_id": {
                        **id_schema(world, "person"),
                        "description": f"id of the deciding {world.word('person')}",
                    },
                    "verdict": verdict,
                }
            ),
            returns=f"id: id of the new {world.word('decision')}; stage: stage of the {world.word('request')} after it.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.decide_tool}(db, *, {request}, decider_id, verdict):\n"
                + fetch_source(world, "request", "request")
                + fetch_source(world, "person", "decider", "decider_id")
                + self.open_source()
                + f"    if decider[{self.requester_key!r}] == request[{self.requester!r}]:\n"
                "        raise Refusal('invalid', 'nobody decides what they have requested')\n"
                + self.signed_source()
                + f"    if decider[{self.decider_key!r}] in signed:\n"
                "        raise Refusal('conflict', 'this decider has approved it already')\n"
                + self.level_source()
                + insert_source(world, "decision", cells)
                + self.stage_source()
                + "    return {'id': new_id, 'stage': stage}\n"
            ),
        )

    def close_draft(self) -> ToolDraft:
        """The tool that closes a request as approved."""
        world, request = self.world, self.request_argument
        statement = 'UPDATE "request" SET "stage" = ? WHERE "id" = ?'
        enough = f"2 if request['amount'] >= {self.double_from} else 1" if self.strict else "1"
        return ToolDraft(
            name=self.close_tool,
            effect="write",
            description=f"Close a {world.word('request')} as approved.",
            parameters=arguments_schema({request: id_schema(world, "request")}),
            returns=f"id: id of the {world.word('request')}; stage: its new stage.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.close_tool}(db, *, {request}):\n"
                + fetch_source(world, "request", "request")
                + self.open_source()
                + self.signed_source()
                + f"    if len(signed) < ({enough}):\n"
                "        raise Refusal('conflict', 'approvals are missing')\n"
                f"    db.execute({statement!r}, ('approved', request['id']))\n"
                "    return {'id': request['id'], 'stage': 'approved'}\n"
            ),
        )

    def submit_draft(self) -> ToolDraft:
        """The tool that submits a draft."""
        world, request = self.world, self.request_argument
        statement = 'UPDATE "request" SET "day" = ?, "stage" = ? WHERE "id" = ?'
        stage = {"type": "string", "enum": ["submitted", "approved"], "description": "stage to enter it in"}
        source = (
            f"def {self.submit_tool}(db, *, {request}{', stage' if self.petty else ''}):\n"
            + fetch_source(world, "request", "request")
            + "    if request['stage'] != 'draft':\n"
            "        raise Refusal('conflict', 'its stage is ' + request['stage'])\n"
        )
        if self.due:
            source += f"    if request['due'] < {self.today!r}:\n        raise Refusal('conflict', 'its due day has passed')\n"
        if self.petty and self.strict:
            source += (
                f"    if stage == 'approved' and request['amount'] > {self.petty}:\n"
                "        raise Refusal('invalid', 'it needs approvals')\n"
            )
        new_stage = "stage" if self.petty else "'submitted'"
        return ToolDraft(
            name=self.submit_tool,
            effect="write",
            description=f"Submit a {world.word('request')} that is a draft.",
            parameters=arguments_schema(
                {request: id_schema(world, "request"), **({"stage": stage} if self.petty else {})}
            ),
            returns=f"id: id of the {world.word('request')}; stage: its new stage.",
            errors=("not_found", "invalid", "conflict") if self.petty and self.strict else ("not_found", "conflict"),
            source=(
                f"{source}    db.execute({statement!r}, ({self.today!r}, {new_stage}, request['id']))\n"
                f"    return {{'id': request['id'], 'stage': {new_stage}}}\n"
            ),
        )

    def delegate_draft(self) -> ToolDraft:
        """The tool that delegates."""
        world = self.world
        person, delegation = world.word("person"), world.word("delegation")
        twice = f'SELECT 1 AS "hit" FROM "delegation" WHERE "{self.giver}" = ? AND "{self.taker}" = ? AND "until" >= ?'
        cells = {
            self.giver: f"giver[{self.giver_key!r}]",
            self.taker: f"taker[{self.taker_key!r}]",
            "until": "until",
        }
        return ToolDraft(
            name=self.delegate_tool,
            effect="write",
            description=f"Delegate the signing level of a {person} to another one: makes a {delegation}.",
            parameters=arguments_schema(
                {
                    "giver_id": {**id_schema(world, "person"), "description": f"id of the {person} who delegates"},
                    "taker_id": {**id_schema(world, "person"), "description": f"id of the {person} who receives it"},
                    "until": {
                        "type": "string",
                        "pattern": r"^\d{4}-\d{2}-\d{2}$",
                        "description": "last day, YYYY-MM-DD",
                    },
                }
            ),
            returns=f"id: id of the new {delegation}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.delegate_tool}(db, *, giver_id, taker_id, until):\n"
                + fetch_source(world, "person", "giver", "giver_id")
                + fetch_source(world, "person", "taker", "taker_id")
                + "    if giver['id'] == taker['id']:\n"
                "        raise Refusal('invalid', 'giver and taker must differ')\n"
                f"    if until < {self.today!r}:\n"
                "        raise Refusal('invalid', 'the last day lies in the past')\n"
                + self.post_source("level", f"giver[{self.holder_key!r}]", "    ")
                + "    if level == 0:\n"
                "        raise Refusal('conflict', 'the giver has no level of their own')\n"
                f"    pair = (giver[{self.giver_key!r}], taker[{self.taker_key!r}], {self.today!r})\n"
                f"    if db.execute({twice!r}, pair).fetchone() is not None:\n"
                "        raise Refusal('conflict', 'this delegation exists already')\n"
                + insert_source(world, "delegation", cells)
                + "    return {'id': new_id}\n"
            ),
        )
