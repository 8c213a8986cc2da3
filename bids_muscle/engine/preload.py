"""Imported by the server from which workers are forked: modules that take seconds to load.

Whatever keeps one from loading is left to the node that needs it, where it becomes a failure with
its reason; here it would end the server.
"""

import contextlib
import gc
import importlib

gc.disable()  # a sixth of the time of the imports
for _name in (
    'nipype.pipeline.engine',
    'nipype.utils.profiler',
    'scipy.interpolate',
    'scipy.ndimage',
    'scipy.optimize',
    'scipy.sparse.csgraph',
    'skimage.filters.thresholding',
    'skimage.measure',
    'pandas',
    'matplotlib',
    'torch',
    'safetensors.torch',
    # What the steps of a scan import, each time anew otherwise.
    'bids_muscle.interfaces.align',
    'bids_muscle.interfaces.figures',
    'bids_muscle.interfaces.measure',
    'bids_muscle.interfaces.prepare',
    'bids_muscle.interfaces.publish',
    'bids_muscle.interfaces.quality',
    'bids_muscle.interfaces.segment',
    'bids_muscle.imaging.alignment',
    'bids_muscle.imaging.prepare',
    'bids_muscle.imaging.quality',
    'bids_muscle.measurement.outlines',
    'bids_muscle.measurement.table',
    'bids_muscle.reports.figures',
    'bids_muscle.segmentation.networks.unet',
    'bids_muscle.segmentation.predictor',
    'bids_muscle.segmentation.stack_discs',
):
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
# What is loaded stays, so that no worker looks through it again, and copies its pages.
gc.freeze()
gc.enable()
