"""The review page shows pictures within archives where one page can hold them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.scan import Scan
from bids_muscle.reports import review as module
from bids_muscle.reports.cohort_values import read_values
from bids_muscle.reports.group import write_group
from bids_muscle.reports.outliers import robust_scores
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.scan_data import scan_data

AddScan = Callable[..., Path]
SERVE = 'bids_muscle-report serve'


@pytest.fixture
def packed(add_scan: AddScan) -> Path:
    """Two scans whose figures are in archives."""
    for label in ('01', '02'):
        output_dir = add_scan(label)
        scan = Scan((('sub', label), ('acq', 'dixon')), 'T1w', 'lumbar', ())
        archive = output_dir / derivative_path(scan, 'packed_figures')
        with zipfile.ZipFile(archive, 'w') as content:
            for path in sorted(archive.parent.glob('*_desc-*')):
                content.write(path, path.name.partition('_desc-')[2])
                path.unlink()
    return output_dir


def test_few_are_part_of_the_page(packed: Path) -> None:
    write_group(packed)
    page = (packed / 'group_review.html').read_text()
    assert page.count('"outlined": "data:image/webp;base64,') == 2
    assert page.count(SERVE) == 1


def test_of_many_the_page_says_where_they_are(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'MOST_EMBEDDED', 1)
    write_group(packed)
    page = (packed / 'group_review.html').read_text()
    assert 'data:image/webp' not in page
    assert 'too many for one page' in page
    assert page.count(SERVE) == 3


def test_the_server_is_asked_for_each(packed: Path) -> None:
    scans = read_scans(packed)
    values = read_values(scans)
    data = scan_data(values, {}, robust_scores(values, ()))
    served = {'rater': '', 'readonly': False, 'ratings': {}}
    page = ''.join(module.review_page(scans, data, packed, served))
    assert 'data:image/webp' not in page
    assert 'too many for one page' not in page
    for address in re.findall('"(?:thumbnail|outlined|bare|extent)": "([^"]+)"', page):
        archive, _, name = address.rpartition('/')
        with zipfile.ZipFile(packed / archive) as content:
            assert content.read(name)
