"""Nipype interfaces, each a thin coat over one function."""
