"""The smallest honest servers of two peers over the same tools, and the clients that drive them: run by `benchmarks.synthesis`.

This file imports nothing of envsynth: it runs in an interpreter that has `mcp` and `openenv-core`, which may be another one.
`client KIND WORLD` starts the peer's server, replays the calls of the world once, prints what they returned, and then for
every line with a number of seconds prints a line with calls per second. `server KIND WORLD` is that server.

Servers hold the database in memory and call the tool functions directly: no jail, no checks, no more than the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = {"mcp": "mcp", "openenv": "openenv-core"}
"""Kind of peer -> the package that it comes with."""

Call = Callable[[str, dict[str, Any]], Awaitable[str]]


class Refusal(Exception):
    """What a tool raises to refuse."""


class World:
    """The tools of an environment over its database in memory."""

    def __init__(self, path: str) -> None:
        world = json.loads(Path(path).read_text(encoding="utf-8"))
        self.steps: list[dict[str, Any]] = world["steps"]
        self.schemas: dict[str, dict[str, Any]] = {tool["name"]: tool["parameters"] for tool in world["tools"]}
        self._image = bytes.fromhex(world["image"])
        self._functions: dict[str, Any] = {}
        for tool in world["tools"]:
            space: dict[str, Any] = {"Refusal": Refusal}
            exec(tool["source"], space)  # noqa: S102 - sources of our own author
            self._functions[tool["name"]] = space[tool["name"]]
        self.open()

    def open(self) -> None:
        """Open the database anew."""
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.deserialize(self._image)
        self._db.row_factory = lambda cursor, row: {
            column[0]: cell for column, cell in zip(cursor.description, row, strict=True)
        }

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool; a refusal is a result."""
        try:
            return json.dumps(self._functions[tool](self._db, **arguments))
        except Refusal as refusal:
            return json.dumps({"refused": str(refusal)})


def digest(texts: list[str]) -> str:
    """Hash what calls returned."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


# ------------------------------------------------------------------------------------------------------------------ mcp


async def mcp_server(world: World) -> None:
    """Serve the tools over stdio, with the low-level server of the SDK."""
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    async def list_tools(context: Any, parameters: Any) -> Any:
        tools = [types.Tool(name=name, input_schema=schema) for name, schema in world.schemas.items()]
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, parameters: Any) -> Any:
        text = world.call(parameters.name, parameters.arguments or {})
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    server: Any = Server("world", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


@contextlib.asynccontextmanager
async def mcp_client(path: str) -> AsyncIterator[Call]:
    """Start the stdio server and connect to it."""
    from mcp import ClientSession
    from mcp.client.stdio import StdioServerParameters, stdio_client

    parameters = StdioServerParameters(command=sys.executable, args=[__file__, "server", "mcp", path])
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await session.list_tools()

        async def call(tool: str, arguments: dict[str, Any]) -> str:
            result: Any = await session.call_tool(tool, arguments)
            return result.content[0].text

        yield call


# -------------------------------------------------------------------------------------------------------------- openenv


async def openenv_server(world: World, listener: socket.socket) -> None:
    """Serve the tools as an OpenEnv environment on a socket that listens on the loopback address."""
    import uvicorn
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class ToolAction(Action):
        tool: str
        arguments: dict[str, Any]

    class ToolObservation(Observation):
        text: str = ""

    class ToolWorld(Environment):
        def reset(self, *args: Any, **options: Any) -> ToolObservation:
            world.open()
            return ToolObservation()

        def step(self, action: ToolAction, *args: Any, **options: Any) -> ToolObservation:
            return ToolObservation(text=world.call(action.tool, action.arguments))

        @property
        def state(self) -> State:
            return State()

    app = create_fastapi_app(ToolWorld, ToolAction, ToolObservation)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def openenv_client(path: str) -> AsyncIterator[Call]:
    """Start the server and connect to its WebSocket."""
    from openenv.core import GenericEnvClient

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        number = str(listener.fileno())
        server = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "server", "openenv", path, number, pass_fds=(listener.fileno(),)
        )
        try:
            async with GenericEnvClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=60
            ) as client:
                await client.reset()

                async def call(tool: str, arguments: dict[str, Any]) -> str:
                    result = await client.step({"tool": tool, "arguments": arguments})
                    return result.observation["text"]

                yield call
        finally:
            if server.returncode is None:
                server.terminate()
            await server.wait()


# ----------------------------------------------------------------------------------------------------------------- main


async def drive(kind: str, path: str) -> None:
    """Serve lines of seconds with lines of rates."""
    client = {"mcp": mcp_client, "openenv": openenv_client}[kind]
    steps = [(step["tool"], step["arguments"]) for step in World(path).steps]
    async with client(path) as call:
        first = [await call(*step) for step in steps]
        version = metadata.version(PACKAGES[kind])
        print(json.dumps({"version": version, "returned": digest(first)}), flush=True)
        for line in sys.stdin:
            seconds, began, done = float(line), time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                for step in steps:
                    await call(*step)
                done += len(steps)
            print(done / (time.perf_counter() - began), flush=True)


def main(role: str, kind: str, path: str, *rest: str) -> None:
    """Be a client or a server."""
    if role == "client":
        asyncio.run(drive(kind, path))
    elif kind == "mcp":
        asyncio.run(mcp_server(World(path)))
    else:
        asyncio.run(openenv_server(World(path), socket.socket(fileno=int(rest[0]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
