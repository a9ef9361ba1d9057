"""Actors by name, made where they are needed: a factory crosses process borders, an actor does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from envsynth.actors.chat_actor import ChatActor
from envsynth.actors.human import HumanActor
from envsynth.actors.noisy import NoisyActor, noise_share
from envsynth.actors.random_play import RandomActor
from envsynth.actors.scripted import ConstantActor, EchoActor, EmptyActor, IdleActor
from envsynth.actors.slots import SlotActor
from envsynth.actors.solution import AblatedActor, OracleActor
from envsynth.chat import Cassette, ChatBudget, ChatClient, ChatOptions, DiskCache
from envsynth.errors import SpecError
from envsynth.spec import TaskVersion

_CHAT_OPTIONS = tuple(item.name for item in fields(ChatOptions) if item.name != "model")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "oracle": (),
    "idle": (),
    "empty": (),
    "echo": (),
    "constant": ("answer",),
    "random": ("seed", "max_calls"),
    "human": ("ask", "tell"),
    "ablated": (),
    "noisy": (),
    "chat": (
        *_CHAT_OPTIONS,
        "mode",
        "keep_thinking",
        "cache",
        "cassette",
        "replay",
        "budget_requests",
        "budget_tokens",
    ),
}
_WITH_DETAIL = {"ablated": "ablated:SKILL", "noisy": "noisy:SHARE", "chat": "chat:MODEL"}
_REQUIRED = {"constant": ("answer",), "human": ("ask", "tell")}


def actor_names() -> list[str]:
    """Return the names that `actor_factory` takes, for help texts."""
    return [_WITH_DETAIL.get(kind, kind) for kind in _OPTIONS]


@dataclass(frozen=True)
class ActorFactory:
    """Makes one actor per call. Picklable when its options are."""

    name: str
    """The actor's name."""
    tasks: Mapping[str, TaskVersion] = field(repr=False)
    """Private tasks by hash, for the actors that play solutions; empty for all others."""
    options: Mapping[str, Any] = field(repr=False)
    """Options of the actor."""

    def __call__(self) -> SlotActor | ChatActor:
        """Make the actor.

        Returns:
            A new actor; the caller closes it.

        Raises:
            ChatError: the chat cache or cassette cannot be used.
        """
        kind, _, detail = self.name.partition(":")
        options = dict(self.options)
        if kind == "chat":
            return _chat_actor(detail, options)
        if kind == "oracle":
            return OracleActor(self.tasks)
        if kind == "ablated":
            return AblatedActor(self.tasks, detail)
        if kind == "noisy":
            return NoisyActor(self.tasks, detail)
        makers: dict[str, Callable[..., SlotActor]] = {
            "idle": IdleActor,
            "empty": EmptyActor,
            "echo": EchoActor,
            "constant": ConstantActor,
            "random": RandomActor,
            "human": HumanActor,
        }
        return makers[kind](**options)


def actor_factory(
    name: str, tasks: Iterable[TaskVersion] | Mapping[str, TaskVersion] = (), **options: object
) -> ActorFactory:
    """Return what makes an actor of that name.

    Args:
        name: `oracle`, `ablated:SKILL`, `noisy:SHARE`, `idle`, `empty`, `echo`, `constant`, `random`, `human` or `chat:MODEL`.
        tasks: The tasks that it may be asked to play; only `oracle`, `ablated` and `noisy` see them.
        **options: `constant`: answer. `random`: seed, max_calls. `human`: ask, tell. `chat`: the fields of `ChatOptions`,
            mode and keep_thinking of `ChatActor`, cache (folder), cassette (file), replay (bool), budget_requests and
            budget_tokens (limits of each process that plays).

    Returns:
        The factory; its `name` is the name of its actors.

    Raises:
        SpecError: no actor has that name, or an option is unknown or missing.
    """
    kind, _, detail = name.partition(":")
    if kind not in _OPTIONS or bool(detail) != (kind in _WITH_DETAIL):
        raise SpecError(f"no actor is called {name!r}: use one of {', '.join(actor_names())}")
    if unknown := [key for key in options if key not in _OPTIONS[kind]]:
        known = ", ".join(_OPTIONS[kind]) or "none"
        raise SpecError(f"actor {name!r} has no option {unknown[0]!r}: it has {known}")
    if missing := [key for key in _REQUIRED.get(kind, ()) if key not in options]:
        raise SpecError(f"actor {name!r} needs the option {missing[0]!r}")
    private: dict[str, TaskVersion] = {}
    if kind == "noisy":
        noise_share(detail)
    if kind in ("oracle", "ablated", "noisy"):
        named = tasks.items() if isinstance(tasks, Mapping) else [(task.hash, task) for task in tasks]
        private.update(cast("Iterable[tuple[str, TaskVersion]]", named))
    return ActorFactory(name, private, options)


def _chat_actor(model: str, options: dict[str, Any]) -> ChatActor:
    sampling = {key: options[key] for key in _CHAT_OPTIONS if key in options}
    cassette = options.get("cassette")
    cache = options.get("cache")
    client = ChatClient(
        ChatOptions(model=model, **sampling),
        budget=ChatBudget(options.get("budget_requests"), options.get("budget_tokens")),
        cache=None if cache is None else DiskCache(cache),
        cassette=None if cassette is None else Cassette(cassette, replay=bool(options.get("replay", False))),
    )
    manner = {key: options[key] for key in ("mode", "keep_thinking") if key in options}
    return ChatActor(client, **cast("dict[str, Any]", manner))
