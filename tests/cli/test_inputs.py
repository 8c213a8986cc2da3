"""Files that settings name: when they must be there, and by which path a job finds them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bids_muscle.cli.folders import check_input
from bids_muscle.cli.slurm_job import with_model_paths
from bids_muscle.errors import MissingInputError
from bids_muscle.segmentation.catalogue import packaged_models
from bids_muscle.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    bids_dir = tmp_path / 'bids'
    bids_dir.mkdir()
    text = '{"Name": "x", "BIDSVersion": "1.9.0"}'
    (bids_dir / 'dataset_description.json').write_text(text)
    return Settings(bids_dir=bids_dir, output_dir=tmp_path / 'out', level='participant')


def test_ratings_need_not_be_there_before_the_group_level(settings: Settings) -> None:
    settings = replace(settings, qc_ratings=(Path('/nowhere/ratings.tsv'),))
    check_input(settings)
    with pytest.raises(MissingInputError, match=r'ratings\.tsv'):
        check_input(replace(settings, level='group'))


def test_a_job_finds_the_users_model_from_any_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(packaged_models() / 'lumbar', tmp_path / 'mine')
    monkeypatch.chdir(tmp_path)
    found = with_model_paths(replace(settings, model='mine'))
    assert found.model == str(tmp_path / 'mine')
    packaged = replace(settings, model='lumbar-unet2d')
    assert with_model_paths(packaged) == packaged
