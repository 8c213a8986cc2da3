"""Heuristic of heudiconv: which series becomes which file. For Siemens, GE and Philips."""

import re

#: File -> regular expression of the series description, in capitals or not.
SERIES = {
    'acq-dixonwater_T1w': r'.*dixon.*_W|(WATER|W): .*',
    'acq-dixonfat_T1w': r'.*dixon.*_F|(FAT|F): .*',
    'acq-dixonin_T1w': r'.*dixon.*_in|(InPhase|IP): .*',
    'acq-dixonout_T1w': r'.*dixon.*_opp|(OutPhase|OP): .*',
    'T1w': r't1w?_tse.*tra.*|Ax.*T1.*FSE.*',
    'T2w': r't2w?_tse.*tra.*|Ax.*T2.*FSE.*',
    'acq-sag_T1w': r't1w?_tse.*sag.*|Sag.*T1.*FSE.*',
    'acq-sag_T2w': r't2w?_tse.*sag.*|Sag.*T2.*FSE.*',
}


def infotodict(seqinfo):
    """Return template -> series of one session."""
    found = {}
    for name, pattern in SERIES.items():
        runs = [
            series.series_id
            for series in seqinfo
            if re.fullmatch(pattern, series.series_description, re.IGNORECASE)
        ]
        run = '_run-{item:02d}' if len(runs) > 1 else ''
        stem, suffix = f'_{name}'.rsplit('_', 1)
        place = '{bids_subject_session_dir}/anat/{bids_subject_session_prefix}'
        found[f'{place}{stem}{run}_{suffix}', ('nii.gz',), None] = runs
    return found
