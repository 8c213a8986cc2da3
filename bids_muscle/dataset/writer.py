"""Writing outputs: a file is there whole or not at all; the same input gives the same bytes."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from isal import igzip

from bids_muscle import __version__
from bids_muscle.anatomy.labels import SPINE
from bids_muscle.anatomy.lookups import lookups
from bids_muscle.dataset.names import dataset_path, io_spec
from bids_muscle.errors import PARSE_ERRORS, FullDiskError, OutputError, OutputGoneError

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.segmentation.bundle import ModelBundle

BIDS_VERSION = '1.11.0'

#: Rows of a table that are text at a time.
PIECE = 10_000
#: Data types in which images are written; others are narrowed to one of these.
_NARROWED = {'bool': 'uint8', 'float64': 'float32', 'int64': 'int32', 'uint64': 'uint32'}


def write_bytes(content: bytes | Iterable[bytes], path: Path) -> None:
    """Write a file through a temporary one in the same folder, so that it is never half there.

    Parameters
    ----------
    content
        What the file shall hold, whole or in pieces.
    path
        Where; missing folders are made.

    Raises
    ------
    FullDiskError
        If there is no space left.
    OutputError
        If the folder or the file cannot be written for another reason.
    """
    write_together({path: [content] if isinstance(content, bytes) else content})


def write_together(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write files that belong together: none is replaced before all are on the disk.

    Parameters
    ----------
    contents
        What each file shall hold, in pieces that are taken of all files in turn; missing folders
        are made.

    Raises
    ------
    FullDiskError, OutputError
        As :func:`write_bytes`.
    """
    written: dict[Path, Path] = {}
    path = next(iter(contents))
    try:
        with contextlib.ExitStack() as stack:
            streams = {}
            for path in contents:
                path.parent.mkdir(parents=True, exist_ok=True)
                written[path], streams[path] = _create_beside(path)
                stack.enter_context(streams[path])  # its lock lasts until the file is in its place
            for pieces in zip_longest(*contents.values(), fillvalue=b''):
                # The error names the path.
                for (path, stream), piece in zip(streams.items(), pieces, strict=True):  # noqa: B007
                    stream.write(piece)
            for path, stream in streams.items():  # noqa: B007
                stream.flush()
                os.fsync(stream.fileno())
            for path, temporary in written.items():
                temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDiskError(
                f'{path} could not be written: {error.strerror}.',
                f'Free space in {path.parent} and run again.',
            ) from error
        raise OutputError(
            f'{path} could not be written: {error.strerror or error}.',
            'Check the permissions of the output folder and the space left on the disk.',
        ) from error
    finally:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove_torn(folder: Path, *, below: bool = True) -> None:
    """Remove the temporary files of writers that were killed, in a folder and those `below`.

    A writer holds a lock on its file; where the file system knows no locks, nothing is removed.
    """
    for path in folder.rglob('.*.tmp') if below else folder.glob('.*.tmp'):
        with contextlib.suppress(OSError), path.open('rb') as stream:
            if _lock(stream):
                path.unlink()


def _create_beside(path: Path) -> tuple[Path, IO[bytes]]:
    """Create and lock a temporary file; another job may remove it as torn until it is locked."""
    while True:
        # A process id alone is not unique: jobs on several machines may share the folder.
        temporary = path.with_name(f'.{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp')
        stream = temporary.open('xb')
        _lock(stream, wait=True)
        if temporary.exists():
            return temporary, stream
        stream.close()


def _lock(stream: IO[bytes], *, wait: bool = False) -> bool:
    """Lock a file until it is closed, if the file system can and nobody else has, or `wait`."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def packed(contents: Mapping[str, bytes]) -> bytes:
    """Return files as a zip archive, as they are and without a date.

    Parameters
    ----------
    contents
        By name.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def write_text(text: str, path: Path) -> None:
    """Write a text file as UTF-8; see :func:`write_bytes`."""
    write_bytes(text.encode('utf-8'), path)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file; see :func:`write_bytes`.

    Numbers of numpy become plain numbers, and numbers that are not finite ``'n/a'``.
    """
    write_text(format_json(content), path)


def write_tsv(table: pd.DataFrame | Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a table as BIDS asks for: tabs, a header, ``n/a`` for what is missing.

    Parameters
    ----------
    table
        A data frame (its index is left out) or rows that all have the keys of the first one.
    path
        Where to; see :func:`write_bytes`.
    """
    write_bytes((line.encode('utf-8') for line in tsv_lines(table)), path)


def read_tsv(path: Path, text: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that :func:`write_tsv` has written; ``n/a`` alone is missing.

    Parameters
    ----------
    path
        The table.
    text
        Columns that stay text even where they hold numbers.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not such a table.
    """
    import pandas as pd

    return pd.read_csv(
        path,
        sep='\t',
        quoting=csv.QUOTE_NONE,
        na_values='n/a',
        keep_default_na=False,
        dtype=dict.fromkeys(text, 'object'),
    )


def write_image(img: nib.Nifti1Image, path: Path) -> None:
    """Write an image as ``.nii.gz``; see :func:`image_bytes` and :func:`write_bytes`."""
    write_bytes(image_bytes(img), path)


def image_bytes(img: nib.Nifti1Image) -> bytes:
    """Return an image as the bytes of a ``.nii.gz``: its header has the grid and the data type.

    Values are stored as they are, without slope and intercept; booleans become uint8 and
    double precision becomes single. The sform is the affine of the image, and the qform too unless
    the affine is sheared, which a qform cannot say. Their code is that of the image, so an
    orientation nobody knew (code 0) is not made to look known.

    Parameters
    ----------
    img
        (X, Y, Z) image.
    """
    data = np.asanyarray(img.dataobj)
    data = data.astype(_NARROWED.get(data.dtype.name, data.dtype), copy=False)
    out = nib.Nifti1Image(data, img.affine)
    code = int(img.header['sform_code'] or img.header['qform_code'])
    out.set_sform(img.affine, code)
    out.set_qform(img.affine, code, strip_shears=True)
    if not np.allclose(out.get_qform(), img.affine, atol=1e-3):
        out.header['qform_code'] = 0
    out.header.set_xyzt_units('mm')
    return gzipped(out.to_bytes())


def gzipped(content: bytes) -> bytes:
    """Return bytes as a gzip file without a date.

    Of the levels of ISA-L, only those up to 2 give the same bytes on each processor of a kind.
    """
    return igzip.compress(content, compresslevel=2, mtime=0)


def write_dataset_files(
    output_dir: Path, bids_dir: Path, models: Sequence[ModelBundle]
) -> list[Path]:
    """Write the files that describe the derivatives dataset as a whole.

    Any job of a cohort may do this at any time: with the same models and folders the bytes are
    the same, and a file that already holds them is not touched. Models and versions that earlier
    runs named in ``GeneratedBy`` stay there.

    Parameters
    ----------
    output_dir, bids_dir
        The derivatives dataset and the raw one.
    models
        All models that the settings allow, whatever scans the present job has.

    Returns
    -------
    list of Path
        ``dataset_description.json``, ``.bidsignore``, ``descriptions.tsv`` and, for each
        segmentation, the tables of its labels.
    """
    remove_torn(output_dir, below=False)
    spec = io_spec()
    models = sorted(models, key=lambda model: (model.region, model.name))
    texts = {
        dataset_path('description'): format_json(_description(output_dir, bids_dir, models)),
        dataset_path('bidsignore'): ''.join(f'{line}\n' for line in spec['bidsignore']),
        dataset_path('descriptions'): format_tsv(
            [
                {'desc_id': f'desc-{key}', 'description': text}
                for key, text in spec['descriptions'].items()
            ]
        ),
    }
    for model in models:
        if model.region == SPINE:  # its maps have tables of their own
            continue
        for kind, text in lookups(model.labels).items():
            key = 'lookup' if kind == 'tsv' else f'lookup_{kind}'
            texts[dataset_path(key, seg=model.labels.segmentation)] = text
    for relative, text in texts.items():
        path = output_dir / relative
        if not _holds(path, text):
            write_text(text, path)
    return [output_dir / relative for relative in texts]


def check_still_there(output_dir: Path) -> None:
    """Check that nobody removed the output folder; writers would make it again, without the rest.

    Raises
    ------
    OutputGoneError
        If the description of the dataset, written first, is not there any more.
    """
    if not (output_dir / dataset_path('description')).is_file():
        raise OutputGoneError(
            f'The output folder {output_dir}, or its dataset_description.json, was removed during '
            'the run.',
            'Run again, and leave the folder alone until the run has ended.',
        )


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode('utf-8')
    except OSError:
        return False


def _description(
    output_dir: Path, bids_dir: Path, models: Sequence[ModelBundle]
) -> dict[str, Any]:
    app = {'Name': 'bids_muscle', 'Version': __version__}
    # A model of another program may be that of many regions.
    purposes = {
        (model.name, model.version, model.sha256): f'{len(model.labels)} structures'
        if model.labels.seg
        else f'the {model.region} region'
        for model in models
    }
    generators = [
        {
            'Name': name,
            'Version': version,
            'Description': f'Segmentation model for {purpose}; SHA-256 of its weights: {sha256}',
        }
        for (name, version, sha256), purpose in purposes.items()
    ]
    # What another version or model made is still there, so it stays named.
    others = [each for each in _generators(output_dir) if each not in (app, *generators)]
    return {
        'Name': 'Muscles segmented and measured by bids_muscle',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [app, *sorted(generators + others, key=lambda each: list(each.values()))],
        # A relative link stays true when both are moved together.
        'DatasetLinks': {
            'raw': os.path.relpath(bids_dir.resolve(), output_dir.resolve()).replace(os.sep, '/')
        },
    }


def _generators(output_dir: Path) -> list[dict[str, str]]:
    """Return what the dataset says to have been made by, as far as it can be read."""
    try:
        text = (output_dir / dataset_path('description')).read_text(encoding='utf-8')
        named = json.loads(text)['GeneratedBy']
        return [{key: str(each[key]) for key in each} for each in named if each]
    except (OSError, *PARSE_ERRORS, KeyError, TypeError):
        return []


def format_json(content: Mapping[str, Any]) -> str:
    """Return a mapping as :func:`write_json` writes it."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + '\n'


def format_tsv(table: pd.DataFrame | Iterable[Mapping[str, Any]]) -> str:
    """Return a table as :func:`write_tsv` writes it."""
    return ''.join(tsv_lines(table))


def tsv_lines(table: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Give a table line by line as :func:`write_tsv` writes it."""
    # pandas need not be imported to know one of its tables.
    frame: Any = table if hasattr(table, 'to_dict') and hasattr(table, 'columns') else None
    if frame is None:
        rows = list(table)
        columns = list(rows[0] if rows else ())
        lines: Iterable[Iterable[Any]] = ([row[column] for column in columns] for row in rows)
    else:
        columns = list(frame.columns)
        lines = table_rows(frame)
    yield from map(tsv_line, chain([columns], lines))


def table_rows(table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Give the cells of each row of a table, of which a piece at a time becomes objects."""
    for start in range(0, len(table), PIECE):
        piece = table.iloc[start : start + PIECE]
        cells = [as_list(piece[column]) for column in piece.columns]
        # A cohort in which every scan failed has rows without a column.
        yield from zip(*cells, strict=True) if cells else repeat((), len(piece))


def as_list(column: pd.Series) -> list[Any]:
    """Return a column as Python's objects; that of Arrow would make them one by one."""
    return list(np.asarray(column, dtype=object))


def tsv_line(cells: Iterable[Any]) -> str:
    """Return a line of a table as :func:`write_tsv` writes it."""
    cells = list(cells)
    try:
        line = '\t'.join(cells)
    except TypeError:  # not all are text
        line = ''
    # Clean text is known by one look at the line; a look at each cell takes four times as long.
    blanks = line.replace('\t', ' ')
    if blanks and ' '.join(blanks.split()) == blanks and line.count('\t') == len(cells) - 1:
        return f'{line}\n'
    return '\t'.join(map(_cell, cells)) + '\n'


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return 'n/a'
    return str(value) if isinstance(value, Path) else value


def _cell(value: Any) -> str:
    """Return a value as text of a TSV cell.

    Examples
    --------
    >>> [_cell(value) for value in (None, float('nan'), '', 0.1 + 0.2, 4640001.0, True)]
    ['n/a', 'n/a', 'n/a', '0.3', '4640001', 'true']
    """
    if isinstance(value, str):  # first, since most are
        return ' '.join(value.split()) or 'n/a'
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format(value, '.8g') if math.isfinite(value) else 'n/a'
    # pandas has two more marks of what is missing; their class names avoid importing it here.
    if value is None or type(value).__name__ in ('NAType', 'NaTType'):
        return 'n/a'
    return ' '.join(str(value).split()) or 'n/a'
