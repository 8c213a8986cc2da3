"""bids_muscle: muscle fat infiltration, volume and cross-sectional area from spine MRI in BIDS."""

import os

# Nipype would ask the network for its newest version each time an interface is made.
os.environ.setdefault('NIPYPE_NO_ET', '1')

__version__ = '0.1.0'
