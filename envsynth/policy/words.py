"""Words that are one token each: the fixed grammar of prompts, tool documents and compact text.

They hold sentences together and are never the name of anything, so reading one is not copying. Names, fields and verbs of
a world are spelled, whatever words they are made of. A change here changes the vocabulary: raise `VERSION` in `tokens`.
"""

from __future__ import annotations

_COMPACT = "today turns rule tool answer null true false string integer number boolean"
_PROMPT = """
    After Among Answer At Check Count For If In Next Of Over Please Report Return Test Then The There This When X1 X2 X3 X4
    X5 X6 Action Do Get Let Look Pick Take To Your Find Choose Select Determine Set as all and after among any are at is by
    be before best call called case choice accepted combined different do each earliest else empty equal every exactly
    find for format from give given given go has have highest how id ids if in it its itself large latest least less
    list lowest many max min more most name names no not nothing number object of on one only or order otherwise over
    possible report row rows same set shall share small state such sum take task text than that the their them then there
    these to turn two Read up use whole whose with would you date dates earlier later greater lower
"""
_DOCS = """
    Errors Returns Gives Change Read Rows Row column columns value values give exactly unknown argument arguments found
    invalid conflict malformed required error errors code message result results page cursor offset next total items data
    filtered filter ordered per missing field fields new null several several first last day this done nowhere needs need
    must may can change changes reply other leave out returns text texts None Unknown List Can Descriptions conditions
    asks request about added description pattern minimum maximum holds when again never below gives starts which within
    another will those ones skip pass previous rows match pages together each more makes make gives
"""


def whole_words() -> tuple[str, ...]:
    """All whole-word tokens, sorted, each once."""
    found = dict.fromkeys(word for text in (_COMPACT, _PROMPT, _DOCS) for word in text.split() if len(word) > 1)
    return tuple(sorted(found))
