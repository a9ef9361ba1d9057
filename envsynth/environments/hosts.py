"""Where the worlds of episodes live: tools workers of one environment, each for one world or for several."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Literal

from envsynth.environments.dispatch import PART
from envsynth.errors import EnvironmentVoid, SandboxError
from envsynth.sandbox import Failure, Family, Jail, Source, Worker
from envsynth.sandbox.requests import Request, call, drop_database, drop_image, hold_image, open_held, open_image
from envsynth.spec import EnvironmentSpec
from envsynth.verifiers import SchemaCheck

Reset = Literal["reload", "fork"]
"""How a world is made fresh: `reload` fills the database anew and makes new namespaces in the same process, for tools that
passed the gates; `fork` takes a fresh process for each episode, for tools that nobody has vetted."""

WORLDS_PER_WORKER = 64
"""Worlds that share a process when reset by reload; when it dies, all of them are void."""

WORLDS_BYTES = 24 << 20
"""Size of the images of worlds that share a process; each needs room for its changes and its replies as well."""

HELD_BYTES = 24 << 20
"""Images that a worker keeps to reset from; its memory limit is several times that."""

READY_BYTES = 128 << 10
"""Largest image that workers have open before they are handed out: a larger one does not fit into a socket's buffer, and
the host would wait for the process to begin."""

READY_IMAGES = 4
"""Images of an environment for which workers wait: each has a pool of its own, and a jail keeps few pools."""

_MAIN = "main"
"""Name of the only world of a worker that serves one episode."""

TIRED = 0.6
"""Share of its processor seconds after which a worker gets no new episodes."""


@functools.cache
def _dispatch_source() -> str:
    package = resources.files("envsynth.environments")
    return package.joinpath("dispatch.py").read_text(encoding="utf-8")


def tool_family(spec: EnvironmentSpec) -> Family:
    """The family of an environment's tools workers: its tools, and what dispatches calls to them."""
    parts = tuple(Source(name=PART + tool.name, text=tool.source, part=True) for tool in spec.tools)
    dispatch = Source(name="tool_dispatch", text=_dispatch_source())
    return Family("tools", (*parts, dispatch, Source(name="tool_start", text="take_tools(PARTS)\n")))


@dataclass(eq=False)
class Host:
    """A tools worker and the worlds in it."""

    worker: Worker
    worlds: dict[str, int] = field(default_factory=dict[str, int])
    """Sizes of the images that they began with, by name of the database."""
    held: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    """Sizes of the images that it keeps, by key."""
    used_s: float = 0.0
    """Processor seconds that it said to have used; it may lie, and is then killed at its limit."""
    left: list[str] = field(default_factory=list[str])
    """Worlds that were left and are still to be dropped."""


class WorldHosts:
    """The hosts of one environment.

    Args:
        jail: Where workers are forked.
        spec: The environment.
        reset: How worlds are made fresh.
        share: Worlds per worker; 1 with `reset="fork"`.
    """

    def __init__(self, jail: Jail, spec: EnvironmentSpec, *, reset: Reset = "reload", share: int = 1) -> None:
        self._jail = jail
        self._family = tool_family(spec)
        self._reset: Reset = reset
        self._share = share if reset == "reload" else 1
        self._hosts: list[Host] = []
        self._ready: dict[str, Family] = {}  # by key of the image, for fresh workers that have it open
        self._names = (f"w{number}" for number in itertools.count())
        self.checks: dict[str, SchemaCheck] = {}
        """Checks of arguments by tool, once used; all slots share them."""

    @property
    def jail(self) -> Jail:
        """Where workers are forked."""
        return self._jail

    @property
    def mode(self) -> Reset:
        """How worlds are made fresh."""
        return self._reset

    def seat(self, old: tuple[Host, str] | None, key: str, image: bytes) -> tuple[Host, str]:
        """Find the place for the next episode of a world.

        Args:
            old: Where its last episode was played.
            key: Name of the image that it begins with, the same for equal images.
            image: The image.

        Returns:
            The host and the name of the database; the old ones if they can be used again.

        Raises:
            EnvironmentVoid: no worker can be had, or the tools do not load.
        """
        size = len(image)
        if old is not None:
            others = sum(old[0].worlds.values()) - old[0].worlds[old[1]]
            fits = len(old[0].worlds) == 1 or others + size <= WORLDS_BYTES
            if self._reset == "reload" and fits and self._fit(old[0]):
                old[0].worlds[old[1]] = size
                return old
            self.leave(old)
        alone = self._reset == "fork"
        name = _MAIN if alone else next(self._names)
        host = next((item for item in self._hosts if self._has_room(item, size) and self._fit(item)), None)
        if host is None:
            host = Host(self._fresh(self._with_image(key, image) if alone else self._family))
            self._hosts.append(host)
        host.worlds[name] = size
        return host, name

    def _has_room(self, host: Host, size: int) -> bool:
        return len(host.worlds) < self._share and sum(host.worlds.values()) + size <= WORLDS_BYTES

    def _fit(self, host: Host) -> bool:
        return host.worker.alive and host.used_s < TIRED * self._jail.limits.cpu_s

    def _with_image(self, key: str, image: bytes) -> Family:
        if key not in self._ready:
            if len(image) > READY_BYTES or len(self._ready) >= READY_IMAGES:
                return self._family
            self._ready[key] = replace(self._family, image=image)
        return self._ready[key]

    def _fresh(self, family: Family) -> Worker:
        try:
            return self._jail.ready_worker(family)
        except SandboxError as error:
            if error.failure != Failure.SANDBOX_UNAVAILABLE.value:
                self._name_what_does_not_compile()
            raise EnvironmentVoid(f"the tools worker could not be started: {error}", error.failure) from error

    def _name_what_does_not_compile(self) -> None:
        for source in self._family.sources:
            try:
                self._jail.compiled((source,))
            except SandboxError as error:
                tool = source.name.removeprefix(PART)
                raise EnvironmentVoid(
                    f"tool {tool!r} does not load: {error}; correct its source", error.failure
                ) from error

    def reset_requests(self, seat: tuple[Host, str], key: str, image: bytes) -> list[Request]:
        """List what makes a world fresh; the last one's result is the processor seconds that the worker has used.

        Args:
            seat: From `seat`.
            key: Name of the image, the same for equal images.
            image: What the database is filled with.
        """
        host, name = seat
        requests: list[Request] = []
        for gone in host.left:
            requests += [drop_database(gone), call("drop_tools", {"world": gone})]
        host.left.clear()
        fresh = call("fresh_tools", {"world": name})
        if self._reset == "fork":  # one episode: nothing is worth keeping for the next
            return [fresh] if key in self._ready else [open_image(name, image, keys=True), fresh]
        if key in host.held:
            host.held.move_to_end(key)
        else:
            while host.held and sum(host.held.values()) + len(image) > HELD_BYTES:
                requests.append(drop_image(host.held.popitem(last=False)[0]))
            host.held[key] = len(image)
            requests.append(hold_image(key, image))
        return [*requests, open_held(name, key, keys=True), fresh]

    def leave(self, seat: tuple[Host, str]) -> None:
        """Give a place up; the last one to leave ends the worker."""
        host, name = seat
        host.worlds.pop(name, None)
        host.left.append(name)
        if not host.worlds or not host.worker.alive:
            host.worker.close()
        if not host.worker.alive and host in self._hosts:
            self._hosts.remove(host)
