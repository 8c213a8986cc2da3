"""The pages in Firefox, driven by WebDriver BiDi, which Firefox speaks without another program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from firefox import FIREFOX, Firefox

from bids_muscle.reports.group import write_group
from bids_muscle.reports.participant import write_participant_report

AddScan = Callable[..., Path]
HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'

pytestmark = pytest.mark.skipif(
    FIREFOX is None, reason='no Firefox: apt-get install firefox-esr, or set BIDS_MUSCLE_FIREFOX'
)


@pytest.fixture(scope='module')
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """One Firefox for all tests of this file."""
    firefox = Firefox(tmp_path_factory.mktemp('profile'))
    yield firefox
    firefox.close()


@pytest.fixture
def firefox(running: Firefox) -> Iterator[Firefox]:
    """Firefox; afterwards no page may have complained or asked for anything but files."""
    running.complaints.clear()
    yield running
    assert running.run('window.hacked') is None
    assert running.complaints == []


def test_what_a_page_complains_of_is_heard(firefox: Firefox, tmp_path: Path) -> None:
    page = tmp_path / 'page.html'
    picture = 'http://127.0.0.1:59999/x.png'
    page.write_text(f'<img src="{picture}"><script>console.error("oh")</script>')
    firefox.visit(page)
    assert {'error: oh', f'request to {picture}'} <= set(firefox.complaints)
    firefox.complaints.clear()


ARROW_DOWN, HOME = '\ue015', '\ue011'
PLACES = "[...document.querySelectorAll('[data-part=place]')].map((node) => node.textContent)"


def test_the_scroller_works(firefox: Firefox, add_scan: AddScan) -> None:
    firefox.visit(write_participant_report(add_scan('01'), '01'))
    firefox.run("document.querySelector('noscript').previousElementSibling.scrollIntoView()")
    firefox.run("document.querySelector('.viewer').previousElementSibling.scrollIntoView()")
    firefox.wait("document.querySelector('.viewer').dataset.ready === ''")
    firefox.run("document.querySelector('[data-plane=axial] .stage').focus()")
    firefox.press(HOME, ARROW_DOWN)
    assert firefox.run(f'{PLACES}[0]') == 'slice 4, z +32 mm'
    firefox.press('u')
    assert firefox.run(f'{PLACES}[0]') == 'slice 2, z +16 mm, least sure'
    firefox.pointer(*firefox.middle('[data-plane=axial] path:nth-of-type(5)'), click=True)
    assert re.search(r'y \+6[02] mm', firefox.run(f'{PLACES}[1]'))
    assert re.search(r'x \+7[68] mm', firefox.run(f'{PLACES}[2]'))
    firefox.pointer(*firefox.middle('[data-part=muscles] input'), click=True)
    assert firefox.run("document.querySelector('[data-plane=axial] path').style.display") == 'none'


def test_pictures_flicker(firefox: Firefox, add_scan: AddScan) -> None:
    firefox.visit(write_participant_report(add_scan('01'), '01'))
    shown = "getComputedStyle(document.querySelector('.second')).visibility"
    firefox.pointer(1, 1)
    assert firefox.run(shown) == 'hidden'
    firefox.pointer(*firefox.middle('.flicker'))
    firefox.wait(f"{shown} === 'visible'")
    firefox.pointer(1, 1)
    firefox.run("document.querySelector('.flicker').focus()")
    firefox.press('f')
    assert firefox.run(shown) == 'visible'
    # All pictures can be read.
    assert firefox.run('[...document.images].every((each) => each.complete && each.naturalWidth)')


def test_cohort_pages_and_hostile_text(firefox: Firefox, add_scan: AddScan) -> None:
    add_scan('02')
    output_dir = add_scan('01', warnings=(HOSTILE,), participant_info={HOSTILE: HOSTILE})
    for path in (write_participant_report(output_dir, '01'), *write_group(output_dir)):
        if path.suffix == '.html':
            firefox.visit(path)
            assert firefox.run('document.title').endswith('bids_muscle')
            if path.name == 'sub-01.html':
                assert HOSTILE in firefox.run('document.body.innerText')
    firefox.visit(output_dir / 'group.html')
    assert firefox.run("document.getElementById('count').textContent").startswith('2 of 2')
    assert HOSTILE in firefox.run("document.getElementById('remarks').textContent")
    assert firefox.run("document.querySelectorAll('#distribution a').length") == 14
    firefox.run(
        "document.getElementById('filter-text').value = 'sub-02';"
        "document.getElementById('filter-text').dispatchEvent(new Event('input'))"
    )
    assert firefox.run("document.getElementById('count').textContent").startswith('1 of 2')
    firefox.visit(output_dir / 'group_review.html')
    firefox.run("document.getElementById('start').click()")
    firefox.press('p')
    assert firefox.run("document.getElementById('progress-text').textContent").startswith('1 of 2')
