"""A private Docker daemon with one idle container, to time `docker exec` in; needs root, `dockerd` and no registry."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("/bin/true", "/bin/sleep")
START_S = 30.0


def files_of(programs: tuple[str, ...]) -> dict[str, bytes]:
    """Programs and the libraries that they load, by path."""
    found: dict[str, bytes] = {}
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(0x", listed)):
            found[path] = Path(path).read_bytes()
    return found


def image_tar(files: dict[str, bytes]) -> bytes:
    """A root file system as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@contextlib.contextmanager
def idle_container() -> Iterator[list[str] | None]:
    """Start a daemon and a container without network.

    Yields:
        The beginning of a command that runs a program in the container; None where Docker cannot be started.
    """
    if shutil.which("dockerd") is None or shutil.which("docker") is None or os.geteuid() != 0:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        docker = ["docker", "-H", f"unix://{folder}/docker.sock"]
        command = [
            "dockerd",
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
            "--pidfile",
            f"{folder}/pid",
        ]
        command += ["-H", f"unix://{folder}/docker.sock", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as daemon:
            try:
                yield _container(docker, folder, daemon)
            finally:
                subprocess.run([*docker, "kill", "bench"], capture_output=True, check=False)
                daemon.terminate()


def _container(docker: list[str], folder: Path, daemon: subprocess.Popen[bytes]) -> list[str] | None:
    deadline = time.monotonic() + START_S
    while subprocess.run([*docker, "info"], capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            print((folder / "log").read_text(encoding="utf-8")[-500:])
            return None
        time.sleep(0.2)
    made = image_tar(files_of(PROGRAMS))
    subprocess.run([*docker, "import", "-", "bench:latest"], input=made, capture_output=True, check=True)
    start = ["run", "-d", "--rm", "--name", "bench", "--network", "none", "bench:latest", "/bin/sleep", "600"]
    subprocess.run([*docker, *start], capture_output=True, check=True)
    return [*docker, "exec", "bench"]
