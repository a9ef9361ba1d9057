"""A PostgreSQL server of our own in a temporary folder, for acceptance and tests; it ends with its block."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cret/p@ss"
"""Of the user `envsynth`; it must never be printed, and its odd characters must be quoted in a URL."""
_PATIENCE_S = 60


@dataclass(frozen=True)
class Server:
    """A running server."""

    folder: Path
    """Its files; the socket is there too."""
    port: int
    """Its port on this machine alone."""
    bin: Path
    """Its programs."""

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        return f"postgresql+psycopg://envsynth:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement with the server's own client."""
        command = [self.bin / "psql", "-XtA", "-h", "127.0.0.1", "-p", str(self.port), "-U", "envsynth"]
        command += ["-v", "ON_ERROR_STOP=1", "-c", statement, database]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def new_database(self, name: str, *, options: str = "") -> str:
        """Make a database and return its URL."""
        self.sql(f"CREATE DATABASE {name} {options}")
        return self.url(name)


def programs() -> Path | None:
    """Return the folder of the server's programs, or None when there are none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).resolve().parent] if found else []
    return next((path for path in folders if (path / "initdb").exists() and (path / "psql").exists()), None)


def _plain_user() -> dict[str, int]:
    """The server refuses to run as root."""
    if os.getuid():
        return {}
    names = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
    entry = pwd.getpwnam(names[0])
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server() -> Iterator[Server]:
    """Start a server with the user `envsynth`, who must give a password.

    Yields:
        The server.

    Raises:
        RuntimeError: its programs are absent, or it does not start.
    """
    bin_folder = programs()
    if bin_folder is None:
        raise RuntimeError("the programs of a PostgreSQL server are not installed")
    user = _plain_user()
    with tempfile.TemporaryDirectory(prefix="envsynth-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                os.chown(path, user["user"], user["group"])
        make = [bin_folder / "initdb", "-D", folder / "data", "-U", "envsynth", f"--pwfile={folder / 'password'}"]
        make += ["--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        done = subprocess.run(make, **user, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")
        port = _free_port()
        serve = [bin_folder / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder]
        for setting in ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=40"):
            serve += ["-c", setting]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(serve, **user, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            running = Server(folder, port, bin_folder)
            _await(running, process)
            yield running
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is needed any more
            process.wait(_PATIENCE_S)


def _await(running: Server, process: subprocess.Popen[bytes]) -> None:
    ready = [running.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(running.port)]
    until = time.monotonic() + _PATIENCE_S
    while subprocess.run(ready, check=False).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server does not start: {(running.folder / 'log').read_text()[-2000:]}")
        time.sleep(0.1)
