"""A small cohort without noise, shared by the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.phantom.anatomy import Anatomy, build_anatomy
from bids_muscle.phantom.dataset import write_dataset
from bids_muscle.phantom.person import Person


@pytest.fixture(scope='session')
def person() -> Person:
    return Person('01', 45.0, 'F', 168.0, 25.0, 'main', 11)


@pytest.fixture(scope='session')
def lumbar(person: Person) -> Anatomy:
    return build_anatomy('lumbar', person, in_plane_mm=1.0, slice_mm=2.5)


@pytest.fixture(scope='session')
def cervical(person: Person) -> Anatomy:
    return build_anatomy('cervical', person, in_plane_mm=0.6, slice_mm=2.0)


@pytest.fixture(scope='session')
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person's lumbar scan of usual voxel size, without noise and coil fall-off."""
    return write_dataset(
        tmp_path_factory.mktemp('clean') / 'bids',
        participants=1,
        seed=2,
        contrasts=('dixon', 'inout'),
        shape=(230, 230, 12),
        voxel_mm=(1.1, 1.1, 4.5),
        snr=None,
        bias=0.0,
    )
