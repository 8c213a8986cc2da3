"""Command lines: arguments and exit codes, no science."""
