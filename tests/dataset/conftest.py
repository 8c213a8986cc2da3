"""A model card and a finished scan, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.segmentation.bundle import ModelBundle


@pytest.fixture
def models() -> dict[str, ModelBundle]:
    """One model for each region, by region."""
    return {
        region: ModelBundle(
            path=Path('/nowhere'),
            name=f'test-{region}',
            version='1.2',
            region=region,
            labels=load_label_table(region),
            weights=(Path('/nowhere/weights.safetensors'),),
            sha256='0123456789abcdef' * 4,
            network={},
            spacing_mm=1.5,
            window_px=(128, 128),
            card={},
        )
        for region in ('lumbar', 'cervical')
    }
