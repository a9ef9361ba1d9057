"""What a mechanism is: tables with dynamics, derived attributes, actions, write tools and rules.

A mechanism's dynamics enter the task program as derived attributes and actions. Each is a triple of texts: an SQL
fragment (oracle), planner source (tools only) and goal source (over rows). They are texts, not functions, because they
are stored in the spec, run in the sandbox, and cannot share code by accident. An operator never names a mechanism and a
mechanism never names an operator; the bridge is types.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from envsynth.author.procedural.ir import Type
from envsynth.errors import AuthorError

Row = dict[str, int | str]
"""One row, by physical column name."""


@dataclass(frozen=True, kw_only=True)
class Col:
    """One logical column of an entity."""

    name: str
    """Logical name; relations are named by role (`keeper`), the physical column may differ."""
    kind: Literal["id", "name", "num", "enum", "text", "date", "fk"]
    """What it holds."""
    label: str = ""
    """Words for it in prompts, without the entity: "hourly rate"."""
    unit: str = ""
    """Unit of a `num` column ("credits", "people", "oclock", "h", "units")."""
    ref: str = ""
    """Entity that an `fk` points to."""
    refkey: Literal["id", "name"] = "id"
    """Column of the target that an `fk` stores."""
    values: tuple[str, ...] = ()
    """Domain of an `enum`."""
    column: str = ""
    """Physical column name in SQL and tool results; filled by compose."""
    optional: bool = False
    """Whether compose may drop it (structural variation)."""
    liftable: bool = False
    """Whether compose may turn an enum into its own table."""


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A derived attribute of an entity: one definition in public words, three independent texts."""

    entity: str
    """Whose attribute."""
    name: str
    """Name in the program; unique within the composition."""
    label: str
    """Words with `{0}`, `{1}` for the arguments: "free on {0} from {1} to {2}"; a boolean follows "that are"."""
    params: tuple[Type, ...] = ()
    """Argument types."""
    type: Type
    """Its type."""
    sql: str
    """SQL scalar expression; `{t}` is the row's table alias, `{0}` ... the arguments (row arguments are ids)."""
    plan: str
    """Python: `def d_<name>(row, *args)` using the planner prelude (`rows`, `named`, flag `POLICY`)."""
    goal: str
    """Python: `def g_<name>(db, row, *args)` over rows by table; row arguments are dictionaries."""
    policy: str
    """Sentence of the public rules that defines it."""
    norm: bool = False
    """Whether it says which rule a row breaks: the same for all rows of a composed world, so nothing is drawn of it; and
    its words speak of the state before any change."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A change of state that a task can ask for."""

    name: str
    """Name in the program."""
    phrase: str
    """Imperative words with `{param}` for each parameter: "book {resource} for {person} on {day}"."""
    params: tuple[tuple[str, Type], ...]
    """Named parameters."""
    oracle_sql: str
    """SELECT that returns the expected changes: (op, table, json_object of cells); `{param}` is filled in."""
    plan: str
    """Python: `def a_<name>(*params)` using the planner prelude (`rows`, `write`, flags)."""
    goal: str
    """Python: `def s_<name>(db, diff, *params)` -> list of the diff entries that it claims, or None; states the
    property, not the plan."""
    tables: tuple[str, ...]
    """Tables that it writes."""
    policy: str = ""
    """Sentence of the public rules that governs it, if any."""
    through: tuple[str, ...] = ()
    """The changing tools that its planner text calls by other actions' texts, where it calls none itself."""

    @cached_property
    def calls(self) -> tuple[str, ...]:
        """The changing tools that its planner text calls.

        Raises:
            AuthorError: the text does not name one.
        """
        if self.through:
            return self.through
        calls = [node for node in ast.walk(ast.parse(self.plan)) if isinstance(node, ast.Call)]
        firsts = [node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id == "write"]
        named = [node.value for node in firsts if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        if not named or len(named) < len(firsts):
            raise AuthorError(f"the planner text of action {self.name!r} does not name the tool that it calls")
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, kw_only=True)
class Words:
    """One value in the language of each backend."""

    sql: str
    """SQL scalar expression; `{t}` is the row's table alias."""
    plan: str
    """Python of the planner over `row`."""
    goal: str
    """Python of the goals over `db` and `row`."""


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A rule that every row of a composed world keeps, how one row comes to break it, and what puts that row in order."""

    name: str
    """Name of the rule as the policy quotes it and an actor reports it: "overlap"."""
    rule: str
    """What a row is like that breaks it, behind "when": "it counts and is for more people than ..."."""
    sql: str
    """SQL condition that a row breaks it; `{t}` is the row's table alias."""
    plan: str
    """Python: `def p_<entity>_<name>(row)`; without the flag `CHECKS` it is true of what merely looks like a breach."""
    goal: str
    """Python: `def v_<entity>_<name>(db, row)`."""
    repair: str
    """What puts the row in order, as the policy says it: "it is cancelled"."""
    action: str
    """Name of the action of the mechanism that does so."""
    parameter: str
    """Its parameter that takes the row."""
    arguments: Mapping[str, Words] = field(default_factory=dict[str, Words])
    """Its other parameters, each worked out from the row."""
    plant: Callable[[random.Random], Sequence[tuple[str, Row]]]
    """Draws rows (entity, row) to add: one that breaks the rule, those that it needs, and near misses."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What it means that the rows of an entity are in order: the rules, in the order in which a breach is told."""

    entity: str
    """Whose rows."""
    breaches: tuple[Breach, ...]
    """The rules."""


@dataclass(frozen=True, kw_only=True)
class ToolDraft:
    """A tool of a composition, before it becomes a `Tool` record."""

    name: str
    """Name in calls."""
    effect: Literal["read", "write"]
    """Whether it writes."""
    description: str
    """For the actor."""
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments."""
    returns: str
    """For the actor."""
    errors: tuple[str, ...]
    """Refusal codes."""
    source: str
    """`def name(db, **arguments)`."""


class Composed(Protocol):
    """What a mechanism sees of the composed world while it writes its texts and rows."""

    rows: dict[str, list[Row]]
    rules: dict[str, Any]
    now: str
    style: InterfaceStyle

    def fk(self, entity: str, relation: str) -> tuple[str, str]:
        """Physical column of a relation and the key of the target that it stores: ("room_id", "id")."""
        ...

    def has(self, entity: str, column: str) -> bool:
        """Whether the entity exists with that logical column (optional ones may be dropped)."""
        ...

    def col(self, entity: str, column: str) -> Col:
        """The logical column; `KeyError` when it was dropped."""
        ...

    def word(self, entity: str) -> str:
        """Singular noun of the entity in this world ("spectrometer"), lower case, may hold spaces."""
        ...

    def plural(self, entity: str) -> str:
        """Plural noun of the entity."""
        ...

    def slug(self, entity: str) -> str:
        """Singular noun as an identifier ("meeting_room")."""
        ...

    def columns(self, entity: str) -> list[str]:
        """Physical column names in order."""
        ...

    def fill(self, rng: random.Random, entity: str, count: int, make: Any) -> None:
        """Append `count` rows; `make(i)` gives the logical cells (fk: the target row); ids and names are coined."""
        ...


class Mechanism(Protocol):
    """One mechanism: a file under `mechanisms/`, exported as `MECHANISM`."""

    name: str
    """Its name."""
    ports: Mapping[str, str]
    """Port (`actor`, `location`, `good`, `asset`) -> entity; entities of the same port are unified when joined."""

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw rule parameters (buffer hours, caps, quarantine ...)."""
        ...

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Entities with their columns under these rules."""
        ...

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill rows; shared entities only if they are still empty."""
        ...

    def derived(self, world: Composed) -> list[Derived]:
        """Derived attributes."""
        ...

    def actions(self, world: Composed) -> list[Action]:
        """Actions."""
        ...

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools; read tools are generated from the tables."""
        ...

    def policy(self, world: Composed) -> list[str]:
        """Rules that belong to no derived attribute or action."""
        ...


@runtime_checkable
class Normed(Protocol):
    """A mechanism that says what order is, so that a disorder can be planted in its worlds."""

    name: str
    """Its name."""

    def norms(self, world: Composed) -> list[Norm]:
        """Rules that all its rows keep; none where the world's options leave nothing to break."""
        ...


@dataclass(frozen=True, kw_only=True)
class InterfaceStyle:
    """How the read tools of a world look: a difficulty dial and an axis of generalisation."""

    page_size: int
    """Rows per listing call."""
    paging: Literal["page", "offset", "cursor", "none"]
    """How the next page is asked for: `page` (1-based), `offset` (rows to skip), `cursor` (text of the last reply),
    or that there are no pages (`none`): a listing is the whole list."""
    projection: Literal["full", "brief"]
    """Whether listings give all columns; brief only for tables of at most 30 rows."""
    filters: Literal["none", "relations", "relations+enums"]
    """Columns that listings can be filtered by (equality)."""
    lookup: Literal["id", "name"]
    """Whether a find-by-name tool exists."""
    error_style: Literal["code", "terse", "verbose"]
    """Error dialect of the environment."""
    ids: Literal["int", "code"]
    """Surrogate integers or codes such as `RR-7969`."""
    result_key: str
    """Key of the list in a listing's result."""
    verb: str
    """Verb of listing tools ("list", "search", "browse")."""


@dataclass(frozen=True, kw_only=True)
class EntityAccess:
    """How rows of one entity are read through tools; what the planner knows of the interface."""

    list_tool: str
    """Listing tool; takes the filters and the paging argument, all optional."""
    filters: tuple[str, ...]
    """Physical columns that it filters by."""
    columns: tuple[str, ...]
    """Physical columns that it returns."""
    get_tool: str | None
    """`get(id)` tool when the listing is brief."""
    find_tool: str | None
    """`find(name)` tool, if any; returns `{result_key: [rows]}`."""
