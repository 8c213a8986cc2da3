"""Hooks of mkdocs: the README is the first page, links to files beside docs/ lead to copies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation

ROOT = Path(__file__).parents[1]
#: Links of a page in docs/ to what is beside it, and of the README to anything in the project.
_BESIDE = re.compile(r'\]\(\.\./([^)#]+)')
_IN_PROJECT = re.compile(r'\]\((?!https?:|#)(docs/)?([^)#]+)')
_PAGES = {
    'index.md': 'README.md',
    'CONTRIBUTING.md': 'CONTRIBUTING.md',
    'CHANGES.md': 'CHANGES.md',
}


def on_config(config: Any) -> Any:
    """Show the version in the title."""
    text = (ROOT / 'bids_muscle/__init__.py').read_text(encoding='utf-8')
    config.site_name += ' ' + text.split("__version__ = '")[1].split("'")[0]
    return config


def on_nav(nav: Navigation, **_: Any) -> Navigation:
    """Lead to the list of versions, which versions.py writes."""
    nav.items.append(Link('Other versions', '../index.html'))
    return nav


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages at the top of the project, and the files that pages link to."""
    linked = set()
    for page in [*(ROOT / 'docs').glob('*.md'), *(ROOT / name for name in _PAGES.values())]:
        text = page.read_text(encoding='utf-8')
        if page.parent == ROOT:
            found = {path for docs, path in _IN_PROJECT.findall(text) if not docs}
        else:
            found = set(_BESIDE.findall(text))
        linked |= found - set(_PAGES.values())
    for path in sorted(linked):
        content = (ROOT / path).read_text(encoding='utf-8')
        files.append(File.generated(config, _copy_of(path), content=content))
    for name, source in _PAGES.items():
        text = (ROOT / source).read_text(encoding='utf-8')
        files.append(File.generated(config, name, content=_IN_PROJECT.sub(_lead, text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to the copies."""
    return _BESIDE.sub(lambda match: f']({_target(match[1])}', markdown)


def _lead(match: re.Match[str]) -> str:
    return f']({match[2] if match[1] else _target(match[2])}'


def _target(path: str) -> str:
    """Return where a file of the project is in the site."""
    pages = {source: name for name, source in _PAGES.items()}
    return pages.get(path) or _copy_of(path)


def _copy_of(path: str) -> str:
    # A README would become the index of its folder, and a TOML file is shown as text.
    name = path if path.endswith(('.md', '.json', '.tsv')) else f'{path}.txt'
    return f'source/{name.replace("README.md", "about.md")}'
