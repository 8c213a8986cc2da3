"""A finished run of both levels, and how to start one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GOOD = ('01', '02')


@dataclass(frozen=True)
class Run:
    """A finished run of both levels."""

    bids_dir: Path
    output_dir: Path
    participant: subprocess.CompletedProcess[str]
    group: subprocess.CompletedProcess[str]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, '-m', 'bids_muscle', *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
    )
