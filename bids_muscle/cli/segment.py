"""``bids_muscle-segment``: the label map of one scan, and its measures, without a BIDS dataset."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.anatomy.labels import OTHER_REGIONS, REGIONS
from bids_muscle.cli.command import run_command
from bids_muscle.dataset.scan import Contrast
from bids_muscle.errors import PARSE_ERRORS, UsageError
from bids_muscle.files import read_small

_CONTRASTS = ', '.join(Contrast)
_EPILOG = f"""
CONTRAST is one of {_CONTRASTS}.
Without it, the contrast is read from the file name or sidecar, as in a BIDS dataset. Examples:
bids_muscle-segment T2w=scan.nii.gz labels.nii.gz --region lumbar --table muscles.tsv
bids_muscle-segment water=w.nii.gz fat=f.nii.gz labels.nii.gz --region cervical
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-segment',
        description='Segment the muscles of one axial scan; a Dixon scan has several images.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('images', nargs='+', metavar='[CONTRAST=]IMAGE', help='NIfTI file')
    parser.add_argument('output', type=Path, help='label map to write, .nii.gz')
    parser.add_argument(
        '--region',
        choices=(*REGIONS, *OTHER_REGIONS),
        help='body region (default: read from file name or sidecar)',
    )
    parser.add_argument('--table', type=Path, metavar='FILE', help='also write the measures (TSV)')
    parser.add_argument(
        '--model', metavar='NAME|FOLDER', help='model (default: the model of the region)'
    )
    parser.add_argument(
        '--model-orientation',
        metavar='RAS|LPS|...',
        help='voxel order of the training images of a model of another program',
    )
    parser.add_argument(
        '--model-overlap',
        type=float,
        metavar='SHARE',
        help='overlap of the windows of a model of another program (default: as in its program)',
    )
    parser.add_argument('--device', default='cpu', help='cpu (the default), cuda or cuda:N')
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), _segment, argv)


def _segment(args: argparse.Namespace) -> None:
    from bids_muscle.api import measure, segment
    from bids_muscle.dataset.writer import write_image, write_tsv

    if not args.output.name.endswith('.nii.gz'):
        raise UsageError(
            f'{args.output} is not a .nii.gz file.', 'Give the label map last, as .nii.gz.'
        )
    _check_output(args.output, args.images)
    images = dict(map(_named, args.images))
    if len(images) < len(args.images):
        raise UsageError('Two images have the same contrast.', 'Name each with CONTRAST=IMAGE.')
    region = args.region or _region(images.values())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always', UserWarning)
        chosen = {
            'region': region,
            'model': args.model,
            'model_orientation': args.model_orientation,
        }
        labels = segment(images, **chosen, model_overlap=args.model_overlap, device=args.device)
        write_image(labels, args.output)
        print(f'wrote {args.output}')
        if args.table:
            write_tsv(measure(images, labels, **chosen), args.table)
            print(f'wrote {args.table}')
    for text in dict.fromkeys(str(each.message) for each in said):
        print(f'bids_muscle-segment: {text}', file=sys.stderr)


def _check_output(output: Path, words: Sequence[str]) -> None:
    """Refuse an image in the place of the label map, which would be written over it."""
    contrast, equals, _ = str(output).partition('=')
    forgotten = equals and contrast in list(Contrast)
    inputs = {Path(part).resolve() for word in words for part in (word, word.partition('=')[2])}
    if forgotten or (output.exists() and (output.resolve() in inputs or _contrast(output))):
        raise UsageError(
            f'The label map would be written over the image {output}.',
            'Give the label map last, under a name of its own.',
        )


def _named(word: str) -> tuple[str, Path]:
    """Return the contrast and the path of an image, the contrast from its name if need be."""
    contrast, equals, path = word.partition('=')
    if equals and contrast in list(Contrast):
        return contrast, Path(path)
    found = _contrast(Path(word))
    if found is None:
        raise UsageError(
            f'The contrast of {word} is not in its name or sidecar.',
            f'Give CONTRAST={word} with one of: {_CONTRASTS}.',
        )
    return found, Path(word)


def _contrast(path: Path) -> str | None:
    """Return the contrast of an image by its name and sidecar; None where they do not say."""
    from bids_muscle.dataset.contrasts import classify, load_contrast_rules

    entities, suffix = _entities(path)
    match = classify(load_contrast_rules(), suffix, entities, _sidecar(path))
    if match is None or match.contrast is None or match.unclear:
        return None
    return str(match.contrast)


def _region(paths: Sequence[Path] | Any) -> str:
    from bids_muscle.dataset.regions import find_region

    labels = [_entities(path)[0] for path in paths]
    region = find_region(map(_sidecar, paths), labels[0].get('ses'), labels[0].get('acq'))
    if region is None:
        raise UsageError(
            'The body region is unknown.', f'Give --region with one of: {", ".join(REGIONS)}.'
        )
    return region


def _entities(path: Path) -> tuple[Mapping[str, str], str]:
    """Return the labels and the suffix of a file, as BIDS names them.

    Examples
    --------
    >>> _entities(Path('sub-01_acq-neck_T2w.nii.gz'))
    ({'sub': '01', 'acq': 'neck'}, 'T2w')
    """
    *labels, suffix = path.name.partition('.')[0].split('_')
    return dict(each.split('-', 1) for each in labels if '-' in each), suffix


def _sidecar(path: Path) -> Mapping[str, Any]:
    """Return the content of the JSON file beside an image, or nothing."""
    try:
        content = json.loads(read_small(path.with_name(f'{path.name.partition(".")[0]}.json')))
    except (OSError, *PARSE_ERRORS):
        return {}
    return content if isinstance(content, dict) else {}


if __name__ == '__main__':
    sys.exit(main())
