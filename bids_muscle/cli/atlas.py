"""``bids_muscle-atlas``: make an atlas from a labelled BIDS cohort."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle import __version__
from bids_muscle.cli.command import run_command
from bids_muscle.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from bids_muscle.anatomy.labels import LabelTable
    from bids_muscle.dataset.label_maps import LabelMap
    from bids_muscle.dataset.scan import Scan
    from bids_muscle.imaging.levels import Boundary
    from bids_muscle.imaging.template import LabelledScan


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-atlas', description='Build an atlas for the alignment of scans.'
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    build = commands.add_parser(
        'build',
        help='average the labelled scans of a BIDS dataset into an atlas (TemplateFlow layout)',
    )
    build.add_argument('bids_dir', type=Path, help='raw BIDS dataset')
    build.add_argument(
        '--derivatives',
        type=Path,
        nargs='+',
        metavar='FOLDER',
        help='folders of the label maps (default: the folders in <bids_dir>/derivatives)',
    )
    build.add_argument('--seg', required=True, help='seg label of the label maps of muscles')
    build.add_argument(
        '--vertebrae',
        metavar='SEG',
        help='seg label of the label maps of vertebrae, for the levels',
    )
    build.add_argument('--region', required=True, help='cervical or lumbar')
    build.add_argument('--name', required=True, help='name of the atlas: letters and digits')
    build.add_argument('--output', type=Path, required=True, help='parent folder of tpl-<name>')
    build.add_argument('--spacing', type=float, default=2.5, metavar='MM', help='default: 2.5')
    build.add_argument(
        '--no-bias-correction',
        dest='bias_correction',
        action='store_false',
        help='do not correct the bias field',
    )
    build.add_argument(
        '--rounds',
        type=int,
        default=2,
        help='number of averages after affine alignment (default: 2)',
    )
    build.add_argument(
        '--deformable-rounds',
        type=int,
        default=2,
        help='number of further averages after SyN (default: 2)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), _build, argv)


def _build(args: argparse.Namespace) -> None:
    from bids_muscle.anatomy.labels import load_label_table
    from bids_muscle.dataset.discovery import find_scans
    from bids_muscle.dataset.folders import list_participants
    from bids_muscle.dataset.label_maps import candidate_scans, find_label_maps
    from bids_muscle.dataset.writer import write_bytes
    from bids_muscle.imaging.atlas import atlas_files
    from bids_muscle.imaging.template import build_atlas

    _check(args)
    table = load_label_table(args.region)
    folders = args.derivatives or sorted(
        path for path in (args.bids_dir / 'derivatives').glob('*') if path.is_dir()
    )
    scans = {
        label: find_scans(args.bids_dir, label, region=args.region)
        for label in list_participants(args.bids_dir)
    }

    def maps(seg: str) -> list[tuple[Scan, LabelMap]]:
        return [
            (scan, each)
            for folder in folders
            for each in find_label_maps(folder, seg)
            for scan in candidate_scans(each, scans.get(each.entities['sub'], []))
            if scan.problem is None
        ]

    spines = {scan.name: each for scan, each in maps(args.vertebrae)} if args.vertebrae else {}
    cases = []
    for scan, label_map in maps(args.seg):
        spine = spines.get(scan.name)
        bias = args.bias_correction
        cases.append(_read_case(scan, label_map, spine, table, bias_correction=bias))
        print(f'read {scan.name}', file=sys.stderr)
    if not cases:
        raise NothingSelectedError(
            f'No scan in {args.bids_dir} has a label map with seg-{args.seg}.',
            'Check --seg and --derivatives.',
        )
    atlas = build_atlas(
        cases,
        args.region,
        args.name,
        spacing_mm=args.spacing,
        rounds=args.rounds,
        deformable_rounds=args.deformable_rounds,
    )
    folder = args.output / f'tpl-{args.name}'
    recipe = {
        'GeneratedBy': [{'Name': 'bids_muscle-atlas', 'Version': __version__}],
        'NumberOfScans': len(cases),
        'SpacingMillimetres': args.spacing,
        'Rounds': args.rounds,
        'DeformableRounds': args.deformable_rounds,
        'BiasCorrection': args.bias_correction,
    }
    for name, content in atlas_files(atlas, recipe).items():
        write_bytes(content, folder / name)
    print(f'{len(cases)} scans averaged in {folder}')


def _check(args: argparse.Namespace) -> None:
    if not args.name.isalnum():
        raise UsageError(
            f'The name {args.name!r} has other characters than letters and digits.',
            'Change --name.',
        )
    if not 0.5 <= args.spacing <= 10:
        raise UsageError('--spacing is 0.5 to 10 mm.', 'Change it.')
    if not (1 <= args.rounds <= 10 and 0 <= args.deformable_rounds <= 10):
        raise UsageError('--rounds is 1 to 10 and --deformable-rounds 0 to 10.', 'Change them.')


def _read_case(
    scan: Scan,
    label_map: LabelMap,
    spine: LabelMap | None,
    table: LabelTable,
    *,
    bias_correction: bool,
) -> LabelledScan:
    """Read the images of a scan, the muscles and, if there are, the vertebrae drawn in it."""
    from bids_muscle.dataset.label_maps import translated
    from bids_muscle.imaging.conform import load_image, to_canonical
    from bids_muscle.imaging.levels import vertebra_boundaries
    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.imaging.template import LabelledScan

    prepared = prepare_scan(
        {str(key): load_image(path) for key, path in scan.paths.items()},
        bias_correction=bias_correction,
    )
    drawn = np.asarray(to_canonical(load_image(label_map.path)).dataobj)
    labels = translated(drawn, label_map.codes(table)).astype(np.uint8)
    boundaries: tuple[Boundary, ...] = ()
    if spine:
        vertebrae = to_canonical(load_image(spine.path))
        boundaries = vertebra_boundaries(
            np.asarray(vertebrae.dataobj), vertebrae.affine, spine.names
        )
    images = {key: img for key, img in prepared.corrected.items() if key != 'fatfraction'}
    mask = np.asarray(prepared.body_mask.dataobj) > 0
    return LabelledScan(images, labels, mask, boundaries)


if __name__ == '__main__':
    sys.exit(main())
