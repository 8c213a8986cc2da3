"""Make ``bids_muscle/data/norms/example.json``: norms of simulated people, to show the format.

    python benchmarks/norms_example.py

The fat is what the simulation plants, without an image or a model in between, so that the curves
fit no scan. The group level refuses the file.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import bids_muscle
from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.person import draw_person
from bids_muscle.reports.norms import NormSeries
from bids_muscle.reports.norms_build import format_norms, norms_of

PEOPLE = 400
POPULATION = 'simulated people: an example of the format and no norm'


def main() -> None:
    """Draw the people and write the file."""
    effects, rows = load_effects(), []
    for index in range(1, PEOPLE + 1):
        person = draw_person(
            1, index, age_years=(45, 14), female_share=0.5, bmi=(26, 4.5), sites=('main',)
        )
        planted = effects.planted_mfi(person, 'lumbar', 1, 0)
        rows += [
            {
                'participant_id': person.label,
                'session_id': 'n/a',
                'scan_key': '',
                'name': label.name,
                'extent': 'n/a',
                'mfi_ratio_of_means_pct': planted[label.index],
                'reason': 'n/a',
                'age': person.age_years,
                'sex': person.sex,
                'bmi': person.bmi,
            }
            for label in load_label_table('lumbar')
        ]
    made = {'name': 'planted values', 'version': '1', 'settings': '', 'software': ''}
    series = NormSeries('lumbar', 'fat+water', '', 'none')
    content, remarks = norms_of(
        pd.DataFrame(rows), {'': (series, made)}, POPULATION, [], example=True
    )
    content['made_with'] = 'bids_muscle-phantom'
    path = Path(bids_muscle.__file__).parent / 'data/norms/example.json'
    path.write_text(format_norms(content), encoding='utf-8')
    print(path, *remarks)


if __name__ == '__main__':
    main()
