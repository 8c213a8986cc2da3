"""Firefox, driven by WebDriver BiDi, which it speaks without another program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

FIREFOX = os.environ.get('BIDS_MUSCLE_FIREFOX') or next(
    filter(None, map(shutil.which, ('firefox-esr', 'firefox'))), None
)
PATIENCE_S = 120


class Firefox:
    """One Firefox with one tab.

    Parameters
    ----------
    profile
        Folder.
    allowed
        How addresses begin, besides those of files, that a page may ask.
    display
        X display; without one Firefox is headless, and has no WebGL.
    """

    def __init__(self, profile: Path, *allowed: str, display: str = '') -> None:
        websocket = pytest.importorskip('websocket')
        # Nothing but the page under test may talk to the network.
        profile.joinpath('user.js').write_text(
            'user_pref("app.update.enabled", false);\n'
            'user_pref("network.captive-portal-service.enabled", false);\n'
            'user_pref("network.connectivity-service.enabled", false);\n'
            'user_pref("webgl.force-enabled", true);\n'
        )
        self.log = profile / 'log'
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                [
                    *(FIREFOX, *([] if display else ['--headless']), '--no-remote'),
                    *('--remote-debugging-port=0', '--profile', str(profile), 'about:blank'),
                ],
                env={**os.environ, **({'DISPLAY': display} if display else {})},
                stdout=log,
                stderr=log,
            )
        self.count = 0
        self.allowed = ('file:', 'data:', 'blob:', 'about:', *allowed)
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
            if not url.startswith(self.allowed):
                self.complaints.append(f'request to {url}')

    def visit(self, page: Path | str) -> None:
        """Open a page from disk, or an address."""
        url = page if isinstance(page, str) else page.as_uri()
        self('browsingContext.navigate', context=self.tab, url=url, wait='complete')

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a line with the first button of the mouse."""
        (x, y), (to_x, to_y) = start, end
        actions: list[dict[str, Any]] = [
            {'type': 'pointerMove', 'x': round(x), 'y': round(y)},
            {'type': 'pointerDown', 'button': 0},
            {'type': 'pointerMove', 'x': round((x + to_x) / 2), 'y': round((y + to_y) / 2)},
            {'type': 'pointerMove', 'x': round(to_x), 'y': round(to_y)},
            {'type': 'pointerUp', 'button': 0},
        ]
        self(
            'input.performActions',
            context=self.tab,
            actions=[{'type': 'pointer', 'id': 'mouse', 'actions': actions}],
        )

    def close(self) -> None:
        """End the browser."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(PATIENCE_S)

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
