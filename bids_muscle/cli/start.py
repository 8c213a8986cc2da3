"""Where the commands begin, before anything is imported that takes time.

Until a command can close what it opens, an interrupt ends the process at once. As an exception in
the middle of an import it would end in a traceback, or be lost in a library.
"""

import signal
from importlib import import_module


def main(name: str = 'main') -> int:
    """Run a command; returns its exit code.

    Parameters
    ----------
    name
        Module in ``bids_muscle.cli`` whose ``main`` runs the command.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code: int = import_module(f'bids_muscle.cli.{name}').main()
    except KeyboardInterrupt:  # one more, while the command was closing what it had opened
        code = 75
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return code


def atlas() -> int:
    """Run ``bids_muscle-atlas``."""
    return main('atlas')


def model() -> int:
    """Run ``bids_muscle-model``."""
    return main('model')


def norms() -> int:
    """Run ``bids_muscle-norms``."""
    return main('norms')


def phantom() -> int:
    """Run ``bids_muscle-phantom``."""
    return main('phantom')


def report() -> int:
    """Run ``bids_muscle-report``."""
    return main('report')


def segment() -> int:
    """Run ``bids_muscle-segment``."""
    return main('segment')


def slurm() -> int:
    """Run ``bids_muscle-slurm``."""
    return main('slurm')


def status() -> int:
    """Run ``bids_muscle-status``."""
    return main('status')
