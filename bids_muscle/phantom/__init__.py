"""Anatomy to label map to MR signal to a BIDS dataset with known truth."""
