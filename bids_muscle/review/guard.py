"""What every request passes, and every answer: who may ask, and what an error says."""

from __future__ import annotations

import html

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from bids_muscle.errors import (
    BadDataError,
    BidsMuscleError,
    FullDiskError,
    MissingInputError,
    OutputError,
    TemporaryError,
    UsageError,
    problem_of,
)
from bids_muscle.review.access import is_allowed_host, is_same_origin
from bids_muscle.review.saving import ConflictError
from bids_muscle.review.scans import JoinedScanError
from bids_muscle.review.state import ReviewState

_HEADERS = {
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'X-Frame-Options': 'DENY',
}
_STATUS: tuple[tuple[type[BidsMuscleError], int], ...] = (
    (ConflictError, 409),
    (TemporaryError, 409),
    (MissingInputError, 404),
    (UsageError, 400),
    (BadDataError, 422),
    (FullDiskError, 507),
    (OutputError, 403),
)


def admit(review: ReviewState) -> Response | None:
    """Let a request through, or answer it."""
    host = request.headers.get('Host', '')
    if not is_allowed_host(host, review.hosts):
        return refuse(f'{host} is not a name of this server. Use the address that it printed.')
    if request.method not in ('GET', 'HEAD') and not is_same_origin(
        request.headers.get('Origin'), host, review.proxies
    ):
        return refuse('This request does not come from a page of this server.')
    cookie = _cookie_name()
    if token := request.args.get('token'):
        session = review.tokens.admit(token)
        if session:
            review.on_admission(review.tokens.next)
            # A redirect would still count as coming from the site that held the link, and a
            # strict cookie would not be sent.
            answer = Response(
                '<!DOCTYPE html><html lang="en"><title>bids_muscle</title>'
                '<meta http-equiv="refresh" content="0; url=./"><a href="./">Open</a></html>'
            )
            answer.set_cookie(cookie, session, httponly=True, samesite='Strict', path='/')
            return answer
    if not review.tokens.knows(request.cookies.get(cookie, '')):
        return refuse(
            'This browser is not known. Open the last address that the server printed; each '
            'works once.',
            401,
        )
    return None


def _cookie_name() -> str:
    # Cookies do not tell ports apart.
    return f'bids_muscle_{request.environ.get("SERVER_PORT", "")}'


def refuse(sentence: str, status: int = 403) -> Response:
    """Answer with a sentence instead of what was asked for."""
    return Response(sentence + '\n', status, mimetype='text/plain')


def harden(response: Response) -> Response:
    """Forbid what no page of this server needs."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault('Cache-Control', 'no-store')
    response.headers.setdefault('Content-Security-Policy', "frame-ancestors 'none'")
    return response


def explain(error: Exception) -> Response | HTTPException:
    """Answer with the sentence of an error."""
    if isinstance(error, HTTPException):
        return error
    problem = problem_of(error, 'The request')
    kinds = (status for kind, status in _STATUS if isinstance(error, kind))
    content = {'message': str(problem)}
    if isinstance(error, ConflictError):
        content['revision'] = error.revision
    if request.path.startswith('/edit/'):
        parts = error.parts if isinstance(error, JoinedScanError) else ()
        links = [('../', 'Review page'), *((name, f'Correct {name}') for name in parts)]
        listed = ''.join(
            f'<li><a href="{html.escape(address)}">{html.escape(text)}</a></li>'
            for address, text in reversed(links)
        )
        body = (
            '<!DOCTYPE html><html lang="en"><meta name="color-scheme" content="light dark">'
            f'<title>bids_muscle</title><p>{html.escape(str(problem))}</p><ul>{listed}</ul></html>'
        )
        return Response(body, next(kinds, 500))
    answer = jsonify(content)
    answer.status_code = next(kinds, 500)
    return answer
