"""List the versions of the documentation in a folder: python docs/versions.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.version import Version

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Documentation of bids_muscle</title></head>
<body><h1>Documentation of bids_muscle</h1>
<ul>{}</ul></body>
</html>
"""


def write_index(site: Path) -> None:
    """Write a page with a link to each version, the newest first."""
    built = (page.parent.name for page in site.glob('*/index.html'))
    versions = sorted(built, key=Version, reverse=True)
    items = (f'<li><a href="{each}/index.html">{each}</a></li>' for each in versions)
    (site / 'index.html').write_text(PAGE.format(''.join(items)), encoding='utf-8')


if __name__ == '__main__':
    write_index(Path(sys.argv[1]))
