"""The parser: sentence forms with slots, one reading per sentence, then the type check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envsynth.author.procedural.ir import (
    DECISION,
    Asked,
    Budget,
    Caution,
    Choose,
    Con,
    Const,
    Count,
    ForEach,
    GroupBy,
    If,
    IRTypeError,
    Let,
    Named,
    Node,
    Of,
    Only,
    Operand,
    Pick,
    Reach,
    Ref,
    Step,
    Sum,
    Task,
    To,
    Try,
    Type,
    check,
)
from envsynth.author.procedural.parse.brief import parse_brief
from envsynth.author.procedural.parse.docs import Docs, Label, pieces
from envsynth.author.procedural.parse.errors import ParseError
from envsynth.author.procedural.parse.forms import EXTREME_COUNTS, EXTREMES, FORMS, MOST, NUMBER, SUCH
from envsynth.author.procedural.parse.reports import Report, Reports, Slots

_FORMS = tuple((kind, pieces(text)) for kind, texts in FORMS.items() for text in texts)
_COUNT = re.compile(r"[1-9]\d*")


def parse(text: str, docs: Mapping[str, Any]) -> Task:
    """Read a prompt back into the program that it states.

    Args:
        text: The prompt, whole.
        docs: Public docs of its world: entities, attrs, actions, units; with `user`, what the user says by topic. Without it,
            what the user knows stays open in the program.

    Returns:
        The program; it is well-typed.

    Raises:
        ParseError: a part of the text is not understood, has two meanings, or states an ill-typed program.
    """
    if docs.get("language") == "brief":
        return parse_brief(text, docs)
    return _Sentences(text, Docs(docs)).task()


class _Sentences(Reports):
    """Reads the sentences of one prompt."""

    def __init__(self, text: str, docs: Docs) -> None:
        super().__init__(text, docs)
        self.chosen: dict[str, Choose] = {}
        self.readers: dict[str, Callable[[int, Slots], Iterator[tuple[Slots, int]]]] = {
            "{new}": self.slot_new,
            "{one}": self.slot_one,
            "{row}": self.slot_row,
            "{extreme}": self.slot_extreme,
            "{attr}": self.slot_attr,
            "{rel}": self.slot_relation,
            "{key}": self.slot_key,
            "{most}": self.slot_most,
            "{number}": self.slot_number,
            "{none}": self.slot_none,
            "{src}": self.slot_source,
            "{pool}": self.slot_pool,
            "{these}": self.slot_these,
            "{rows}": self.slot_rows,
            "{many}": self.slot_many,
            "{conditions}": self.slot_conditions,
            "{chosen}": self.slot_chosen,
            "{tail}": self.slot_tail,
            "{ties}": self.slot_ties,
            "{them}": self.slot_them,
            "{bounded}": self.slot_bounded,
            "{set}": self.slot_set,
            "{again}": self.slot_again,
            "{nearest}": self.slot_nearest,
            "{act}": self.slot_act,
            "{act_on_it}": self.slot_act_on_it,
            "{cond}": self.slot_condition,
            "{then}": self.slot_then,
            "{other}": self.slot_other,
            "{values}": self.slot_values,
            "{fields}": self.slot_fields,
            "{topic}": self.slot_topic,
            "{what}": self.slot_what,
        }

    def task(self) -> Task:
        """Read all sentences; the last one is the report.

        Raises:
            ParseError: as `parse` says.
        """
        steps: list[Step] = []
        position = 0
        while True:
            found, end = self.sentence(position)
            if isinstance(found, tuple):
                if end != len(self.text):
                    raise ParseError("the prompt goes on behind its report", end)
                return self.checked(Task(tuple(steps), found))
            steps.append(found)
            if isinstance(found, Try):
                self.types[found.var] = DECISION
            if isinstance(found, Let):
                self.types[found.var] = self.node_type(found.node)
                if isinstance(found.node, Choose):
                    self.chosen[found.var] = found.node
            if not self.text.startswith(" ", end):
                raise ParseError("the prompt ends without a report", end, ("a space and the next sentence",))
            position = end + 1

    def checked(self, task: Task) -> Task:
        try:
            check(task, self.docs)
        except IRTypeError as error:
            raise ParseError(f"the prompt states an ill-typed task: {error}", len(self.text)) from error
        return task

    def sentence(self, position: int) -> tuple[Step | Report, int]:
        """Read the one meaning of the sentence at a position.

        Raises:
            ParseError: it has no meaning, or more than one.
        """
        self.furthest, self.expected = position, {}
        readings: dict[tuple[Step | Report, int], None] = {}
        for kind, parts in _FORMS:
            for slots, end in self.form(position, parts, {}):
                for reading in self.build(kind, slots):
                    readings[reading, end] = None
        if len(readings) > 1:
            shown = " | ".join(str(reading) for reading, _ in list(readings)[:2])
            raise ParseError(f"the sentence has more than one meaning: {shown}", position)
        if not readings:
            near = self.text[self.furthest : self.furthest + 40]
            raise ParseError(f"cannot read {near!r}", self.furthest, tuple(self.expected))
        return next(iter(readings))

    def form(self, position: int, parts: tuple[str, ...], slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Match a sentence form."""
        if not parts:
            yield slots, position
            return
        if parts[0] in self.readers:
            for more, end in self.readers[parts[0]](position, slots):
                yield from self.form(end, parts[1:], {**slots, **more})
        else:
            for end in self.literal(position, parts[0]):
                yield from self.form(end, parts[1:], slots)

    def build(self, kind: str, slots: Slots) -> Iterator[Step | Report]:
        """Make the step of a matched form; nothing when its slots contradict each other."""
        match kind:
            case "Act":
                yield slots["act"]
            case "Try":
                yield Try(slots["new"], slots["act"])
            case "Caution":
                yield Caution()
            case "Budget":
                yield Budget()
            case "If":
                lhs, op, rhs = slots["cond"]
                yield If(lhs, op, rhs, slots["then"], slots["other"])
            case "ForEach":
                yield ForEach(slots["entity"], slots["atoms"], slots["op"])
            case "Report":
                yield slots["report"]
            case "NoReport":
                yield ()
            case _:
                for node in self.asked(slots) if kind == "Asked" else self.node(kind, slots):
                    yield Let(slots["new"], node)

    def node(self, kind: str, slots: Slots) -> Iterator[Node]:
        match kind:
            case "Pick":
                yield from self.pick(slots)
            case "Only":
                yield Only(slots["entity"], slots["atoms"])
            case "To":
                yield To(slots["src"], slots["rel"])
            case "Count":
                yield Count(slots["entity"], slots["atoms"])
            case "Sum":
                if slots["label"].type.kind == "num":
                    yield Sum(slots["entity"], slots["atoms"], slots["attr"])
            case "GroupCount" | "GroupSum":
                yield from self.group(slots)
            case "Reach":
                yield Reach(Ref(slots["set"]))
            case _:
                node = Choose(*(slots[name] for name in ("entity", "atoms", "k", "cons", "goal", "or_none")))
                if not node.or_none or len(node.bounds) == 1:
                    yield node

    def pick(self, slots: Slots) -> Iterator[Node]:
        label: Label = slots["label"]
        timed = self.docs.is_time(label.type)
        words = EXTREME_COUNTS if label.plural and not timed else EXTREMES
        direction, temporal = words.get(slots["extreme"], ("", None))
        if label.type.kind in ("num", "date") and timed == temporal:
            yield Pick(slots["entity"], slots["atoms"], direction, slots["attr"])

    def group(self, slots: Slots) -> Iterator[Node]:
        if "most" in slots:
            yield GroupBy(slots["entity"], slots["atoms"], slots["rel"], "count", slots["most"])
            return
        direction, temporal = EXTREMES.get(slots["extreme"], ("", None))
        if slots["label"].type.kind == "num" and temporal is False:
            yield GroupBy(slots["entity"], slots["atoms"], slots["rel"], "sum", direction, slots["attr"])

    def node_type(self, node: Node) -> Type:
        match node:
            case To(src, rel):
                return self.docs.by_name[self.entity_of(src), rel].type
            case Pick(entity, _, _, _) | Only(entity, _):
                return Type("row", entity)
            case Count():
                return Type("num", "")
            case Choose():
                return Type("rows", node.entity)
            case Asked(_, kind, detail):
                return Type(kind, detail)
            case Sum() | GroupBy() | Reach():
                return self.docs.by_name[self.stated(node)].type

    def stated(self, node: Sum | GroupBy | Reach) -> tuple[str, str]:
        """Entity and name of the attribute whose type the description has."""
        if isinstance(node, GroupBy):
            return node.entity, node.rel
        if isinstance(node, Sum):
            return node.entity, node.attr.name
        chosen = self.chosen[node.src.var]
        return chosen.entity, chosen.bounds[0].attr.name

    def entity_of(self, row: Operand) -> str:
        match row:
            case Named(entity, _, _):
                return entity
            case Ref(var):
                return self.types[var].detail
            case Of(var, attr):
                return self.docs.by_name[self.types[var].detail, attr.name].type.detail
            case Const():
                raise TypeError(f"{row} is no row")  # the source of a relation is read as a row

    # -------------------------------------------------------------------------------------------------------- slots

    def slot_new(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for var, end in self.new_variable(position):
            yield {"new": var}, end

    def slot_one(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for entity, (singular, _) in self.docs.nouns.items():
            if slots.get("entity", entity) == entity:
                for end in self.literal(position, singular):
                    yield {"entity": entity}, end

    def slot_row(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for entity, (singular, _) in self.docs.nouns.items():
            for end in self.literal(position, singular):
                for atoms, behind in self.atoms(end, entity, "is"):
                    if atoms:
                        yield {"entity": entity, "atoms": atoms}, behind

    def slot_extreme(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for word in dict.fromkeys((*EXTREMES, *EXTREME_COUNTS)):
            for end in self.literal(position, word):
                yield {"extreme": word}, end

    def slot_attr(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for entity in [slots["entity"]] if "entity" in slots else self.docs.nouns:
            for attr, label, end in self.attr(position, entity):
                yield {"entity": entity, "attr": attr, "label": label}, end

    def slot_relation(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for entity in self.docs.nouns:
            for attr, label, end in self.attr(position, entity):
                if label.type.kind == "row" and not attr.args:
                    yield {"rel": attr.name, "owner": entity}, end

    def slot_key(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for found, end in self.slot_relation(position, slots):
            entity = found["owner"]
            if slots.get("entity", entity) == entity and slots.get("rel", found["rel"]) == found["rel"]:
                target = self.docs.by_name[entity, found["rel"]].type.detail
                yield {"entity": entity, "rel": found["rel"], "target": target}, end

    def slot_most(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for word, direction in MOST.items():
            for end in self.literal(position, word):
                yield {"most": direction}, end

    def slot_number(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for word, direction in NUMBER.items():
            for end in self.literal(position, word):
                yield {"most": direction}, end

    def slot_none(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        direction = slots["most"] if "most" in slots else EXTREMES.get(slots["extreme"], ("",))[0]
        owners = self.docs.nouns[slots["target"]][1]
        for end in self.literal(position, f" ({owners} with none do not count)" if direction == "min" else ""):
            yield {}, end

    def slot_source(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for value, end in self.operand(position, Type("row", slots["owner"])):
            yield {"src": value}, end

    def slot_rows(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for (entity, atoms), end in self.rows(position):
            if slots.get("entity", entity) == entity:
                yield {"entity": entity, "atoms": atoms}, end

    def slot_many(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for entity, (_, plural) in self.docs.nouns.items():
            for end in self.literal(position, plural):
                yield {"entity": entity}, end

    def slot_conditions(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for atoms, end in self.atoms(position, slots["entity"]):
            yield {"atoms": atoms}, end

    def slot_these(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for start in self.literal(position, "the "):
            yield from self.slot_rows(start, slots)

    def slot_pool(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for found, end in self.slot_these(position, slots):
            if found["atoms"]:
                yield found, end
        for start in self.literal(position, "all "):
            for found, end in self.slot_rows(start, slots):
                if not found["atoms"]:
                    yield found, end

    def slot_chosen(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for match, end in self.token(position, _COUNT, "a number of rows"):
            k = int(match[0])
            for start in self.literal(end, " different " if k > 1 else " of the "):
                for found, behind in self.slot_rows(start, slots):
                    yield {**found, "k": k}, behind

    def slot_tail(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        yield {"cons": (), "goal": None}, position
        starts = [start for word in SUCH for start in self.literal(position, word)]
        for start in starts:
            for found, end in self.set_conditions(start, slots["entity"]):
                goal = None if isinstance(found[-1], Con) else found[-1]
                cons = found if goal is None else found[:-1]
                if all(isinstance(con, Con) for con in cons):
                    yield {"cons": cons, "goal": goal}, end

    def slot_ties(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        word = "such" if slots["goal"] is None else "best"
        for end in self.literal(position, f"any {word} choice is accepted"):
            yield {"or_none": False}, end
            for behind in self.literal(end, f"; if there is none, {slots['new']} is empty"):
                yield {"or_none": True}, behind

    def slot_bounded(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for entity in dict.fromkeys(node.entity for node in self.chosen.values() if node.or_none):
            for attr, _, end in self.attr(position, entity):
                yield {"entity": entity, "attr": attr}, end

    def slot_set(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Read a set that may be empty, whose bound is on the attribute read before."""
        for var, end in self.variable(position):
            node = self.chosen.get(var)
            if node and node.or_none and (node.entity, node.bounds[0].attr) == (slots["entity"], slots["attr"]):
                yield {"set": var}, end

    def slot_again(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for end in self.literal(position, slots["set"]):
            yield {}, end

    def slot_them(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        one, many = self.docs.nouns[slots["entity"]]
        for end in self.literal(position, f"the chosen {many if slots['k'] > 1 else one}"):
            yield {}, end

    def slot_nearest(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        upward = self.chosen[slots["set"]].bounds[0].op in (">", ">=")
        for found, end in self.slot_extreme(position, slots):
            if EXTREMES.get(found["extreme"]) == ("max" if upward else "min", False):
                yield {}, end

    def slot_act(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for act, end in self.act(position):
            yield {"act": act}, end

    def slot_act_on_it(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        for op, end in self.act_on_it(position, slots["entity"]):
            yield {"op": op}, end

    def slot_condition(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for lhs, type_, label, end in self.subject(position):
            for op, rhs, behind in self.comparison(end, type_, label):
                yield {"cond": (lhs, op, rhs)}, behind

    def slot_then(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for acts, end in self.branch(position):
            yield {"then": acts}, end

    def slot_other(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        del slots
        for acts, end in self.branch(position):
            yield {"other": acts}, end
