"""bids_muscle: muscle fat infiltration, volume and cross-sectional area from spine MRI in BIDS.

For scripts and notebooks: :func:`segment`, :func:`measure` and :func:`read_outputs`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bids_muscle.api import measure, read_outputs, segment

# Nipype would ask the network for its newest version each time an interface is made.
os.environ.setdefault('NIPYPE_NO_ET', '1')

__version__ = '0.1.0'
__all__ = ['__version__', 'measure', 'read_outputs', 'segment']


def __getattr__(name: str) -> Any:
    """Import the calls for scripts when they are asked for: they need what takes seconds."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module('bids_muscle.api'), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
