"""Label tables in the forms of the programs in which people correct label maps."""

from __future__ import annotations

from bids_muscle.anatomy.labels import LabelTable


def lookups(table: LabelTable) -> dict[str, str]:
    """Return the contents of all lookup files of a label table by kind.

    The kinds are ``tsv`` (BIDS), ``itksnap``, ``slicer`` and ``fsleyes``; a table without labels
    has its headers alone.
    """
    return {
        'tsv': bids_lookup(table),
        'itksnap': itksnap_lookup(table),
        'slicer': slicer_lookup(table),
        'fsleyes': fsleyes_lookup(table),
    }


def bids_lookup(table: LabelTable) -> str:
    """Return a BIDS lookup table (``_dseg.tsv``); only what is left or right is called so.

    That of a model of another program also has the kind of each structure and its name there.

    Examples
    --------
    >>> from bids_muscle.anatomy.labels import load_label_table
    >>> print(bids_lookup(load_label_table('lumbar')).splitlines()[1].expandtabs(4))
    1   right multifidus    MF-R    #56B4E9
    """
    sides = {'right': '-R', 'left': '-L'}
    lines = [
        f'{label.index}\t{label.name}\t'
        f'{label.abbreviation}{sides.get(label.side, "")}\t{label.color}'
        for label in table
    ]
    header = 'index\tname\tabbreviation\tcolor'
    if table.seg:
        header += '\tkind\tsource_name'
        lines = [
            f'{line}\t{label.kind}\t{label.source}'
            for line, label in zip(lines, table, strict=True)
        ]
    return '\n'.join([header, *lines]) + '\n'


def itksnap_lookup(table: LabelTable) -> str:
    """Return the label descriptions of ITK-SNAP (Segmentation > Import Label Descriptions).

    A line has number, red, green, blue (0-255), opacity, two switches and the name.
    """
    lines = [
        f'{each.index:5d} {" ".join(f"{value:4d}" for value in each.rgb)}  1  1  1  "{each.name}"'
        for each in table
    ]
    clear = '    0    0    0    0  0  0  0  "Clear Label"'
    return '\n'.join(['# ITK-SnAP Label Description File', clear, *lines]) + '\n'


def slicer_lookup(table: LabelTable) -> str:
    """Return a colour table of 3D Slicer; it shows underscores of names as blanks.

    A line has number, name, red, green, blue and opacity (0-255).
    """
    lines = [
        f'{each.index} {each.name.replace(" ", "_")} {" ".join(map(str, each.rgb))} 255'
        for each in table
    ]
    return '\n'.join(['# 3D Slicer color table', '0 background 0 0 0 0', *lines]) + '\n'


def fsleyes_lookup(table: LabelTable) -> str:
    """Return a lookup table of FSLeyes: number, red, green, blue (0-1) and name.

    Examples
    --------
    >>> from bids_muscle.anatomy.labels import load_label_table
    >>> fsleyes_lookup(load_label_table('lumbar')).splitlines()[0]
    '1 0.33725 0.70588 0.91373 right multifidus'
    """
    lines = [
        f'{each.index} {" ".join(f"{value / 255:.5f}" for value in each.rgb)} {each.name}'
        for each in table
    ]
    return '\n'.join(lines) + '\n'
