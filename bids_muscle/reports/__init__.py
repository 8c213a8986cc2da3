"""Figures and HTML pages, made from files alone."""
