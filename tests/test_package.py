"""What a package index shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_link_of_the_description_leads_nowhere() -> None:
    command = [sys.executable, 'setup.py', '--quiet', '--long-description']
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    links = re.findall(r'\]\(([^)]*)\)', text)
    assert text.startswith('# bids_muscle')
    assert all(link.startswith(('https://', 'http://', '#')) for link in links)
    assert 'tutorial: from DICOM to statistics' in text
