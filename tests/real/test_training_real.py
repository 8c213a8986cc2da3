"""Labelled scans of other people are found as training data without any pattern."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bids_muscle.segmentation.training.recipe import Source, find_recipe
from bids_muscle.workflows.training import find_all_cases


def test_finds_labels_images_and_codes(real_data: Path) -> None:
    source = Source('people', kind='bids', seg='paraspinal', weight=2.0)
    recipe = replace(find_recipe('lumbar'), sources=(source,))
    roots = [real_data / 'dixon-lumbar', real_data / 'oblique-lumbar']
    dixon, oblique = find_all_cases(recipe, roots)
    assert dixon.participant == 'dixon-lumbar/sub-TUM01'
    assert dixon.source.codes == {1: 3, 2: 1, 3: 2, 4: 4}
    assert dixon.source.annotated == (1, 2, 3, 4)
    assert [path.name.split('_')[1] for path in dixon.images.values()] == [
        'acq-dixonwater',
        'acq-dixonfat',
    ]
    assert oblique.source.codes == {number: number for number in range(1, 9)}
    assert list(oblique.images) == ['T2w']
    assert dixon.source.weight == oblique.source.weight == 1.0
