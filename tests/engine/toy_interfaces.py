"""Interfaces that do one small thing, so that workers can be watched and broken."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_muscle.errors import GridMismatchError


class ToyInputSpec(BaseInterfaceInputSpec):
    """Inputs of all toys; ``folder`` is where they meet."""

    folder = traits.Str()
    value = traits.Int(0, usedefault=True)
    other = traits.Any()
    use_gpu = traits.Bool(False)


class ToyOutputSpec(TraitedSpec):
    """What is passed on."""

    value = traits.Int()
    seen = traits.Dict()


class Toy(SimpleInterface):
    """Adds one and says what it sees."""

    input_spec = ToyInputSpec
    output_spec = ToyOutputSpec

    def _run_interface(self, runtime):
        self.act(Path(self.inputs.folder))
        self._results['value'] = self.inputs.value + 1
        names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS')
        self._results['seen'] = {name: os.environ.get(name) for name in names}
        return runtime

    def act(self, folder: Path) -> None:
        """Do what the toy is for."""


class Print(Toy):
    """Writes to standard output."""

    def act(self, folder):  # noqa: D102
        print('noise', flush=True)


class TorchThreads(Toy):
    """Gives torch's number of threads."""

    def act(self, folder):  # noqa: D102
        import torch

        self.inputs.value = torch.get_num_threads() - 1


class Raise(Toy):
    """Raises the error named by ``other``."""

    def act(self, folder):  # noqa: D102
        raise {
            'user': GridMismatchError('a.nii and b.nii differ.', 'Use images of one scan.'),
            'bug': ValueError('no such thing'),
            'memory': MemoryError('too much'),
            'disk': OSError(errno.ENOSPC, 'No space left on device'),
            'exit': SystemExit(3),
        }[self.inputs.other]


class Die(Toy):
    """Ends its process: by the signal ``other``, or hard with status 3 if that is 0."""

    def act(self, folder):  # noqa: D102
        _wait_for(folder / 'sibling')
        (folder / 'victim').write_text(str(os.getpid()))
        if self.inputs.other == 0:
            os._exit(3)
        os.kill(os.getpid(), self.inputs.other)
        signal.pause()


class Sibling(Toy):
    """Runs while Die dies, and goes on afterwards."""

    def act(self, folder):  # noqa: D102
        (folder / 'sibling').touch()
        _wait_for(folder / 'victim')
        pid = (folder / 'victim').read_text
        while not pid() or Path(f'/proc/{pid()}').exists():
            time.sleep(0.01)


class Sleep(Toy):
    """Says that it runs, and sleeps for good."""

    def act(self, folder):  # noqa: D102
        (folder / 'pid').write_text(str(os.getpid()))
        time.sleep(3600)


class Work(Toy):
    """Computes for ``value`` seconds of processor time."""

    def act(self, folder):  # noqa: D102
        while time.process_time() < self.inputs.value:
            pass


class Log(Toy):
    """Notes its start and end, and the device it sees, in ``folder``/log."""

    def act(self, folder):  # noqa: D102
        device = os.environ['CUDA_VISIBLE_DEVICES'] or 'none'
        for event in ('start', 'end'):
            with (folder / 'log').open('a') as file:
                file.write(f'{event} {self.inputs.other} {device}\n')
            time.sleep(0.05)


class _ReadInputSpec(ToyInputSpec):
    path = File(exists=True)


class Read(Toy):
    """Copies a file to the end of ``folder``/log."""

    input_spec = _ReadInputSpec

    def act(self, folder):  # noqa: D102
        with (folder / 'log').open('a') as file:
            file.write(Path(self.inputs.path).read_text() + '\n')


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
