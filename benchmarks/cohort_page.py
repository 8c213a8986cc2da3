"""Time that the cohort page and the review page take in Chromium, for a made-up cohort.

    python benchmarks/cohort_page.py --participants 2000

Outputs of the participant level are made as in group_level.py, with two sites and figures of
image quality; the group level makes the pages; each action is timed until the next frame is
painted.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from group_level import write_outputs

from bids_muscle.reports.group import write_group

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Milliseconds from an action to the frame after it.
TIMED = """async ([id, value]) => {
  const node = document.getElementById(id);
  const start = performance.now();
  node.value = value === null ? [...node.options].at(-1).value : value;
  node.dispatchEvent(new Event(node.tagName === 'INPUT' ? 'input' : 'change'));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""
ACTIONS = {
    'group': (
        ('filter-site', 'B'),
        ('filter-site', ''),
        ('measure', None),
        ('split', 'sex'),
        ('filter-text', 'sub-00012'),
        ('filter-text', ''),
    ),
    'group_review': (
        ('filter-site', 'B'),
        ('filter-site', ''),
        ('sort', 'score'),
        ('sort', None),
        ('filter-text', 'sub-00012'),
        ('filter-text', ''),
    ),
}


def measure(page: Page, path: Path, actions: tuple[tuple[str, str | None], ...]) -> None:
    """Open a page, do all actions, and print what each took."""
    page.goto(path.as_uri())
    painted = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
    )
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    size_mb = path.stat().st_size / 1e6
    print(f'{path.name}: {size_mb:.1f} MB, first paint {painted:.0f} ms, loaded {loaded:.0f} ms')
    for name, value in actions:
        print(f'  {name} {value!r}: {page.evaluate(TIMED, [name, value]):.0f} ms')


def main() -> None:
    """Write the cohort and its pages, and time them."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--participants', type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        output_dir = Path(folder)
        write_outputs(output_dir, args.participants, sites=('A', 'B'))
        write_group(output_dir)
        chromium = driver.chromium.launch(
            executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu']
        )
        page = chromium.new_page(viewport={'width': 1300, 'height': 900})
        for name, actions in ACTIONS.items():
            measure(page, output_dir / f'{name}.html', actions)
        chromium.close()


if __name__ == '__main__':
    main()
