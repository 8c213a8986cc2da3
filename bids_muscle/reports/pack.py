"""All pages of a derivatives dataset in one file that can be mailed."""

from __future__ import annotations

import os
import secrets
import shutil
import zipfile
from pathlib import Path

from bids_muscle.dataset.names import dataset_path, io_spec
from bids_muscle.errors import NothingSelectedError, OutputError

#: Pictures that the review page takes from files; those of the other pages are inside them.
LINKED = ('slices', 'segmentation', 'extent', 'thumbnail')
#: The same for every file, so that the same pages make the same bytes.
DATE = (1980, 1, 1, 0, 0, 0)


def pack_reports(output_dir: Path, target: Path) -> int:
    """Pack the pages, the pictures they show and the group tables, and nothing else.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    target
        Zip archive to write; all its files lie in one folder of the archive's name.

    Returns
    -------
    int
        How many files were packed.

    Raises
    ------
    NothingSelectedError
        If there is no page.
    OutputError
        If the archive cannot be written.
    """
    paths = _paths(output_dir)
    if not any(path.suffix == '.html' for path in paths):
        raise NothingSelectedError(
            f'{output_dir} holds no page.', 'Run the participant or the group level first.'
        )
    temporary = target.with_name(f'.{target.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp')
    try:
        with zipfile.ZipFile(temporary, 'x', zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                name = f'{target.stem}/{path.relative_to(output_dir).as_posix()}'
                entry = zipfile.ZipInfo(name, DATE)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.file_size = path.stat().st_size
                with path.open('rb') as source, archive.open(entry, 'w') as packed:
                    shutil.copyfileobj(source, packed)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f'{target} could not be written: {error.strerror or error}.',
            'Check the permissions of its folder and the space left on the disk.',
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(paths)


def _paths(output_dir: Path) -> list[Path]:
    """List the files to pack, in their order."""
    group = [
        path
        for key in io_spec()['dataset']
        if key.startswith(('group', 'phenotype'))
        for path in output_dir.glob(str(dataset_path(key, analysis='*')))
    ]
    kinds = [f'*_desc-{name}.{io_spec()["figures"][name]}' for name in LINKED]
    figures = [path for kind in kinds for path in output_dir.glob(f'sub-*/figures/{kind}')]
    pages = output_dir.glob('sub-*.html')
    root = output_dir.resolve()
    # A link may lead to a file that nobody means to hand on.
    return sorted(
        path
        for path in {*group, *figures, *pages}
        if path.is_file() and path.resolve().is_relative_to(root)
    )
