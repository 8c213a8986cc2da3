"""Images of a participant are those of pybids, and so are their metadata and filters."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bids_muscle.dataset.index import index_participant
from bids_muscle.dataset.scan import Contrast

_PLACES = ('', 'sub-01/', 'sub-01/ses-1/', 'sub-01/ses-1/anat/', 'sub-01/anat/', 'sub-01/func/')
_NAMES = st.builds(
    lambda place, labels, suffix: f'{place}{"".join(labels)}{suffix}',
    st.sampled_from(_PLACES),
    st.lists(
        st.sampled_from(['sub-01_', 'ses-1_', 'acq-a_', 'acq-B_', 'run-1_', 'run-01_', 'x-y_']),
        max_size=3,
        unique=True,
    ),
    st.sampled_from(['T1w', 'T2w', 'bold', '._T2w', 'T2w.x', '']),
)
_QUERIES = st.dictionaries(
    st.sampled_from(['acquisition', 'run', 'session', 'suffix', 'extension', 'subject']),
    st.none()
    | st.sampled_from(
        ['*', 'a', 'B', 1, 2, '01', '1', 'T2w', '.nii', 'nii.gz', [], ['a', 'T1w'], [1, 2]]
    ),
    max_size=2,
)


@settings(max_examples=25, deadline=None)
@given(
    files=st.lists(_NAMES, min_size=1, max_size=4, unique=True),
    sidecars=st.dictionaries(
        _NAMES,
        st.dictionaries(
            st.sampled_from(['EchoTime', 'A', 'B']),
            st.none() | st.booleans() | st.floats() | st.text('xyz') | st.lists(st.integers()),
        ),
        max_size=5,
    ),
    query=_QUERIES,
)
def test_inheritance_and_filters_are_those_of_pybids(
    files: list[str], sidecars: dict[str, dict[str, object]], query: dict[str, object]
) -> None:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer, Query

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place in _PLACES:
            (root / place).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(files):
            (root / f'{name}.nii{".gz" * (number % 2)}').touch()
        for name, content in sidecars.items():
            (root / f'{name}.json').write_text(json.dumps(content))
        indexed = index_participant(root, '01', {Contrast.T2W: query})
        indexer = BIDSLayoutIndexer(ignore=[re.compile('/sub-01/func')])
        layout = BIDSLayout(root, validate=False, indexer=indexer)
        extensions = ['.nii', '.nii.gz']
        reference = layout.get(datatype='anat', extension=extensions, subject='01')
        metadata = {
            image.path: dict(image.metadata) for image in indexed.images if image.problem is None
        }
        for file in reference:
            path = Path(file.path)
            if path in metadata:
                assert repr(sorted(metadata.pop(path).items())) == repr(
                    sorted(file.get_metadata().items())
                )
        assert not metadata
        words = {None: Query.NONE, '*': Query.ANY}
        plain = {
            key: words.get(value, value) if not isinstance(value, list) else value
            for key, value in {'extension': extensions, **query}.items()
        }
        fitting = layout.get(invalid_filters='allow', datatype='anat', **plain)
        named_well = {Path(file.path) for file in reference}
        assert (
            indexed.selected[Contrast.T2W] & named_well
            == {Path(file.path) for file in fitting} & named_well
        )
