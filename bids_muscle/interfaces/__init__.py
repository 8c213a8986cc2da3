"""Nipype interfaces, each a thin wrapper around one function."""
