"""Lookup files say what the label table says, in the columns of each program."""

from __future__ import annotations

import shlex

import pytest

from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.anatomy.lookups import (
    bids_lookup,
    fsleyes_lookup,
    itksnap_lookup,
    slicer_lookup,
)


@pytest.mark.parametrize('region', REGIONS)
def test_number_colour_and_name_of_each_label(region: str) -> None:
    table = load_label_table(region)
    wanted = {label.index: (*label.rgb, label.name) for label in table}

    def lines(text: str) -> list[list[str]]:
        return [shlex.split(line) for line in text.splitlines() if not line.startswith('#')]

    clear, *rows = lines(itksnap_lookup(table))
    assert clear[0] == '0'
    assert {int(row[0]): (*map(int, row[1:4]), row[7]) for row in rows} == wanted
    background, *rows = lines(slicer_lookup(table))
    assert background[0] == '0'
    found = {int(row[0]): (*map(int, row[2:5]), row[1].replace('_', ' ')) for row in rows}
    assert found == wanted
    assert {row[5] for row in rows} == {'255'}
    rows = lines(fsleyes_lookup(table))
    found = {int(r[0]): (*(round(float(x) * 255) for x in r[1:4]), ' '.join(r[4:])) for r in rows}
    assert found == wanted


def test_what_is_in_the_middle_has_no_side() -> None:
    rows = bids_lookup(load_label_table('spine')).splitlines()
    assert rows[1].split('\t')[2] == 'VB'


@pytest.mark.parametrize(
    ('name', 'index'),
    [
        ('psoas major lt', 6),
        ('rt multifidus', 1),
        ('the left psoas major muscle', 6),
        ('MF (R)', 1),
        ('left_erector_spinae_2', 4),
        ('M. quadratus lumborum, L', 8),
        ('left right multifidus', None),
        ('multifidus', None),
        ('left psoas minor', None),
        ('L1', None),
    ],
)
def test_names_of_muscles_are_understood_in_one_way_everywhere(
    name: str, index: int | None
) -> None:
    label = load_label_table('lumbar').find(name)
    assert (label.index if label else None) == index
