"""How the scanners of three vendors describe their series."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vendor:
    """How the scanners of a vendor describe their images.

    Parameters
    ----------
    manufacturer, model
        As in the header.
    planes
        Plane -> its word in the description of the series.
    series
        Kind of image -> description of the series and image type. Images of a scan with the same
        description are one series.
    """

    manufacturer: str
    model: str
    planes: dict[str, str]
    series: dict[str, tuple[str, str]]


VENDORS = {
    'siemens': Vendor(
        'SIEMENS',
        'Prisma',
        {'axial': 'tra', 'sagittal': 'sag'},
        {
            'water': ('t1_vibe_dixon_{plane}_W', r'DERIVED\PRIMARY\M\NORM\WATER\DIS2D'),
            'fat': ('t1_vibe_dixon_{plane}_F', r'DERIVED\PRIMARY\M\NORM\FAT\DIS2D'),
            'inphase': ('t1_vibe_dixon_{plane}_in', r'ORIGINAL\PRIMARY\M\NORM\IN_PHASE\DIS2D'),
            'opposedphase': (
                't1_vibe_dixon_{plane}_opp',
                r'ORIGINAL\PRIMARY\M\NORM\OPP_PHASE\DIS2D',
            ),
            'echo': ('t1_gre_6echo_{plane}', r'ORIGINAL\PRIMARY\M\NORM\DIS2D'),
            't1w': ('t1_tse_{plane}', r'ORIGINAL\PRIMARY\M\NORM\DIS2D'),
            't2w': ('t2_tse_{plane}', r'ORIGINAL\PRIMARY\M\NORM\DIS2D'),
        },
    ),
    'ge': Vendor(
        'GE MEDICAL SYSTEMS',
        'DISCOVERY MR750',
        {'axial': 'Ax', 'sagittal': 'Sag'},
        {
            'water': ('{plane} LAVA-Flex', r'DERIVED\PRIMARY\DIXON\WATER'),
            'fat': ('{plane} LAVA-Flex', r'DERIVED\PRIMARY\DIXON\FAT'),
            'inphase': ('{plane} LAVA-Flex', r'DERIVED\PRIMARY\DIXON\IN_PHASE'),
            'opposedphase': ('{plane} LAVA-Flex', r'DERIVED\PRIMARY\DIXON\OUT_PHASE'),
            'echo': ('{plane} 6-echo SPGR', r'ORIGINAL\PRIMARY\OTHER'),
            't1w': ('{plane} T1 FSE', r'ORIGINAL\PRIMARY\OTHER'),
            't2w': ('{plane} T2 FSE', r'ORIGINAL\PRIMARY\OTHER'),
        },
    ),
    'philips': Vendor(
        'Philips Medical Systems',
        'Achieva dStream',
        {'axial': 'TRA', 'sagittal': 'SAG'},
        {
            'water': ('mDIXON_{plane}', r'DERIVED\PRIMARY\W\W\DERIVED'),
            'fat': ('mDIXON_{plane}', r'DERIVED\PRIMARY\F\F\DERIVED'),
            'inphase': ('mDIXON_{plane}', r'DERIVED\PRIMARY\IP\IP\DERIVED'),
            'opposedphase': ('mDIXON_{plane}', r'DERIVED\PRIMARY\OP\OP\DERIVED'),
            'echo': ('T1W_FFE_6echo_{plane}', r'ORIGINAL\PRIMARY\M_FFE\M\FFE'),
            't1w': ('T1W_TSE_{plane}', r'ORIGINAL\PRIMARY\M_SE\M\SE'),
            't2w': ('T2W_TSE_{plane}', r'ORIGINAL\PRIMARY\M_SE\M\SE'),
        },
    ),
}
