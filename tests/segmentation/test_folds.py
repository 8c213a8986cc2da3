"""People, not scans, are dealt to folds and splits."""

from __future__ import annotations

import pytest

from bids_muscle.errors import UsageError
from bids_muscle.segmentation.training.folds import ROLES, share_out

PEOPLE = [f'a/sub-{k:02}' for k in range(24)]


def test_everybody_has_one_role_whatever_the_order() -> None:
    roles = share_out([*PEOPLE, *PEOPLE], (75, 15, 10), seed=3)
    assert list(roles) == PEOPLE
    assert [list(roles.values()).count(role) for role in ROLES] == [18, 4, 2]
    assert share_out(PEOPLE[::-1], (75, 15, 10), seed=3) == roles
    assert share_out(PEOPLE, (75, 15, 10), seed=4) != roles


def test_a_role_without_a_share_has_nobody() -> None:
    roles = share_out(PEOPLE[:2], (17, 0, 18), seed=0)
    assert sorted(roles.values()) == ['test', 'train']


def test_people_who_are_tested_on_whatever_the_shares() -> None:
    roles = share_out(PEOPLE, (85, 15, 0), 0, tested=PEOPLE[:10])
    assert [name for name, role in roles.items() if role == 'test'] == PEOPLE[:10]
    assert list(roles.values()).count('validation') == 2


@pytest.mark.parametrize(
    ('people', 'shares', 'said'),
    [
        (PEOPLE[:2], (75, 15, 10), 'too few'),
        (PEOPLE, (0, 50, 50), 'shares'),
        (PEOPLE, (50, 50), 'shares'),
        (PEOPLE, (50, 60, -10), 'shares'),
    ],
)
def test_says_why_there_is_no_split(
    people: list[str], shares: tuple[float, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        share_out(people, shares, 0)
