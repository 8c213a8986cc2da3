"""A finished run of both levels, and how to start one."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.statistics.overlap import overlap

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


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def muscles_are_true(made_stem: str, true_stem: str) -> None:
    """Compare label map and measures of one scan with the truth of the phantom."""
    made, true = (
        nib.as_closest_canonical(nib.load(f'{stem}_dseg.nii.gz'))
        for stem in (made_stem, true_stem)
    )
    np.testing.assert_allclose(made.affine, true.affine, atol=1e-3)
    counts = overlap(np.asarray(made.dataobj), np.asarray(true.dataobj), range(1, 9))
    dice = {index: count.dice for index, count in counts.items()}
    # Left and right exchanged would give 0.
    assert min(dice.values()) > 0.5, dice
    assert np.mean(list(dice.values())) > 0.8, dice
    measures, truths = (
        {row['index']: row for row in rows(Path(f'{stem}_morph.tsv'))}
        for stem in (made_stem, true_stem)
    )
    for index in '1234':  # multifidus and erector spinae, whose outlines are the surest
        found, wanted = measures[index], truths[index]
        assert found['name'] == wanted['name']
        mfi = float(found['mfi_ratio_of_means_pct'])
        assert mfi == pytest.approx(float(wanted['mfi_pct']), abs=5), found['name']
        volume = float(found['volume_ml'])
        assert volume == pytest.approx(float(wanted['label_volume_ml']), rel=0.35), found['name']
