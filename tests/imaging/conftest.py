"""The analytic abdomen as a fixture."""

from __future__ import annotations

import pytest
from abdomen import Abdomen, make_abdomen


@pytest.fixture(scope='session')
def abdomen() -> Abdomen:
    return make_abdomen()
