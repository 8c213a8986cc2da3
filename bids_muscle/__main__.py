"""``python -m bids_muscle`` is the command ``bids_muscle``."""

import sys

from bids_muscle.cli.start import main

# Worker processes import this module again under another name.
if __name__ == '__main__':
    sys.exit(main())
