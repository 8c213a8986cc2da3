"""Download files over HTTP, and go on where an earlier download ended.

Nothing of a run imports this module: ``bids_muscle-model fetch`` alone asks the network.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.errors import (
    PARSE_ERRORS,
    FullDiskError,
    MissingInputError,
    ModelError,
    TemporaryError,
)

#: Bytes read at a time; the most that a list of files and a whole file may have.
_BLOCK, _MOST_JSON, _MOST_BYTES = 2**20, 2**24, 2**35
#: Seconds without an answer.
_PATIENCE_S = 60
#: A model needs this many times the size of its download: itself, unpacked, and converted.
_COPIES = 3


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but from HTTPS to HTTPS only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith('https:' if req.type == 'https' else ('http:', 'https:')):
            raise ModelError(
                f'{req.full_url} redirects to {newurl}, which is not HTTPS.',
                'Download the file by other means, and use --from FILE.',
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def read_listing(address: str) -> dict[str, Any]:
    """Return the JSON object at an address.

    Raises
    ------
    BidsMuscleError
        As :func:`download`, and if there is no JSON object.
    """
    with _open(address, {'Accept': 'application/json'}) as response:
        try:
            content = json.loads(_read(response, _MOST_JSON, address))
            if not isinstance(content, dict):
                raise ValueError('it is not an object')
        except PARSE_ERRORS as error:
            raise ModelError(
                f'The answer of {address} is not valid JSON: {error}.',
                'Open that address in a browser, download the files, and use --from FILE.',
            ) from error
    return content


def download(address: str, path: Path, say: Callable[[str], None]) -> None:
    """Download a file; what an interrupted download left is kept and continued.

    The rest is asked for only if the server says that its file is still the same.

    Parameters
    ----------
    address
        HTTP or HTTPS.
    path
        Where to; ``.part`` and ``.tag`` beside it hold an unfinished download.
    say
        Told how far it is.

    Raises
    ------
    MissingInputError
        If the server has no such file.
    TemporaryError
        If it cannot be reached, or the file ends early; the same call then goes on.
    FullDiskError
        If there is not enough space for the file and the model made from it.
    ModelError
        If a redirect leaves HTTPS, or the file is larger than any model.
    """
    part, tag = (path.with_name(f'{path.name}{end}') for end in ('.part', '.tag'))
    there = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {'Range': f'bytes={there}-', 'If-Range': tag.read_text()} if there else {}
    with _open(address, headers) as response:
        if there and response.status == 206 and _range_start(response) != there:
            raise ModelError(
                f'The answer of {address} is not the requested part of the file.',
                'Run the same command again: the download starts from the beginning.',
            )
        done = there if response.status == 206 else 0
        length = response.headers.get('Content-Length', '')
        total = done + int(length) if length.isdigit() else None
        _check_space(path.parent, (total or 0) * _COPIES - done, total or 0)
        _remember(response, tag)
        with part.open('ab' if done else 'wb') as stream:
            told = 0
            while chunk := _read(response, _BLOCK, address):
                stream.write(chunk)
                done += len(chunk)
                if done > _MOST_BYTES:
                    raise ModelError(
                        f'{address} is larger than any known model.', 'Please report this.'
                    )
                if total and 10 * done // total > told:
                    told = 10 * done // total
                    say(f'{path.name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB')
    if total is not None and done != total:
        raise TemporaryError(
            f'The download of {address} stopped after {done} of {total} bytes.',
            'Run the same command again: the download continues.',
        )
    part.replace(path)
    tag.unlink(missing_ok=True)


def _open(address: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """Open an address; only HTTP and HTTPS, through the proxy of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    agent = {'User-Agent': f'bids_muscle/{__version__}'}
    request = urllib.request.Request(address, headers={**agent, **headers})  # noqa: S310 - as above
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=_PATIENCE_S)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and 'Range' in headers:  # the file has become shorter
            return _open(address, {})
        if error.code >= 500 or error.code in (408, 429):
            raise TemporaryError(
                f'{address} answered {error.code} {error.reason}.', 'Run the same command later.'
            ) from error
        raise MissingInputError(
            f'{address} answered {error.code} {error.reason}: the file is no longer available.',
            'Find it on the page listed by "bids_muscle-model show NAME", download it in a '
            'browser, and use --from FILE.',
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(address, error) from error


def _read(response: http.client.HTTPResponse, most: int, address: str) -> bytes:
    try:
        return response.read(most)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> TemporaryError:
    reason = getattr(error, 'reason', None) or error
    return TemporaryError(
        f'{address} cannot be read: {reason or type(error).__name__}.',
        'Check the network and HTTPS_PROXY and run the same command again, or download the file '
        'on another computer and use --from FILE.',
    )


def _range_start(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
    return int(found[1]) if found else None


def _remember(response: http.client.HTTPResponse, tag: Path) -> None:
    """Keep by what the server tells that its file is still the same."""
    entity = response.headers.get('ETag', '')
    same = response.headers.get('Last-Modified', '') if entity[:2] in ('', 'W/') else entity
    if same:
        tag.write_text(same)
    else:
        tag.unlink(missing_ok=True)


def _check_space(folder: Path, needed: int, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FullDiskError(
            f'{folder} has {free / 1e6:.0f} MB free; downloading {size / 1e6:.0f} MB and '
            f'converting it needs {needed / 1e6:.0f} MB.',
            'Free disk space there, or set BIDS_MUSCLE_MODELS to another folder.',
        )
