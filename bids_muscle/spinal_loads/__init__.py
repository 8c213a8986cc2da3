"""Loads on the lumbar spine, from a model of the trunk fitted to the scan (Hess 2022)."""
