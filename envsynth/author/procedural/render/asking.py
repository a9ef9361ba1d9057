"""What the user is asked, and the user's words: they hold the value in a fixed form, which the prompt does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Asked, Task, Type, lets
from envsynth.author.procedural.render.forms import Register
from envsynth.author.procedural.render.values import CLOCK, amount, day
from envsynth.delivery import Fact
from envsynth.errors import SpecError

ASKED: dict[Register, tuple[str, ...]] = {
    "plain": (
        "Ask the user about '{topic}'; call the {what} that you are told {var}.",
        "The user knows which {what} is meant: ask about '{topic}' and call it {var}.",
        "Find out from the user, asked about '{topic}', which {what} is meant; call it {var}.",
    ),
    "formal": (
        "Let {var} denote the {what} that the user states when asked about '{topic}'.",
        "The user is to be asked about '{topic}'; the {what} that is stated is referred to as {var}.",
        "Let {var} be the {what} that the user, when asked about '{topic}', states.",
    ),
    "terse": (
        "{var} = the {what} that the user tells about '{topic}'.",
        "Ask the user about '{topic}'; {var} = the {what}.",
        "Get {var} from the user, about '{topic}': the {what}.",
    ),
}
"""How the prompt says what the user is to be asked for."""

ANYTHING_ELSE = Fact(topic="anything_else", says="I do not mind.")
"""What a user says who is asked about something of no matter; there beside every topic that matters."""


def subject(units: Mapping[str, str], nouns: Mapping[str, tuple[str, str]], type_: Type) -> str:
    """What a value of a type is called in a question: "number of credits", "hour of the day", "date", "room".

    Raises:
        SpecError: a user cannot be asked for a value of this type.
    """
    match type_.kind:
        case "num":
            word = units.get(type_.detail, type_.detail)
            return "hour of the day" if word == CLOCK else f"number of {word}" if word else "number"
        case "date":
            return "date"
        case "row" if type_.detail in nouns:
            return nouns[type_.detail][0]
        case _:
            raise SpecError(f"a user cannot be asked for a value of type {type_.kind} {type_.detail}".rstrip())


def words(units: Mapping[str, str], asked: Asked) -> str:
    """The user's words: "It is 120 credits.", "It is 2031-05-07.", 'It is "Elm Room".'.

    Args:
        units: Words of units.
        asked: What is asked for.

    Returns:
        One sentence.

    Raises:
        SpecError: the value is not known, or cannot be written exactly.
    """
    if asked.value is None:
        raise SpecError(f"what the user tells about {asked.topic} is not known")
    match asked.kind:
        case "num":
            told = amount(units, asked.detail, asked.value)
        case "date":
            told = day(asked.value)
        case _:
            told = f'"{asked.value}"'
            if told.count('"') > 2 or "\n" in told:
                raise SpecError(f"a name with a double quote or a line break cannot be told: {asked.value!r}")
    return f"It is {told}."


def facts(task: Task, docs: Mapping[str, Any]) -> tuple[Fact, ...]:
    """What the user of a task knows.

    Args:
        task: A well-typed program.
        docs: Public docs of its world.

    Returns:
        Topics with the user's words, in alphabetical order; nothing where the task asks for nothing.

    Raises:
        SpecError: a value cannot be written exactly.
    """
    asked = [let.node for let in lets(task, Asked) if isinstance(let.node, Asked)]
    told = [Fact(topic=node.topic, says=words(docs["units"], node)) for node in asked]
    return tuple(sorted([*told, ANYTHING_ELSE], key=lambda fact: fact.topic)) if told else ()
