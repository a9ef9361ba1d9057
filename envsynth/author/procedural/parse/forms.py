"""Words of the prompt language as the parser reads it.

The renderer has tables of its own; neither side may read the other's. Round-trip tests hold them together.
Registers do not matter here: every sentence may be of any register.
"""

from __future__ import annotations

FORMS: dict[str, tuple[str, ...]] = {
    "Pick": (
        "Find the {one} with the {extreme} {attr} among {pool}; call that {one} {new}.",
        "Among {pool}, find the {one} with the {extreme} {attr}; call it {new}.",
        "Of {pool}, take the one with the {extreme} {attr} and call it {new}.",
        "Let {new} denote the {one} with the {extreme} {attr} among {pool}.",
        "Determine the {one} that has the {extreme} {attr} among {pool}; that {one} is referred to as {new}.",
        "Among {pool}, let {new} be the {one} with the {extreme} {attr}.",
        "{new} = the {one} with the {extreme} {attr} among {pool}.",
        "{new}: among {pool}, the {one} with the {extreme} {attr}.",
        "Get {new}: the {one} with the {extreme} {attr} among {pool}.",
    ),
    "Only": (
        "Find the {row}; call that {one} {new}.",
        "Look up the {row}, and call that {one} {new}.",
        "Take the {row}; call that {one} {new}.",
        "Let {new} denote the {row}.",
        "Let {new} be the {row}.",
        "Determine the {row}; that {one} is referred to as {new}.",
        "{new} = the {row}.",
        "{new}: the {row}.",
        "Get {new}: the {row}.",
    ),
    "To": (
        "Look up the {rel} of {src}; call it {new}.",
        "Find the {rel} of {src} and call it {new}.",
        "Check what the {rel} of {src} is; call it {new}.",
        "Let {new} denote the {rel} of {src}.",
        "Let {new} be the {rel} of {src}.",
        "Determine the {rel} of {src}; it is referred to as {new}.",
        "{new} = the {rel} of {src}.",
        "{new}: the {rel} of {src}.",
        "Get {new}: the {rel} of {src}.",
    ),
    "Count": (
        "Count {pool}; call the number {new}.",
        "Work out how many {many} there are{conditions}; call the number {new}.",
        "Find the number of {rows}, and call the number {new}.",
        "Let {new} denote the number of {rows}.",
        "Let {new} be the count of {rows}.",
        "Determine the number of {rows}; that number is referred to as {new}.",
        "{new} = the number of {rows}.",
        "{new}: count of {rows}.",
        "Get {new}: the number of {rows}.",
    ),
    "Sum": (
        "Add up the {attr} over {pool}; call the sum {new}.",
        "For {pool}, add up the {attr}; call the sum {new}.",
        "Find the sum of the {attr} over {pool}, and call the sum {new}.",
        "Let {new} denote the sum of the {attr} over {pool}.",
        "Determine the sum of the {attr} over {pool}; that sum is referred to as {new}.",
        "Over {pool}, let {new} be the sum of the {attr}.",
        "{new} = the sum of the {attr} over {pool}.",
        "{new}: over {pool}, the sum of the {attr}.",
        "Get {new}: the sum of the {attr} over {pool}.",
    ),
    "Choose": (
        "Choose {chosen}{tail}; call {them} {new} ({ties}).",
        "Pick {chosen}{tail}, and call {them} {new} ({ties}).",
        "Select {chosen}{tail}; {new} stands for {them}, and {ties}.",
        "Let {new} denote {chosen}{tail}; {ties}.",
        "Let {new} be a selection of {chosen}{tail}; {ties}.",
        "Determine {chosen}{tail}; {new} denotes {them}, and {ties}.",
        "{new} = {chosen}{tail} ({ties}).",
        "{new}: {chosen}{tail}; {ties}.",
        "Get {new}: {chosen}{tail} ({ties}).",
    ),
    "GroupCount": (
        "Find the {key} with the {most} {rows}{none}; call that {key} {new}.",
        "Of {pool}, work out which {key} has the {most}{none}; call that {key} {new}.",
        "Work out which {key} has the {most} {rows}{none}; call that {key} {new}.",
        "Let {new} denote the {key} with the {number} of {rows}{none}.",
        "Determine the {key} that has the {number} of {rows}{none}; that {key} is referred to as {new}.",
        "Of {pool}, let {new} be the {key} with the {number}{none}.",
        "{new} = the {key} with the {most} {rows}{none}.",
        "{new}: of {pool}, the {key} with the {most}{none}.",
        "Get {new}: the {key} with the {most} {rows}{none}.",
    ),
    "GroupSum": (
        "Find the {key} with the {extreme} combined {attr} over {pool}{none}; call that {key} {new}.",
        "Over {pool}, work out which {key} has the {extreme} combined {attr}{none}; call that {key} {new}.",
        "Work out which {key} has the {extreme} combined {attr} over {pool}{none}; call that {key} {new}.",
        "Let {new} denote the {key} with the {extreme} combined {attr} over {pool}{none}.",
        "Determine the {key} that has the {extreme} combined {attr} over {pool}{none}; that {key} is referred "
        "to as {new}.",
        "Over {pool}, let {new} be the {key} with the {extreme} combined {attr}{none}.",
        "{new} = the {key} with the {extreme} total {attr} over {pool}{none}.",
        "{new}: over {pool}, the {key} with the {extreme} total {attr}{none}.",
        "Get {new}: the {key} with the {extreme} total {attr} over {pool}{none}.",
    ),
    "Reach": (
        "Work out the combined {bounded} of {set} or, if {again} is empty, the {nearest} total of any choice "
        "that meets every condition but the bound on this total; call that total {new}.",
        "Add up the {bounded} over {set} or, if {again} is empty, take the {nearest} total of any choice that "
        "meets every condition but the bound on this total; "
        "call that total {new}.",
        "Find the combined {bounded} of {set} or, if {again} is empty, find the {nearest} total of any choice "
        "that meets every condition but the bound on this total; call that total {new}.",
        "Let {new} denote the sum of the {bounded} over {set} or, if {again} is empty, the {nearest} sum of any "
        "choice that meets every condition but the bound on this total.",
        "Determine the sum of the {bounded} over {set} or, should {again} be empty, the {nearest} sum of any "
        "choice that meets every condition but the bound on this total; that sum is referred to as {new}.",
        "Let {new} be the sum of the {bounded} over {set} or, if {again} is empty, the {nearest} sum of any "
        "choice that meets every condition but the bound on this total.",
        "{new} = the total {bounded} of {set}; if {again} is empty, the {nearest} total of any choice that "
        "meets every condition but the bound on this total.",
        "{new}: the total {bounded} of {set} or, if {again} is empty, the {nearest} total of any choice that "
        "meets every condition but the bound on this total.",
        "Get {new}: the total {bounded} of {set} or, for an empty {again}, the {nearest} total of any choice "
        "that meets every condition but the bound on this total.",
    ),
    "Act": (
        *(f"{lead} {{act}}." for lead in ("Please", "I need you to", "Your task:", "Then", "Next,", "After that,")),
        *(f"{lead} {{act}}." for lead in ("You are to", "You are required to", "Kindly", "Do:", "Action:", "To do:")),
        *(f"{lead} {{act}}." for lead in ("Subsequently,", "You are then required to", "You are then to")),
    ),
    "Try": (
        "If the rules allow it, {act}; {new} is 'done' or, if it is refused, 'denied'.",
        "Try to {act}; call the outcome {new}: 'done' or, if it is refused, 'denied'.",
        "Should the rules allow it, {act}; call what comes of it {new}: 'done' or, if it is refused, 'denied'.",
        "Provided that the rules allow it, {act}; {new} denotes 'done' or, if it is refused, 'denied'.",
        "You are to {act} if the rules allow it; {new} denotes 'done' or, if it is refused, 'denied'.",
        "Kindly attempt to {act}; let {new} denote 'done' or, if it is refused, 'denied'.",
        "If allowed: {act}; {new} = 'done' or, if refused, 'denied'.",
        "Try: {act}; {new} = 'done' or, if refused, 'denied'.",
        "Attempt: {act}; {new}: 'done' or, if refused, 'denied'.",
    ),
    "Caution": (
        "A call that ends in timeout (408) may or may not have taken effect: check before you repeat it; one that ends in "
        "unavailable (503) has had no effect.",
        "If a call ends in timeout (408), it may or may not have taken effect, so check before you repeat it; if it ends in "
        "unavailable (503), it has had no effect.",
        "Tools may fail: after timeout (408), check whether the call has taken effect before you repeat it; after "
        "unavailable (503), it has had no effect.",
        "A call that ends in timeout (408) may or may not have taken effect, which is to be checked before it is repeated; "
        "a call that ends in unavailable (503) has had no effect.",
        "Should a call end in timeout (408), it is to be checked whether it has taken effect before it is repeated; should "
        "it end in unavailable (503), it has had no effect.",
        "Before a call that ended in timeout (408) is repeated, it is to be checked whether it has taken effect; a call that "
        "ended in unavailable (503) has had no effect.",
        "On timeout (408): effect unknown, check before repeating; on unavailable (503): no effect.",
        "Timeout (408) = effect unknown: check, then repeat if needed; unavailable (503) = no effect.",
        "Errors: timeout (408), effect unknown, check before repeating; unavailable (503), no effect.",
    ),
    "Asked": (
        "Ask the user about '{topic}'; call the {what} that you are told {new}.",
        "The user knows which {what} is meant: ask about '{topic}' and call it {new}.",
        "Find out from the user, asked about '{topic}', which {what} is meant; call it {new}.",
        "Let {new} denote the {what} that the user states when asked about '{topic}'.",
        "The user is to be asked about '{topic}'; the {what} that is stated is referred to as {new}.",
        "Let {new} be the {what} that the user, when asked about '{topic}', states.",
        "{new} = the {what} that the user tells about '{topic}'.",
        "Ask the user about '{topic}'; {new} = the {what}.",
        "Get {new} from the user, about '{topic}': the {what}.",
    ),
    "Budget": (
        "Tool calls are limited.",
        "There is a limit to tool calls.",
        "Mind the limit of tool calls.",
        "A limit applies to tool calls.",
        "Tool calls have a limit.",
        "Observe the limit of tool calls.",
        "Tool calls: limited.",
        "Limited tool calls.",
        "Calls of tools: limited.",
    ),
    "If": (
        "If {cond}, {then}; otherwise, {other}.",
        "Check whether {cond}: if so, {then}; if not, {other}.",
        "When {cond}, {then}; in any other case, {other}.",
        "Provided that {cond}, {then}; otherwise, {other}.",
        "Should it hold that {cond}, {then}; otherwise, {other}.",
        "In case {cond}, {then}; in any other case, {other}.",
        "If {cond}: {then}; else: {other}.",
        "Test: {cond}? If yes, {then}; if no, {other}.",
        "When {cond}: {then}; else: {other}.",
    ),
    "ForEach": (
        "For each of {these}, {act_on_it}.",
        "Take each of {these} in turn and {act_on_it}.",
        "Go through {these} and, for each of them, {act_on_it}.",
        "For each of {these}, you are to {act_on_it}.",
        "With regard to each of {these}, {act_on_it}.",
        "Each of {these} is to be handled as follows: {act_on_it}.",
        "For each of {these}: {act_on_it}.",
        "Each of {these}: {act_on_it}.",
        "Do for each of {these}: {act_on_it}.",
    ),
    "Report": (
        "Report {values}.",
        "At the end, give {values}.",
        "The answer shall state {values}.",
        "Kindly report {values}.",
        "Report: {values}.",
        "Answer with {fields}.",
        "The answer shall consist of {fields}.",
        "Answer: {fields}.",
        "Return {fields}.",
    ),
    "NoReport": (
        "No report is needed: answer with an empty object.",
        "There is nothing to report: answer with an empty object.",
        "When this is done, answer with an empty object.",
        "The answer shall be an empty object.",
        "Nothing is to be stated; the answer shall be an empty object.",
        "Upon completion, an empty object shall be given as the answer.",
        "Answer: an empty object.",
        "Report: an empty object.",
        "Return an empty object.",
    ),
}
"""Sentence forms by kind; `{...}` are slots."""

AMOUNT = {
    " at least ": ">=",
    " no less than ": ">=",
    " at most ": "<=",
    " no more than ": "<=",
    " more than ": ">",
    " greater than ": ">",
    " less than ": "<",
    " lower than ": "<",
    " exactly ": "==",
    " equal to ": "==",
    " not ": "!=",
    " different from ": "!=",
}
"""Comparators of amounts, between the verb and the value."""

_TIME = {
    " no earlier than ": ">=",
    " no later than ": "<=",
    " later than ": ">",
    " after ": ">",
    " earlier than ": "<",
    " before ": "<",
    " equal to ": "==",
    " ": "==",
    " different from ": "!=",
    " not ": "!=",
}

DAY = {" on or after ": ">=", " on or before ": "<=", **_TIME}
"""Comparators of days, between the verb and the value."""

HOUR = {" at or after ": ">=", " at or before ": "<=", **_TIME}
"""Comparators of hours of the day, between the verb and the value."""

SAME = {" ": "==", " not ": "!="}
"""Comparators of rows and texts, between the verb and the value."""

SYMBOLS = {" = ": "==", " != ": "!=", " >= ": ">=", " <= ": "<=", " > ": ">", " < ": "<"}
"""Comparators of the terse register, for all types."""

EXTREMES = {
    "highest": ("max", False),
    "greatest": ("max", False),
    "max": ("max", False),
    "latest": ("max", True),
    "lowest": ("min", False),
    "smallest": ("min", False),
    "min": ("min", False),
    "earliest": ("min", True),
}
"""Superlative -> (direction, whether it is about time)."""

MOST = {"most": "max", "fewest": "min"}
"""Superlatives of rows -> direction."""

NUMBER = {"greatest number": "max", "smallest number": "min"}
"""Superlatives of the number of rows -> direction."""

EXTREME_COUNTS = {
    "most": ("max", False),
    "greatest number of": ("max", False),
    "max": ("max", False),
    "fewest": ("min", False),
    "smallest number of": ("min", False),
    "min": ("min", False),
}
"""Superlatives of attributes with a plural label."""

SETS = (
    ("distinct", "no two of them share the same {attr}"),
    ("distinct", "no two of them have the same {attr}"),
    ("distinct", "no two of the same {attr}"),
    ("sum", "their combined {attr}{bound}"),
    ("sum", "their total {attr}{bound}"),
    ("sum", "total {attr}{bound}"),
    ("max", "their combined {attr} {verb} as large as possible"),
    ("max", "their total {attr} {verb} maximal"),
    ("max", "total {attr} as large as possible"),
    ("min", "their combined {attr} {verb} as small as possible"),
    ("min", "their total {attr} {verb} minimal"),
    ("min", "total {attr} as small as possible"),
)
"""Conditions (distinct, sum) and goals (max, min) of chosen sets, after one of `SUCH`."""

SUCH = (" such that ", ", with ")
"""What opens the conditions and the goal of a chosen set."""

CLOCK_WORD = "o'clock"
"""Word of units that are times of the day."""

SINGULAR_OF = {"people": "person", "men": "man", "women": "woman", "children": "child"}
UNCHANGED = frozenset({"percent", "series", "o'clock"})
SUFFIXES = (
    ("ies", "y"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("xes", "x"),
    ("sses", "ss"),
    ("ss", "ss"),
    ("s", ""),
)
"""How unit words lose their plural, first match wins; words of up to three letters keep it."""

LINK_WORDS = frozenset({"after", "at", "for", "from", "in", "leaving", "of", "on", "until", "with"})
"""Words that end the noun of a label: "busy days | from 2031-05-03 to 2031-05-07"."""

ONE_WITH_S = frozenset({"alias", "gas", "lens", "series"})
"""Words that are singular although they end in a plain "s"."""

USER_SAYS = ("It is ", ".")
"""What stands before and behind the value in the user's words."""
