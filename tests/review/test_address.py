"""The server at another address of this computer than the loopback one."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest


def own_address() -> str | None:
    """Return an address of this computer in a network, if it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(('192.0.2.1', 9))
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith('127.') else address


def ask(host: str, port: int, path: str, **headers: str) -> tuple[int, str, str]:
    connection = HTTPConnection(host, port, timeout=60)
    connection.request('GET', path, headers=headers)
    answer = connection.getresponse()
    cookie = (answer.getheader('Set-Cookie') or '').partition(';')[0]
    return answer.status, answer.read().decode(), cookie


def test_a_network_address_needs_the_token_and_is_the_only_one(output: Path) -> None:
    host = own_address()
    if host is None:
        pytest.skip('this computer has no address in a network')
    command = [sys.executable, '-m', 'bids_muscle.cli.report', 'serve', str(output)]
    with subprocess.Popen(
        [*command, '--host', host, '--port', '0'], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            said = next(line for line in server.stdout if 'token=' in line)
            match = re.search(rf'http://{re.escape(host)}:(\d+)(/\?token=\S+)', said)
            assert match
            port = int(match[1])
            assert ask(host, port, '/group_review.html')[0] == 401
            assert ask(host, port, match[2], Host='evil.example')[0] == 403
            status, _, cookie = ask(host, port, match[2])
            assert status == 200
            status, page, _ = ask(host, port, '/group_review.html', Cookie=cookie)
            assert (status, 'sub-1_acq-dixon' in page) == (200, True)
            assert ask(host, port, match[2])[0] == 401
            with pytest.raises(ConnectionRefusedError):
                ask('127.0.0.1', port, '/')
        finally:
            server.terminate()
