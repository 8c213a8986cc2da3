"""Imported by the server from which workers are forked: modules that take seconds to load.

Whatever keeps one from loading is left to the node that needs it, where it becomes a failure with
its reason; here it would end the server.
"""

import contextlib
import importlib

for _name in (
    'nipype.pipeline.engine',
    'nibabel',
    'scipy.ndimage',
    'skimage.measure',
    'pandas',
    'matplotlib.figure',
    'torch',
    'monai.networks.nets',
    'monai.inferers',
):
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
