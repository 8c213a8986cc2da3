"""Who may use the server: the holder of a token that works once, from a page of the server."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections.abc import Iterable

#: Addresses of this computer; a server that listens on one is reached from nowhere else.
LOOPBACK = ('127.0.0.1', 'localhost', '[::1]')


class Tokens:
    """Tokens that admit one browser each; the next one is made when the last was used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = secrets.token_urlsafe(32)
        self._sessions: set[str] = set()

    @property
    def next(self) -> str:
        """The token that has not been used."""
        return self._next

    def admit(self, token: str) -> str | None:
        """Return a new session for the unused token, which is used up; None for any other."""
        with self._lock:
            if not hmac.compare_digest(token.encode(), self._next.encode()):
                return None
            self._next = secrets.token_urlsafe(32)
            session = secrets.token_urlsafe(32)
            self._sessions.add(session)
            return session

    def knows(self, session: str) -> bool:
        """Say whether a session was admitted."""
        return session in self._sessions


def is_allowed_host(host: str, names: Iterable[str]) -> bool:
    """Say whether a ``Host`` header names this server.

    Another web site may let its own name lead to this computer (DNS rebinding): a browser would
    then take this server for a part of that site. The port is that of a tunnel or a proxy, if
    there is one.

    Parameters
    ----------
    host
        The header, with or without a port.
    names
        Names under which the server may be reached, without a port.

    Examples
    --------
    >>> [is_allowed_host(host, LOOPBACK) for host in ('localhost:80', '[::1]', 'evil.org:80')]
    [True, True, False]
    """
    name = re.fullmatch(r'(\[[0-9a-f:]+\]|[^:\[\]]+)(:\d+)?', host.lower())
    return name is not None and name[1] in {each.lower() for each in names}


def is_same_origin(origin: str | None, host: str, proxies: Iterable[str] = ()) -> bool:
    """Say whether a request comes from a page of this server.

    Parameters
    ----------
    origin
        The header ``Origin``, which browsers add to each request that changes something.
    host
        The header ``Host``.
    proxies
        Names of proxies that pass on requests under another ``Host``.

    Examples
    --------
    >>> is_same_origin('http://localhost:80', 'localhost:80'), is_same_origin('null', 'localhost')
    (True, False)
    >>> is_same_origin('https://portal.org', 'node1:8765', ['portal.org'])
    True
    """
    scheme, found, place = (origin or '').lower().partition('://')
    if scheme not in ('http', 'https') or not found:
        return False
    return place == host.lower() or is_allowed_host(place, proxies)
