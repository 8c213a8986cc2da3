"""The editor in Firefox: draw, save, reload, and find it again."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from firefox import FIREFOX, Firefox
from waitress.server import create_server

from bids_muscle.dataset.corrections import correction_path
from bids_muscle.dataset.scan import Scan
from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState

SCAN = Scan((('sub', '1'), ('acq', 'dixon')), 'T1w', 'lumbar', ())

XVFB = shutil.which('Xvfb')

pytestmark = [
    pytest.mark.skipif(
        FIREFOX is None,
        reason='no Firefox: apt-get install firefox-esr, or set BIDS_MUSCLE_FIREFOX',
    ),
    pytest.mark.skipif(
        XVFB is None, reason='no Xvfb, without which Firefox has no WebGL: apt-get install xvfb'
    ),
]


@pytest.fixture
def address(output: Path) -> Iterator[str]:
    """Serve the small output folder; gives the address with its token."""
    review = ReviewState(output, LOOPBACK, 'Anna')
    server = create_server(create_app(review), host=LOOPBACK[0], port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f'http://127.0.0.1:{server.effective_port}/?token={review.tokens.next}'
    server.close()
    thread.join()


@pytest.fixture
def display() -> Iterator[str]:
    """Start an X server without a screen; gives its name."""
    server = subprocess.Popen([str(XVFB), '-displayfd', '1'], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    yield f':{server.stdout.readline().strip()}'
    server.terminate()
    server.wait()


def test_a_stroke_is_saved_and_found_again(
    output: Path, address: str, display: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    firefox = Firefox(tmp_path_factory.mktemp('profile'), 'http://127.0.0.1:', display=display)
    try:
        firefox.visit(address)
        firefox.wait("document.getElementById('wall')")
        firefox.visit(f'{address.partition("?")[0]}edit/{SCAN.name}')
        message = "document.getElementById('message').textContent"
        firefox.wait(f'document.documentElement.dataset.ready || {message}')
        assert firefox.run(message) == ''
        firefox.run('document.querySelector(\'[data-view="0"]\').click()')
        firefox.press('5', 'l', 'b')
        x, y = firefox.middle('#canvas')
        firefox.drag((x, y), (x + 60, y))
        count = 'editor.nv.drawBitmap.filter((each) => each === 5).length'
        firefox.wait(count)
        drawn = firefox.run(count)
        firefox.run("document.getElementById('save').click()")
        firefox.wait("document.getElementById('saved').textContent")
        image = nib.load(output / correction_path(SCAN, 'Anna'))
        assert np.count_nonzero(np.asarray(image.dataobj) == 5) == drawn > 0
        firefox.visit(f'{address.partition("?")[0]}edit/{SCAN.name}')
        firefox.wait('document.documentElement.dataset.ready')
        assert firefox.run(count) == drawn
        assert [each for each in firefox.complaints if 'error' in each or 'request' in each] == []
    finally:
        firefox.close()
