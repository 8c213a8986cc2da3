"""Muscles whose outlines reach where they cannot lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_muscle.measurement.muscle import SCAN

if TYPE_CHECKING:
    import pandas as pd

#: Muscles that end at the highest of their levels; others go on above it, such as multifidus.
_ENDS_THERE = ('quadratus lumborum', 'psoas major')
#: Share and volume above it from which an outline is implausible: levels are known to some mm.
_ABOVE_SHARE, _ABOVE_ML = 0.05, 1.0
#: Longest that a muscle is: in seven label maps of people, quadratus lumborum is 81 to 150 mm.
_LONGEST_MM = {'quadratus lumborum': 170.0}


def implausible_extents(muscles: pd.DataFrame) -> list[str]:
    """Name the muscles that reach too far up, or are too long where levels are not known.

    Parameters
    ----------
    muscles
        Table of muscles of :class:`~bids_muscle.measurement.table.Measures`.

    Returns
    -------
    list of str
        One sentence for each muscle and side.
    """
    sentences = []
    for row in muscles.to_dict('records'):
        name, muscle, extent = row['name'], row['muscle'], row['extent']
        above = row['outside_above_ml']
        whole = above + row['outside_below_ml'] + row['volume_ml']
        if muscle in _ENDS_THERE and above > max(_ABOVE_ML, _ABOVE_SHARE * whole):
            sentences.append(
                f'{100 * above / whole:.0f} % of the outline of {name} lies above '
                f'{extent.partition("-")[0]}, where this muscle ends. This part is not measured.'
            )
        longest = _LONGEST_MM.get(muscle)
        if extent == SCAN and longest and row['length_mm'] > longest:
            sentences.append(
                f'The outline of {name} is {row["length_mm"]:.0f} mm long; the maximum for this '
                f'muscle is {longest:.0f} mm. Check its upper and lower end.'
            )
    return sentences
