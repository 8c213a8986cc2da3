"""Workflow builders: they connect, nothing else."""
