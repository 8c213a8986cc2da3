"""A watchdog: a hang of the engine is a failure, not an endless test run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    def bark(*_: Any) -> NoReturn:
        raise TimeoutError('the engine hangs')

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(180)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
