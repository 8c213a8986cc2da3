"""Every command of docs/tutorial.md runs, and what the page says comes out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pytest
from cohort import muscles_are_true, rows

DOCS = Path(__file__).parents[2] / 'docs'
KINDS = ('fat', 'water')
MUSCLES = 'sub-{0}/anat/sub-{0}_acq-dixon_seg-lumbarmuscles'

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Done:
    """The folder in which the tutorial was done, and what its code printed."""

    folder: Path
    printed: str


@pytest.fixture(scope='module')
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Done:
    if not shutil.which('dcm2niix'):
        pytest.skip('dcm2niix is not installed')
    folder = tmp_path_factory.mktemp('tutorial')
    shutil.copytree(DOCS / 'dicom', folder / 'dicom')
    page = (DOCS / 'tutorial.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```(sh|python)\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    # One shell for all, as a reader has.
    script = ''.join(
        code if language == 'sh' else f"python - <<'END'\n{code}END\n" for language, code in blocks
    )
    beside = Path(sys.executable).parent
    result = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', script],
        cwd=folder,
        env={**os.environ, 'PATH': f'{beside}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return Done(folder, result.stdout)


def test_the_sample_is_the_same_for_everybody(tutorial: Done) -> None:
    """A change of these numbers makes earlier reports of bugs those of other scans."""
    stem = tutorial.folder / 'study/sub-01/anat/sub-01_acq-dixon'
    sums = [float(nib.load(f'{stem}{name}_T1w.nii.gz').get_fdata().sum()) for name in KINDS]
    assert sums == pytest.approx([44_735_057, 17_172_280], rel=1e-4)


def test_muscles_are_those_of_the_truth(tutorial: Done) -> None:
    truth = tutorial.folder / 'study/derivatives/truth'
    for label in ('01', '04'):
        stem = MUSCLES.format(label)
        muscles_are_true(str(tutorial.folder / 'out' / stem), str(truth / stem))


def test_a_corrected_outline_counts(tutorial: Done) -> None:
    """From the true outlines come the true measures, of this person alone."""
    stem = MUSCLES.format('02')
    made = rows(tutorial.folder / f'out/{stem}_morph.tsv')
    true = rows(tutorial.folder / f'study/derivatives/truth/{stem}_morph.tsv')
    for found, wanted in zip(made, true, strict=True):
        mfi = float(found['mfi_ratio_of_means_pct'])
        assert mfi == pytest.approx(float(wanted['mfi_pct']), abs=1.5), found['name']
    muscles = rows(tutorial.folder / 'out/group_muscles.tsv')
    by_hand = {row['participant_id'] for row in muscles if row['label_source'] == 'manual'}
    assert by_hand == {'sub-02'}


def test_what_the_page_names_is_there(tutorial: Done) -> None:
    page = (DOCS / 'tutorial.md').read_text(encoding='utf-8')
    names = re.findall(r'`(out/[\w./-]+)`', page)
    assert {'out/sub-01.html', 'out/group.html', 'out/group_review.html'} <= set(names)
    for name in [*names, 'study/sub-04/anat/sub-04_acq-dixonfat_T1w.nii.gz']:
        assert (tutorial.folder / name).exists(), name
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', page):
        assert (DOCS / target).exists(), target
    assert 'multifidus' in tutorial.printed.rsplit('mean', 1)[1]


def test_the_notebook_runs_in_the_folder_of_the_tutorial(tutorial: Done) -> None:
    """Its last cell compares the label map of the Python call with that of the command."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / 'tutorial.ipynb', as_version=4)
    assert not any(cell.get('outputs') for cell in notebook.cells)
    place = {'metadata': {'path': str(tutorial.folder)}}
    NotebookClient(notebook, timeout=900, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 2
    assert outputs[-1]['data']['text/plain'] == 'True'
