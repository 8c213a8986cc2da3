"""Each line on what is trusted, and on faults of datasets, names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('page', ['SECURITY.md', 'docs/robustness.md'])
def test_each_line_names_tests_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding='utf-8')
    lines = re.findall(r'^\|(?! *-|-).*$', text, re.M)
    rows = [line for line in lines if not line.rstrip().endswith('| test |')]
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r'`(tests/[^`]+)`', row.rsplit('|', 2)[1])
        assert tests, row
        for name in tests:
            assert (ROOT / name).is_file(), f'{name} is not there: {row}'


def test_tests_named_in_the_text_are_there() -> None:
    for name in re.findall(r'`(tests/[^`]+)`', (ROOT / 'SECURITY.md').read_text(encoding='utf-8')):
        assert (ROOT / name).exists(), name
