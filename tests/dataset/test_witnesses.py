"""Which of name and sidecar is believed, on groups of images made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bids_muscle.dataset.contrasts import Classified
from bids_muscle.dataset.index import IndexedImage
from bids_muscle.dataset.scan import Contrast
from bids_muscle.dataset.witnesses import Entities, ImageGroup, join_partners, settle, word

WATER, FAT, IN, OUT = Contrast.WATER, Contrast.FAT, Contrast.IN_PHASE, Contrast.OPPOSED_PHASE
Member = tuple[Classified, IndexedImage]


def member(
    name: str,
    contrast: Contrast | None,
    source: str = 'name',
    other: Contrast | None = None,
    folder: str = 'anat',
    **metadata: Any,
) -> Member:
    other_source = 'name' if source != 'name' else 'ImageType'
    found = Classified(contrast, {}, source, other, other_source if other else '')
    return found, IndexedImage(Path(folder, name), 'T1w', {}, metadata)


def settled(*members: Member) -> ImageGroup:
    group = ImageGroup(list(members))
    settle(group)
    return group


def test_witnesses_that_agree_are_not_spoken_of() -> None:
    group = settled(member('w', WATER), member('f', FAT))
    assert (group.contrasts, group.remarks) == ([WATER, FAT], [])


def test_the_first_witness_is_believed_and_only_contradictions_are_named() -> None:
    group = settled(member('a', WATER, 'ImageType', FAT), member('b', IN))
    assert group.contrasts == [WATER, IN]
    assert group.remarks == [
        'a contradicts its sidecar: its ImageType water and its name fat. The ImageType is '
        'used, because the scanner wrote it. Correct one.'
    ]
    (remark,) = settled(member('a', OUT, 'name', IN)).remarks
    assert 'its name opposed-phase and its ImageType in-phase. The name is' in remark
    assert 'because the contrast rules prefer it' in remark


def test_the_second_witness_is_believed_where_the_first_makes_two_images_the_same() -> None:
    group = settled(member('a', WATER), member('b', WATER, 'ImageType', FAT))
    assert group.contrasts == [WATER, FAT]
    (remark,) = group.remarks
    assert 'The name is used, because by the ImageType two images' in remark
    # By the second they would be the same, too.
    group = settled(member('a', WATER, 'ImageType', FAT), member('b', WATER, 'ImageType', FAT))
    assert group.contrasts == [WATER, WATER]
    assert all('The ImageType is used' in remark for remark in group.remarks)


@pytest.mark.parametrize(
    ('times', 'turned'), [((0.00115, 0.0023), True), ((0.0023, 0.00115), False)]
)
def test_both_echo_times_turn_two_names(times: tuple[float, float], turned: bool) -> None:
    images = [
        member(name, contrast, EchoTime=echo_time_s, MagneticFieldStrength=3)
        for name, contrast, echo_time_s in zip('io', (IN, OUT), times, strict=True)
    ]
    group = settled(*images, member('w', WATER))
    assert group.contrasts == ([OUT, IN, WATER] if turned else [IN, OUT, WATER])
    assert len(group.remarks) == turned
    if turned:
        assert group.remarks[0].startswith(
            'By their EchoTime i is the opposed-phase and o the in-phase image'
        )
    # One of the two alone tells nothing.
    assert settled(images[0]).contrasts == [IN]


def joined(members: dict[str, Member]) -> dict[str, list[str]]:
    """Return the names of the images of each group, by its labels, after lone ones are joined."""
    groups: dict[Entities, ImageGroup] = {
        tuple(
            (key, label) for key, _, label in (part.partition('-') for part in name.split('_'))
        ): (ImageGroup([each]))
        for name, each in members.items()
    }
    join_partners(groups)
    return {
        '_'.join('-'.join(label) for label in key): [image.path.name for image in group.images]
        for key, group in groups.items()
    }


def test_images_that_only_sidecars_know_are_joined() -> None:
    water, fat = member('w', WATER, 'ImageType'), member('f', FAT, 'ImageType')
    assert joined({'sub-1_run-1': water, 'sub-1_run-2': fat}) == {'sub-1_acq-dixon': ['w', 'f']}
    assert joined({'sub-1_acq-a_run-1': water, 'sub-1_acq-a_run-2': fat}) == {
        'sub-1_acq-a': ['w', 'f']
    }
    # The labels of a scan come in the order of BIDS.
    assert joined({'sub-1_rec-x_run-1': water, 'sub-1_rec-x_run-2': fat}) == {
        'sub-1_acq-dixon_rec-x': ['w', 'f']
    }


@pytest.mark.parametrize(
    'partner',
    [
        member('f', FAT),
        member('f', FAT, 'ImageType', WATER),
        member('f', WATER, 'ImageType'),
        member('f', Contrast.T1W, 'ImageType'),
        member('f', FAT, 'ImageType', folder='other'),
    ],
    ids=['named', 'contradicted', 'the same', 'no Dixon image', 'elsewhere'],
)
def test_others_get_no_partner(partner: Member) -> None:
    water = member('w', WATER, 'ImageType')
    assert len(joined({'sub-1_run-1': water, 'sub-1_run-2': partner})) == 2


def test_words_of_messages() -> None:
    assert [word(each) for each in (OUT, WATER, None)] == ['opposed-phase', 'water', 'nothing']
