"""Whatever a model folder of somebody else holds: a model, or an error that says what to do."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import as_json, corpus, json_values, mutations, said_clearly, tries
from hypothesis import given
from hypothesis import strategies as st

from bids_muscle.segmentation.catalogue import find_model, load_model

SEGMENTATION = Path(__file__).parents[1] / 'segmentation'


@pytest.fixture(scope='module')
def makers() -> Iterator[Any]:
    """Give the modules of tests that write such folders."""
    sys.path.insert(0, str(SEGMENTATION))
    import test_external
    import test_nnunet

    yield test_external, test_nnunet
    sys.path.remove(str(SEGMENTATION))


@pytest.fixture
def folders(makers: Any, tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """Give the path of a model for each kind of configuration, and the configuration."""
    external, nnunet = makers
    pair = external.musclemap(tmp_path / 'pair')
    bundle = external.monai_bundle(tmp_path / 'bundle')
    training = nnunet.nnunet(tmp_path, 2)
    return {
        'musclemap.json': (pair, pair.with_suffix('.json')),
        'inference.json': (bundle, bundle / 'configs/inference.json'),
        'metadata.json': (bundle, bundle / 'configs/metadata.json'),
        'plans.json': (training, training / 'plans.json'),
        'dataset.json': (training, training / 'dataset.json'),
    }


#: References of MONAI and programs, to themselves, to nothing, out of the folder.
_REFERENCES = st.sampled_from(
    ['@network_def', '@patch', '@nothing', '%inference.json', '%/dev/zero', '$import os', '@', '%']
)


@pytest.mark.parametrize(
    'name', ['musclemap.json', 'inference.json', 'metadata.json', 'plans.json', 'dataset.json']
)
def test_configurations(folders: dict[str, tuple[Path, Path]], name: str) -> None:
    model, config = folders[name]
    whole = json.loads(config.read_text())

    def check(content: bytes) -> None:
        config.write_bytes(content)
        with said_clearly():
            load_model(find_model(str(model), 'lumbar'))

    for content in corpus(name):
        change = json.loads(content)
        changed = copy.deepcopy(whole)
        *above, last = change['at']
        place = changed
        for key in above:
            place = place[key]
        place[last] = change['value']
        check(as_json(changed))
    near = mutations(whole, json_values | _REFERENCES).map(as_json)
    tries(40)(given(content=near)(check))()
