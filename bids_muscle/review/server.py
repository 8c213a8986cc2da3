"""The pages of an output folder and an editor of its label maps as a local web application.

The files are the state: whatever a page shows is read when it is asked for.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, redirect, request
from werkzeug.security import safe_join

from bids_muscle.dataset.corrections import rater_label
from bids_muscle.dataset.names import dataset_path, io_spec, participant_path
from bids_muscle.errors import UsageError
from bids_muscle.reports.cohort import recorded_people
from bids_muscle.reports.cohort_values import read_values
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.lights import scan_light
from bids_muscle.reports.outliers import robust_scores
from bids_muscle.reports.outputs import ScanOutputs, edited_scans
from bids_muscle.reports.page import environment
from bids_muscle.reports.participant import participant_page
from bids_muscle.reports.ratings import keep_rating
from bids_muscle.reports.review import review_page
from bids_muscle.reports.scan_data import scan_data, shown_measures
from bids_muscle.review.guard import admit, explain, harden, refuse
from bids_muscle.review.saving import (
    ReaderWork,
    save_correction,
    timestamp,
    withdraw_correction,
    writing_in,
)
from bids_muscle.review.scans import EditorScan, find_start_map, inside, participant_of, scan_facts
from bids_muscle.review.state import ReviewState
from bids_muscle.review.voxels import display_volume

#: No scan that is read has more voxels; see :data:`bids_muscle.imaging.conform.MAX_VOXELS`.
_MOST_BYTES = 2**28
#: Files of the output folder that a browser may ask for by name, and what they are.
_TYPES = {
    '.html': 'text/html; charset=utf-8',
    '.json': 'application/json',
    '.md': 'text/plain; charset=utf-8',
    '.png': 'image/png',
    '.svg': 'image/svg+xml',
    '.tsv': 'text/tab-separated-values; charset=utf-8',
    '.webp': 'image/webp',
}
#: Files of the package that the editor consists of.
_PARTS = {
    'niivue.js': 'vendor/niivue.umd.js',
    **{
        name: f'templates/{name}'
        for name in (
            'editor.js',
            'editor_drawing.js',
            'editor_page.js',
            'editor_picture.js',
            'editor_saving.js',
        )
    },
}
_FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_EDITOR_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data: "
    "blob:; connect-src 'self' data: blob:; worker-src blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
#: Red scans come first, then those that a person should look at.
_ORDER = {'unusable': 0, 'check': 1, 'ok': 1, 'failed': 2}


def create_app(review: ReviewState) -> Flask:
    """Return the web application.

    Parameters
    ----------
    review
        Its state.
    """
    app = Flask('bids_muscle', static_folder=None)
    app.config['MAX_CONTENT_LENGTH'] = _MOST_BYTES
    app.before_request(lambda: admit(review))
    app.after_request(harden)
    app.register_error_handler(Exception, explain)
    _add_pages(app, review)
    _add_editor(app, review)
    _add_changes(app, review)
    return app


def _add_pages(app: Flask, review: ReviewState) -> None:
    """Add the pages and the files that they show."""

    @app.get('/')
    def start() -> Any:
        return redirect(str(dataset_path('group_review')))

    @app.get(f'/{dataset_path("group_review")}')
    def wall() -> str:
        scans = review.scans()
        rater = request.args.get('rater', review.rater)
        served = {
            'rater': rater,
            'readonly': review.readonly,
            'ratings': review.ratings_of(rater) if rater else {},
        }
        values = read_values(scans)
        scores = robust_scores(values, shown_measures(values))
        data = scan_data(values, recorded_people(scans), scores)
        return ''.join(review_page(scans, data, review.output_dir, served))

    @app.get('/favicon.ico')
    def favicon() -> Response:
        return Response(status=204)

    @app.get('/sub-<label>.html')
    def participant(label: str) -> Any:
        path = participant_path(label, 'report')
        if not inside(review.output_dir, path).is_file():
            return refuse('There is no such page.', 404)
        return participant_page(review.output_dir, label, served=True)

    @app.get('/<path:name>')
    def file(name: str) -> Response:
        joined = safe_join(str(review.output_dir), name)
        kind = _TYPES.get(Path(name).suffix)
        hidden = any(part.startswith('.') for part in Path(name).parts)
        if joined is None or kind is None or hidden:
            return refuse('There is no such file.', 404)
        # Other programs' pages must not act for the reader.
        if kind.startswith('text/html') and not _is_page(name):
            return refuse('This is not a page of bids_muscle.', 404)
        path = inside(review.output_dir, name)
        try:
            packed = path.parent.suffix == '.zip' and path.parent.is_file()
            content = (Packed(path.parent, path.name) if packed else path).read_bytes()
        except OSError:
            return refuse('There is no such file.', 404)
        answer = Response(content, content_type=kind)
        if not kind.startswith('text/html'):  # pages have their own
            answer.headers['Content-Security-Policy'] = _FILE_POLICY
        return answer


def _is_page(name: str) -> bool:
    return name in {path for path in io_spec()['dataset'].values() if path.endswith('.html')}


def _add_editor(app: Flask, review: ReviewState) -> None:
    """Add the editor and what it reads."""

    @app.get('/part/<name>')
    def part(name: str) -> Response:
        if name not in _PARTS:
            return refuse('There is no such file.', 404)
        answer = Response(
            _part(name),
            content_type='text/javascript; charset=utf-8',
            headers={'Content-Encoding': 'gzip', 'Cache-Control': 'no-cache'},
        )
        answer.add_etag()  # so that a browser fetches it once
        answer.make_conditional(request)
        return answer

    @app.get('/edit/<name>')
    def edit(name: str) -> Response:
        scan = review.open(name)
        rater = request.args.get('rater', review.rater)
        facts = {**_facts(scan, rater), 'readonly': review.readonly, 'rater': rater}
        text = (
            environment()
            .get_template('editor.html.j2')
            .render(
                title=name,
                page=str(participant_path(scan.scan.participant, 'report')),
                light=scan_light(scan.outputs),
                wall=str(dataset_path('group_review')),
                siblings=scan.siblings,
                preloaded=(f'image/{facts["images"][0]}.nii', f'labels/{facts["begin"]}'),
                data=facts,
            )
        )
        return Response(text, headers={'Content-Security-Policy': _EDITOR_POLICY})

    @app.get('/scan/<name>/facts')
    def facts(name: str) -> Any:
        return jsonify(_facts(review.open(name), request.args.get('rater', review.rater)))

    def _facts(scan: EditorScan, rater: str) -> dict[str, Any]:
        editor_facts = scan_facts(review.output_dir, scan, rater)
        rating = review.ratings_of(rater).get(scan.scan.name) if rater else None
        return {
            **editor_facts,
            'rating': rating
            if rating and rating['segmentation'] == editor_facts['segmentation']
            else None,
            'measuring': review.measurements.state(scan.scan.name),
        }

    @app.get('/scan/<name>/image/<key>.nii')
    def image(name: str, key: str) -> Response:
        scan = review.open(name)
        path = {**scan.images, **scan.maps}.get(key)
        if path is None:
            return refuse('There is no such image.', 404)
        return _packed(display_volume(path))

    @app.get('/scan/<name>/labels/<key>')
    def labels(name: str, key: str) -> Response:
        digest, positions = review.start_labels(review.open(name), key)
        answer = _packed(positions.tobytes(order='F'))
        answer.headers['X-SHA256'] = digest
        return answer

    @app.get('/next')
    def following() -> Any:
        done = set(review.ratings_of(request.args.get('rater', review.rater)))
        after = request.args.get('after', '')
        queue = [
            scan.record.scan
            for scan in sorted(review.scans(), key=_urgency)
            if scan.record.scan in edited_scans(scan)
        ]
        place = queue.index(after) + 1 if after in queue else 0
        left = [name for name in queue[place:] + queue[:place] if name not in done | {after}]
        return jsonify({'scan': left[0] if left else None})


def _urgency(scan: ScanOutputs) -> tuple[int, float, str]:
    """Return the place of a scan in the order of reading: red ones, then the least sure."""
    sure = scan.least_sure[1] if scan.least_sure else 1.0
    return _ORDER[scan_light(scan).level], sure, scan.record.scan


def _add_changes(app: Flask, review: ReviewState) -> None:
    """Add what writes files."""

    @app.post('/rating')
    def rate() -> Any:
        review.require_writing()
        row = request.get_json()
        if not isinstance(row, dict) or not isinstance(row.get('rater'), str) or not row['rater']:
            raise UsageError('Nobody is named as the rater.', 'Enter your name, then rate again.')
        participant_of(str(row.get('scan')))
        now = timestamp()
        path = dataset_path('ratings', rater=rater_label(row['rater']))
        target = inside(review.output_dir, path)
        with writing_in(target.parent):
            keep_rating(target, {**row, 'rated_at': now})
        return jsonify({'rated_at': now})

    @app.post('/scan/<name>/correction')
    def correct(name: str) -> Any:
        review.require_writing()
        scan = review.open(name)
        asked = request.args
        digest = asked.get('startSha256', '')
        work = ReaderWork(
            rater=asked.get('rater', ''),
            drawn=request.get_data(),
            passed=asked.get('passed') == 'true',
            revision=asked.get('revision', ''),
            start=find_start_map(review.output_dir, scan, asked.get('start', '')),
            start_sha256=digest,
            started=review.kept_start(digest),
            images_sha256=asked.get('imagesSha256', ''),
        )
        return jsonify(save_correction(review.output_dir, scan, work))

    @app.post('/scan/<name>/withdraw')
    def withdraw(name: str) -> Any:
        review.require_writing()
        rater = request.args.get('rater', '')
        withdraw_correction(review.output_dir, review.open(name), rater)
        return jsonify({})

    @app.post('/scan/<name>/measure')
    def measure(name: str) -> Any:
        review.require_writing()
        review.measurements.start(review.open(name).outputs)
        return jsonify(review.measurements.state(name))

    @app.get('/scan/<name>/measure')
    def measured(name: str) -> Any:
        return jsonify(review.measurements.state(name))


@cache
def _part(name: str) -> bytes:
    content = (resources.files('bids_muscle.reports') / _PARTS[name]).read_bytes()
    return gzip.compress(content, mtime=0)


def _packed(content: bytes) -> Response:
    """Return an answer that a slow connection takes in a fraction of the time."""
    return Response(
        gzip.compress(content, compresslevel=1, mtime=0),
        content_type='application/octet-stream',
        headers={'Content-Encoding': 'gzip'},
    )
