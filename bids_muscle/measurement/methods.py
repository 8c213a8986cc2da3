"""How fat may be measured; light enough for the command line to know."""

from __future__ import annotations

from typing import Literal, get_args

#: In T1w, T2w and PDw images, by brightness: clusters or classes, and how many.
Threshold = Literal['kmeans2', 'kmeans3', 'gmm2', 'gmm3']
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
#: In Dixon images: ratio of means (Weber 2021), mean of voxels.
DIXON = ('ratio', 'mean')
#: ``'auto'`` is all that the images of a scan allow.
FAT_METHODS = ('auto', *DIXON, *THRESHOLDS)
#: Contrasts in which fat is brighter than muscle unless it is suppressed.
BRIGHT_FAT = ('T1w', 'T2w', 'PDw')
#: Threshold behind the map and the lean volume where none was chosen: that of Xia 2019. Where
#: muscle itself is uneven, two Gaussians of unlike width put its bright half to fat.
DEFAULT_THRESHOLD: Threshold = 'kmeans2'
