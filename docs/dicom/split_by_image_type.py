"""Give each image type of a series a series of its own: split_by_image_type.py DICOM OUT.

Some scanners store water, fat, in- and opposed-phase images of a Dixon scan in one series, which
converters then put into one 4-D image. This copies all DICOM files of one person, a folder per
series. Where a series has several image types, its images get a series number, an identifier and a
description for each: ``WATER: Ax LAVA-Flex`` and ``FAT: Ax LAVA-Flex``. Pixels and positions are
not changed. The image types ``IN_PHASE`` and ``OUT_PHASE`` become ``IP`` and ``OP``, for dcm2niix
takes a type with PHASE in it for a phase image.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

SHORT = {r'IN_?PHASE': 'IP', r'(OUT|OPP|OPPOSED)_?PHASE': 'OP'}


def shorten(value):
    """Return the image type without the word PHASE."""
    return next((new for old, new in SHORT.items() if re.fullmatch(old, value)), value)


if len(sys.argv) != 3:
    sys.exit(__doc__)
source, target = map(Path, sys.argv[1:])
series = defaultdict(lambda: defaultdict(list))
for path in sorted(source.rglob('*')):
    if path.is_file() and pydicom.misc.is_dicom(path):
        tags = ['SeriesInstanceUID', 'ImageType']
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if 'ImageType' in head:
            series[head.SeriesInstanceUID][tuple(head.ImageType)].append(path)

for uid, types in series.items():
    common = {'ORIGINAL', 'DERIVED', 'PRIMARY', 'SECONDARY', *set.intersection(*map(set, types))}
    for number, (image_type, paths) in enumerate(sorted(types.items()), start=1):
        word = next((value for value in image_type if value not in common), image_type[-1])
        for path in paths:
            data = pydicom.dcmread(path)
            data.ImageType = [shorten(value) for value in image_type]
            if len(types) > 1:
                data.SeriesNumber = 100 * int(data.SeriesNumber) + number
                data.SeriesInstanceUID = generate_uid(entropy_srcs=[uid, *image_type])
                data.SeriesDescription = f'{shorten(word)}: {data.get("SeriesDescription", "")}'
            name = f'{data.SeriesNumber:03d}_{data.get("SeriesDescription", "")}'
            copy = target / re.sub(r'\W+', '_', name) / f'{data.SOPInstanceUID}.dcm'
            copy.parent.mkdir(parents=True, exist_ok=True)
            data.save_as(copy)
