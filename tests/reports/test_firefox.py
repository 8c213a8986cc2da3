"""The pages in Firefox, driven by WebDriver BiDi, which Firefox speaks without another program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bids_muscle.reports.group import write_group
from bids_muscle.reports.participant import write_participant_report

AddScan = Callable[..., Path]
FIREFOX = os.environ.get('BIDS_MUSCLE_FIREFOX') or next(
    filter(None, map(shutil.which, ('firefox-esr', 'firefox'))), None
)
HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
PATIENCE_S = 120

pytestmark = pytest.mark.skipif(
    FIREFOX is None, reason='no Firefox: apt-get install firefox-esr, or set BIDS_MUSCLE_FIREFOX'
)


class Firefox:
    """One Firefox with one tab."""

    def __init__(self, profile: Path) -> None:
        websocket = pytest.importorskip('websocket')
        # Nothing but the page under test may talk to the network.
        profile.joinpath('user.js').write_text(
            'user_pref("app.update.enabled", false);\n'
            'user_pref("network.captive-portal-service.enabled", false);\n'
            'user_pref("network.connectivity-service.enabled", false);\n'
        )
        self.log = profile / 'log'
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                [
                    *(FIREFOX, '--headless', '--no-remote', '--remote-debugging-port=0'),
                    *('--profile', str(profile), 'about:blank'),
                ],
                stdout=log,
                stderr=log,
            )
        self.count = 0
        self.complaints: list[str] = []
        address = self._address()
        self.socket = websocket.create_connection(
            f'{address}/session', timeout=PATIENCE_S, suppress_origin=True
        )
        self('session.new', capabilities={})
        self('session.subscribe', events=['log.entryAdded', 'network.beforeRequestSent'])
        self.tab = self('browsingContext.getTree')['contexts'][0]['context']
        self(
            'browsingContext.setViewport',
            context=self.tab,
            viewport={'width': 1300, 'height': 900},
        )

    def _address(self) -> str:
        for _ in range(PATIENCE_S * 10):
            found = re.search(r'listening on (ws://\S+)', self.log.read_text(errors='replace'))
            if found:
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self.log.read_text(errors='replace'))

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what the page says meanwhile is noted."""
        self.count += 1
        self.socket.send(json.dumps({'id': self.count, 'method': method, 'params': params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get('id') == self.count:
                assert message['type'] == 'success', message
                return message['result']
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get('params', {})
        if message.get('method') == 'log.entryAdded':
            self.complaints.append(f'{params["level"]}: {params["text"]}')
        if message.get('method') == 'network.beforeRequestSent':
            url = params['request']['url']
            if not url.startswith(('file:', 'data:', 'blob:', 'about:')):
                self.complaints.append(f'request to {url}')

    def visit(self, path: Path) -> None:
        """Open a page from disk."""
        self('browsingContext.navigate', context=self.tab, url=path.as_uri(), wait='complete')

    def run(self, expression: str) -> Any:
        """Return what JavaScript makes of an expression."""
        result = self(
            'script.evaluate',
            expression=expression,
            target={'context': self.tab},
            awaitPromise=True,
        )
        assert result['type'] == 'success', result
        return result['result'].get('value')

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.run(f'Boolean({expression})'):
            assert time.monotonic() < until, expression
            time.sleep(0.1)

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        actions = [{'type': kind, 'value': key} for key in keys for kind in ('keyDown', 'keyUp')]
        self(
            'input.performActions',
            context=self.tab,
            actions=[{'type': 'key', 'id': 'keyboard', 'actions': actions}],
        )

    def pointer(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the mouse, and press its first button there."""
        actions: list[dict[str, Any]] = [{'type': 'pointerMove', 'x': round(x), 'y': round(y)}]
        if click:
            actions += [{'type': kind, 'button': 0} for kind in ('pointerDown', 'pointerUp')]
        self(
            'input.performActions',
            context=self.tab,
            actions=[{'type': 'pointer', 'id': 'mouse', 'actions': actions}],
        )

    def middle(self, selector: str) -> tuple[float, float]:
        """Return the middle of an element, which is brought into sight."""
        x, y = json.loads(
            self.run(
                f"""(() => {{
                    const node = document.querySelector({json.dumps(selector)});
                    node.scrollIntoView({{ block: 'center' }});
                    const box = node.getBoundingClientRect();
                    return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]);
                }})()"""
            )
        )
        return x, y


@pytest.fixture(scope='module')
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """One Firefox for all tests of this file."""
    firefox = Firefox(tmp_path_factory.mktemp('profile'))
    yield firefox
    firefox.socket.close()
    firefox.process.terminate()
    firefox.process.wait(PATIENCE_S)


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
