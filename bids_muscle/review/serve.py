"""Listen for a browser: the server's address, its first token, and its end."""

from __future__ import annotations

import errno
import getpass
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from waitress.server import create_server

from bids_muscle.dataset.names import dataset_path
from bids_muscle.errors import MissingInputError, OutputError, UsageError
from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState


def serve(
    output_dir: Path,
    *,
    host: str = LOOPBACK[0],
    port: int,
    names: Sequence[str] = (),
    rater: str | None = None,
) -> None:
    """Serve an output folder until the process is told to end.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    host, port
        Where to listen; port 0 takes a free one.
    names
        Further names under which browsers reach the server, such as that of a proxy.
    rater
        Who reads; the name of the user by default.

    Raises
    ------
    MissingInputError
        If the folder holds no outputs.
    OutputError
        If the port is taken.
    UsageError
        If there is no such address.
    """
    output_dir = output_dir.resolve()
    if not (output_dir / dataset_path('description')).is_file():
        raise MissingInputError(
            f'{output_dir} is not an output folder of bids_muscle.',
            'Give the folder that the participant level has written.',
        )

    def announce(token: str, first: str = '') -> None:
        shown = f'[{host}]' if ':' in host else host
        address = f'http://{shown}:{server.effective_port}/?token={token}'
        print(first or 'For another browser:', address, flush=True)

    rater = _user() if rater is None else rater
    review = ReviewState(output_dir, [*LOOPBACK, *_own_names(host)], rater, names, announce)
    try:
        server = create_server(create_app(review), host=host, port=port, threads=8, ident='')
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OutputError(
                f'Port {port} of {host} is taken by another program.', 'Choose another --port.'
            ) from error
        raise UsageError(
            f'{host}:{port} cannot be used: {error.strerror or error}.', 'Check --host and --port.'
        ) from error
    if review.readonly:
        print(
            f'{output_dir} is read-only: it can be looked at, but ratings and corrections cannot '
            'be saved.',
            flush=True,
        )
    announce(review.tokens.next, 'Open this address; it works once:')
    print('Press Ctrl-C to end.', flush=True)
    try:
        server.run()
    finally:
        review.measurements.stop()
        server.close()


def _own_names(host: str) -> list[str]:
    """Return the names of this computer under which a server that listens there is reached."""
    if host in LOOPBACK:
        return []
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host]
    if address.is_loopback:
        return [host]
    shown = f'[{host}]' if address.version == 6 else host
    own = [socket.gethostname(), socket.getfqdn()]
    return own if address.is_unspecified else [shown, *own]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have
        return ''
