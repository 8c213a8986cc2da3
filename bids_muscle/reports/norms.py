"""Norms: normative curves of a cohort in one file, and where a value lies in them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_muscle.anatomy.people import amount_of, find_column, sex_of
from bids_muscle.dataset.names import dataset_path
from bids_muscle.errors import PARSE_ERRORS, BadDataError, MissingInputError, UsageError
from bids_muscle.files import read_small
from bids_muscle.reports.outputs import MISSING, ScanOutputs, number
from bids_muscle.statistics.norms import ENOUGH_PEOPLE, Curve
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    import numpy as np

    from bids_muscle.dataset.records import ScanRecord

FORMAT = 'bids_muscle norms 1'
#: In place of the model of labels that a person drew or corrected.
MANUAL = 'manual'
#: What may differ between scans of one contrast without a difference in its name.
PROCESSING = ('bias_correction', 'bounded')
_MOST_BYTES = 50_000_000
#: 95 % of a normal distribution lie within that many standard errors.
_TWO_SIDED = 1.959964


class NormSeries(NamedTuple):
    """Scans whose values can be compared; ``model`` is the SHA-256 of its weights."""

    region: str
    contrast: str
    processing: str
    model: str


class NormGroup(NamedTuple):
    """One measure of one muscle of people of one sex (``'F'`` or ``'M'``)."""

    name: str
    measure: str
    extent: str
    sex: str


@dataclass(frozen=True)
class Made:
    """What the scans of a series were made with.

    Parameters
    ----------
    model
        Its name and version.
    settings, versions
        Digests of settings and versions of bids_muscle that occurred.
    """

    model: str
    settings: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Centile:
    """Where a value lies, in percent of people, with its 95 % confidence interval.

    ``n`` is the number of people or scans that it is compared with; limits are None where they
    are not known.
    """

    pct: float
    low_pct: float | None
    high_pct: float | None
    n: int

    @property
    def text(self) -> str:
        """As on the pages.

        Examples
        --------
        >>> Centile(71.6, 60.2, 81.0, 200).text, Centile(99.8, 99, 99.9, 200).text
        ('P72 (60–81)', 'P>99 (99–>99)')
        """
        limits = (self.low_pct, self.high_pct)
        if None in limits:
            return f'P{int(self.pct)}'
        low, high = (_whole(x) for x in limits if x is not None)
        return f'P{_whole(self.pct)} ({low}–{high})'


@dataclass(frozen=True)
class Norms:
    """Normative curves, as read from a file.

    Parameters
    ----------
    population
        Who the people behind the curves are, in words.
    people
        Number of people.
    made
        What each series was made with.
    curves
        Curve by series and group.
    """

    population: str
    people: int
    made: Mapping[NormSeries, Made]
    curves: Mapping[tuple[NormSeries, NormGroup], Curve] = field(default_factory=dict)

    def explain(self, scan: ScanOutputs, n: int) -> str:
        """Return what the centiles of a scan mean, in curves of up to n people."""
        _, age, bmi = person_of(scan.record.person)
        return (
            f'P is the centile in the norms ({self.population}; up to {n} people) for sex, age '
            f'({age:g} years){f" and body mass index ({bmi:.3g})" if self.by_bmi else ""}: '
            'P90 exceeds 90 % of them. '
            'In brackets its 95 % confidence interval, which is that of the norms and not of the '
            'measurement. Muscles without P are outside of the norms; group_centiles.tsv says why.'
        )

    @property
    def by_bmi(self) -> bool:
        """Whether any curve depends on body mass index."""
        return any(curve.bmi_limits for curve in self.curves.values())

    def match(self, series: NormSeries) -> tuple[NormSeries | None, str]:
        """Return the series of the norms that a scan belongs to, or None and why there is none."""
        if series in self.made:
            return series, ''
        region = [candidate for candidate in self.made if candidate.region == series.region]
        contrast = [candidate for candidate in region if candidate.contrast == series.contrast]
        alike = [candidate for candidate in contrast if candidate.processing == series.processing]
        if not region:
            return None, f'the norms are not of the {series.region} region'
        if not contrast:
            listed = name_some(sorted({candidate.contrast for candidate in region}))
            return None, f'the norms are of {listed} images, and this scan is {series.contrast}'
        if not alike:
            listed = name_some(
                sorted({candidate.processing or 'neither' for candidate in contrast})
            )
            return None, (
                f'the norms are of scans with {listed}, and this one has '
                f'{series.processing or "neither"}, of bias correction and a bounded fat fraction'
            )
        if series.model == MANUAL and len(alike) == 1:
            return alike[0], ''
        listed = name_some(sorted(self.made[candidate].model for candidate in alike))
        return None, f'the norms are of another model: {listed}'

    def remark(self, scan: ScanOutputs) -> str:
        """Return the differences between the norms and a scan that is compared with them."""
        series, _ = self.match(series_of(scan.record, scan.contrast))
        if series is None:
            return ''
        made, own, said = self.made[series], scan.record.made_with, []
        if scan.manual and series.model != MANUAL:
            said.append('its labels are drawn or corrected by hand, those of the norms are not')
        if own.settings and own.settings not in made.settings:
            said.append('settings that may change a number differ from those of the norms')
        if own.version and own.version not in made.versions:
            said.append(
                f'the norms were made with bids_muscle {name_some(made.versions)}, this scan with '
                f'{own.version}'
            )
        return '; '.join(said)

    def place(
        self,
        series: NormSeries,
        group: NormGroup,
        values: np.ndarray,
        age: np.ndarray,
        bmi: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, list[str], int]:
        """Return z, its standard error, why there is none (else empty), and people of the curve.

        Parameters
        ----------
        series, group
            Of all the values.
        values, age, bmi
            (n,) each; nan for what is not known.
        """
        import numpy as np

        nothing = np.full(len(values), np.nan)
        found, reason = self.match(series)
        curve = self.curves.get((found, group)) if found else None
        if curve is None:
            reason = reason or self._why_no_curve(group)
            return nothing, nothing, [reason] * len(values), 0
        reasons = [
            '' if math.isfinite(value) else 'the value is n/a' for value in values
        ]  # fmt: skip
        for at, (value, years, index) in enumerate(zip(values, age, bmi, strict=True)):
            if not reasons[at]:
                zero = 'the value is 0, where the norms are not defined' if value <= 0 else ''
                reasons[at] = zero or curve.why_not(years, index) or ''
        known = np.array([not reason for reason in reasons], dtype=bool)
        z, error = nothing.copy(), nothing.copy()
        if known.any():
            z[known] = curve.z(values[known], age[known], bmi[known])
            error[known] = curve.z_error(values[known], age[known], bmi[known])
        return z, error, reasons, curve.n

    def _why_no_curve(self, group: NormGroup) -> str:
        if group.sex not in ('F', 'M'):
            return 'sex is unknown, and the norms depend on it'
        return (
            f'the norms have no curve of this measure of the {group.name} '
            f'({"levels " + group.extent if group.extent != MISSING else "any levels"}, '
            f'sex {group.sex})'
        )

    def centile(self, scan: ScanOutputs, row: Mapping[str, str], measure: str) -> Centile | None:
        """Return where a value of a scan lies, or None where that is not known."""
        import numpy as np

        value = number(row.get(measure) or '')
        if value is None:
            return None
        sex, age, bmi = person_of(scan.record.person)
        group = NormGroup(row['name'], measure, row.get('extent', MISSING), sex)
        series = series_of(scan.record, scan.contrast)
        arrays = (np.array([each]) for each in (value, age, bmi))
        z, error, _, n = self.place(series, group, *arrays)
        return centile_of(float(z[0]), float(error[0]), n)


def centile_of(z: float, error: float, n: int) -> Centile | None:
    """Return a z with its standard error as a centile, or None where there is none."""
    if not math.isfinite(z):
        return None
    low, high = (z + sign * _TWO_SIDED * error for sign in (-1, 1))
    return Centile(share_pct(z), share_pct(low), share_pct(high), n)


def share_pct(z: float) -> float:
    """Return the percentage of a normal distribution below z.

    Examples
    --------
    >>> share_pct(0.0), round(share_pct(1.6449), 2)
    (50.0, 95.0)
    """
    return 50 * math.erfc(-z / math.sqrt(2))


def series_of(record: ScanRecord, contrast: str) -> NormSeries:
    """Return the series of a scan."""
    flags = ', '.join(name.replace('_', ' ') for name in PROCESSING if record.processing.get(name))
    model = MANUAL if record.processing.get('manual') else record.model.get('sha256', MISSING)
    return NormSeries(record.region or MISSING, contrast, flags, model)


def person_of(info: Mapping[str, str]) -> tuple[str, float, float]:
    """Return sex, age in years and body mass index of a row of participants.tsv.

    Sex is empty, and a number nan, where it is not known.

    Examples
    --------
    >>> person_of({'sex': 'female', 'age': '40', 'weight': '80', 'height': '200'})
    ('F', 40.0, 20.0)
    """

    def known(what: str) -> float:
        value = amount_of(info, what)
        return math.nan if value is None else value

    bmi, age = known('bmi'), known('age')
    if math.isnan(bmi):
        bmi = known('weight') / known('height') ** 2
    return sex_of(info.get(find_column(info, 'sex') or '') or '') or '', age, bmi


def read_norms(path: Path) -> Norms:
    """Read a file of ``bids_muscle-norms build``.

    Raises
    ------
    MissingInputError
        If it cannot be read.
    BadDataError
        If it holds no norms.
    UsageError
        If it is an example.
    """
    try:
        content = json.loads(read_small(path, _MOST_BYTES))
        if content['format'] != FORMAT:
            raise ValueError(content['format'])
        norms = _parse(content)
    except OSError as error:
        raise MissingInputError(
            f'{path} cannot be read: {error.strerror}.', 'Check the path and its permissions.'
        ) from error
    except (*PARSE_ERRORS, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadDataError(
            f'{path} is not a file of norms.', 'Make one with bids_muscle-norms build.'
        ) from error
    if content['example']:
        raise UsageError(
            f'{path} is an example made of simulated people and no norm.',
            'Give norms of real people, made with bids_muscle-norms build.',
        )
    return norms


def kept_norms(output_dir: Path) -> Norms | None:
    """Return the norms that the group level last used, or None."""
    path = output_dir / dataset_path('group_norms')
    try:
        return _kept(path, path.stat().st_mtime_ns)
    except (OSError, BadDataError, MissingInputError, UsageError):
        return None


@lru_cache(maxsize=1)
def _kept(path: Path, changed_ns: int) -> Norms:
    """Read them once for all participants of a run."""
    return read_norms(path)


def _parse(content: Mapping[str, Any]) -> Norms:
    made: dict[NormSeries, Made] = {}
    curves: dict[tuple[NormSeries, NormGroup], Curve] = {}
    for entry in content['series']:
        model = entry['model']
        place = [entry['region'], entry['contrast'], entry['processing'], model['sha256']]
        series = NormSeries(*map(str, place))
        name = f'{model["name"]} {model["version"]}'.strip()
        made[series] = Made(name, tuple(entry['settings']), tuple(entry['versions']))
        for row in entry['curves']:
            group = NormGroup(*(str(row[key]) for key in NormGroup._fields))
            curves[series, group] = Curve.from_dict(row)
    return Norms(str(content['population']), int(content['people']), made, curves)


def doubts(norms: Norms) -> Sequence[str]:
    """Return which curves are weak, as sentences."""
    few = [curve.n for curve in norms.curves.values() if curve.n < ENOUGH_PEOPLE]
    bad = sorted({
        f'{group.name} ({group.measure}, {group.sex})'
        for (_, group), curve in norms.curves.items()
        if not curve.is_calibrated
    })  # fmt: skip
    said = []
    if few:
        said.append(
            f'{len(few)} of {len(norms.curves)} curves are of fewer than {ENOUGH_PEOPLE} people '
            f'(the fewest {min(few)}): their outer centiles are uncertain.'
        )
    if bad:
        said.append(
            'People who were left out of the fit are not spread as these curves say, so that '
            f'their centiles are not to be trusted: {name_some(bad)}.'
        )
    return said


def _whole(pct: float) -> str:
    if pct > 99:
        return '>99'
    return '<1' if pct < 1 else f'{pct:.0f}'
