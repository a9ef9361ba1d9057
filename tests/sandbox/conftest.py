from __future__ import annotations

from collections.abc import Iterator

import pytest

from envsynth.sandbox import Jail, Limits, Worker
from tests.sandbox.sample_tools import tools


@pytest.fixture(scope="session")
def jail() -> Iterator[Jail]:
    """A jail with short limits, shared by all tests; workers are fresh in each."""
    with Jail(Limits(soft_s=0.3, hard_s=1.0, memory_mb=128, frame_bytes=1 << 20, blob_bytes=8 << 20)) as opened:
        yield opened


@pytest.fixture
def worker(jail: Jail) -> Iterator[Worker]:
    """A tools worker with the sample tools and an empty table."""
    with tools(jail) as opened:
        yield opened
