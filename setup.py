"""Packaging of bids_muscle; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '([^']+)'", (ROOT / 'bids_muscle/__init__.py').read_text(encoding='utf-8')
).group(1)

# torch is pinned so that an index with a CPU build gives that one; see README.md for CUDA.
INSTALL = [
    'torch==2.13.0',
    'monai==1.6.1',
    'nipype>=1.11,<1.12',
    'pybids>=0.22,<0.23',
    'nibabel>=5.4,<6',
    'antspyx>=0.6.3,<0.7',
    'pandas>=3.0,<4',
    'pyarrow>=21',
    'pydicom>=3,<4',
    'pyyaml>=6',
    'numpy>=2.2,<2.4',
    'scipy>=1.15,<2',
    'scikit-image>=0.25,<0.27',
    'statsmodels>=0.15,<0.16',
    'jinja2>=3.1,<4',
    'flask>=3.1,<4',
    'waitress>=3,<4',
    'matplotlib>=3.10,<4',
    'pillow>=11',
    'safetensors>=0.5,<1',
    'tomli-w>=1.2,<2',
    'isal>=1.7,<2',
    'rich>=14,<16',
    'tensorboard>=2.20,<3',
]
# Completion of options in the shell, and the documentation as a site.
COMPLETION = ['shtab>=1.7,<2']
DOCS = ['mkdocs-material>=9.6,<10']
# Loads on the spine.
LOADING = ['opensim>=4.6,<4.7']
TEST = [
    'pytest>=9,<10',
    'pytest-xdist>=3.6,<4',
    'hypothesis>=6.130,<7',
    'bids-validator-deno>=3,<4',
    'html5lib>=1.1,<2',
    'import-linter>=2.3,<3',
    'playwright>=1.55,<2',
    'websocket-client>=1.8,<2',
    'pingouin>=0.7,<0.8',
    'neuroCombat==0.2.12',
    'scikit-learn>=1.7,<2',
    'dcm2bids>=3.2,<4',
    'heudiconv>=1.5,<2',
    'nbclient>=0.10,<1',
    'ipykernel>=6,<8',
    'ruff>=0.14',
    'mypy>=1.18',
    'codespell>=2.4',
    *COMPLETION,
    *LOADING,
]

# Package indexes show README.md alone: pictures and links of the repository would lead nowhere.
README = (ROOT / 'README.md').read_text(encoding='utf-8')
README = re.sub(r'!\[[^]]*\]\((?!https?:)[^)]*\)\n*', '', README)
README = re.sub(r'\[([^]]*)\]\((?!https?:|#)[^)]*\)', r'\1', README)

setup(
    name='bids_muscle',
    version=VERSION,
    description='Muscle fat infiltration, volume and area from neck and lumbar-spine MRI in BIDS',
    long_description=README,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The bids_muscle developers',
    keywords='MRI muscle fat-infiltration segmentation spine neck lumbar Dixon BIDS deep-learning',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Intended Audience :: Healthcare Industry',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    packages=find_packages(include=['bids_muscle', 'bids_muscle.*']),
    package_data={
        'bids_muscle': ['data/**/*', 'reports/templates/*', 'reports/vendor/*', 'py.typed']
    },
    install_requires=INSTALL,
    # The networks of nnU-Net; its weights and plans are read by our own code.
    extras_require={
        'test': TEST,
        'loading': LOADING,
        'completion': COMPLETION,
        'docs': DOCS,
        'nnunet': ['dynamic-network-architectures>=0.4,<0.5'],
    },
    entry_points={
        'console_scripts': [
            'bids_muscle = bids_muscle.cli.start:main',
            'bids_muscle-atlas = bids_muscle.cli.start:atlas',
            'bids_muscle-norms = bids_muscle.cli.start:norms',
            'bids_muscle-phantom = bids_muscle.cli.start:phantom',
            'bids_muscle-model = bids_muscle.cli.start:model',
            'bids_muscle-report = bids_muscle.cli.start:report',
            'bids_muscle-segment = bids_muscle.cli.start:segment',
            'bids_muscle-slurm = bids_muscle.cli.start:slurm',
            'bids_muscle-status = bids_muscle.cli.start:status',
        ]
    },
)
