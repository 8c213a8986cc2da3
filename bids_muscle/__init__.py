"""bids_muscle: muscle fat infiltration, volume and cross-sectional area from spine MRI in BIDS."""

__version__ = '0.1.0'
