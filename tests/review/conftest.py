"""A small output folder, and a browser that was let in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from small_output import write_output

from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Make an output folder with one scan, sub-1_acq-dixon."""
    folder = tmp_path / 'out'
    write_output(folder, '1', np.diag([-2.0, 2, 5, 1]))
    return folder


@pytest.fixture
def admitted() -> Callable[..., tuple[ReviewState, FlaskClient]]:
    """Give a function that starts a server without a socket and lets a browser in."""

    def start(folder: Path) -> tuple[ReviewState, FlaskClient]:
        review = ReviewState(folder.resolve(), LOOPBACK, 'Anna')
        client = create_app(review).test_client()
        assert client.get(f'/?token={review.tokens.next}').status_code == 200
        return review, client

    return start
