"""Settings from the command line and from the file given by ``--config-file``."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_muscle.errors import PARSE_ERRORS, MissingInputError, UsageError
from bids_muscle.files import read_small
from bids_muscle.settings import MODEL_KEYS, OPTIONS, TABLES, Settings, names_of, value_type


def build_settings(flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Settings:
    """Build the settings: flags over the settings file over the defaults.

    Parameters
    ----------
    flags
        Value by field name; None and absent mean not given.
    config
        Value by field name, as returned by :func:`read_config`.

    Returns
    -------
    Settings
        With absolute paths, and labels without ``sub-`` and ``ses-``, each once.

    Raises
    ------
    UsageError
        If a value is not allowed or a needed one is missing.

    Examples
    --------
    >>> flags = {'bids_dir': '/in', 'output_dir': '/out', 'level': 'participant'}
    >>> config = {'nprocs': 2, 'device': 'cpu'}
    >>> settings = build_settings({**flags, 'nprocs': 4}, config)
    >>> settings.nprocs, settings.device
    (4, 'cpu')
    """
    merged = {**(config or {}), **{key: val for key, val in flags.items() if val is not None}}
    values = {key: _convert(key, value) for key, value in merged.items()}
    for name in ('bids_dir', 'output_dir', 'level'):
        if name not in values:
            raise UsageError(f'{name} is not given.', 'Give it on the command line.')
    return Settings(**values)


def read_config(path: Path) -> dict[str, Any]:
    """Read a settings file.

    Parameters
    ----------
    path
        TOML file with the tables ``[input]``, ``[science]``, ``[models]``, ``[group]`` and
        ``[execution]``.

    Returns
    -------
    dict
        Value by field name of :class:`~bids_muscle.settings.Settings`.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If it is not TOML, or a table or key is unknown, or a value has the wrong type.
    """
    try:
        document = tomllib.loads(read_small(path).decode())
    except OSError as error:
        raise MissingInputError(
            f'The settings file {path} cannot be read: {error.strerror}.', 'Check --config-file.'
        ) from error
    except PARSE_ERRORS as error:
        raise UsageError(
            f'The settings file {path} is not TOML: {error}.', 'Correct it at that place.'
        ) from error
    values: dict[str, Any] = {}
    tables = (*TABLES, 'models')
    for table, content in document.items():
        if table not in tables or not isinstance(content, dict):
            is_table = isinstance(content, dict)
            what = f'table [{table}]' if is_table else f"key '{table}'"
            raise UsageError(
                f'The settings file {path} has an unknown {what} at the top level.',
                _closest(table, tables) if is_table else _nearest(table, tables),
            )
        keys = list(MODEL_KEYS) if table == 'models' else names_of(table)
        for key in content:
            if key not in keys:
                raise UsageError(
                    f"The settings file {path} has an unknown key '{key}' in [{table}].",
                    _nearest(key, keys),
                )
        try:
            fields = {'models': content} if table == 'models' else content
            values |= {key: _convert(key, value) for key, value in fields.items()}
        except UsageError as error:
            raise UsageError(f'The settings file {path}: {error.message}', error.remedy) from error
    return values


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return which known key was probably meant."""
    if name in OPTIONS:
        return f'Move it to the table [{OPTIONS[name].table}].'
    return _closest(name, known)


def _closest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f'Did you mean {close[0]}?' if close else f'Known are: {", ".join(known)}.'


_WANTED = {
    Path: 'a path',
    str: 'a string',
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
}


def _convert(name: str, value: Any) -> Any:
    """Return a value in the type of its field, or raise UsageError."""
    if name == 'models':
        return _convert_models(value)
    kind, several = value_type(name)
    if several:
        if isinstance(value, list | tuple) and all(isinstance(each, str | Path) for each in value):
            return tuple(dict.fromkeys(_item(name, kind, each) for each in value))
        raise UsageError(f'{name} is {value!r}.', 'Give a list of strings.')
    if kind is Path and isinstance(value, str | Path) and str(value):
        return _absolute(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int for Python, but 'nprocs = true' is a mistake.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f'{name} is {value!r}.', f'Give {_WANTED[kind]}.')
    return value


def _convert_models(value: Any) -> tuple[tuple[str, str], ...]:
    """Return region and model from the table ``[models]``, in the order of its keys."""
    if not isinstance(value, Mapping):
        return tuple(value)  # converted when the settings file was read
    for key, model in value.items():
        if not isinstance(model, str) or not model:
            raise UsageError(f'[models] {key} is {model!r}.', 'Give the name of a model.')
    return tuple((region, value[key]) for key, region in MODEL_KEYS.items() if key in value)


def _item(name: str, kind: type, value: str | Path) -> Any:
    if kind is Path:
        return _absolute(value)
    if name == 'group':
        return str(value).strip()
    return str(value).removeprefix('sub-' if name == 'participants' else 'ses-')


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()
