"""Small scans through random kills, full disks and reruns end as those of an undisturbed run.

``make soak`` runs it for two hours with 500 scans; ``SOAK_MINUTES`` makes both less, and
``SOAK_SCANS`` the scans alone, on a slow or busy machine. A first run is left alone. Other runs of
the same scans are disturbed at random until the time is over, and a last one completes them. After
each run, every file of the people whose scans are all done must be that of the first run, and the
files of others whole; at the end none may be missing. The full disks are file systems in memory
that only these processes see.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: Scans of two hours.
SCANS = 500
#: Scans of four people: one has both, the others a sagittal scan, which takes the least time.
SCANS_OF_FOUR = 5
#: Environment variable by which the processes of a run are known.
MARK = 'BIDS_MUSCLE_SOAK'
#: Mean time between two disturbances: a run needs some ten seconds to begin with its scans. On a
#: slow machine it is the time of so many scans of the undisturbed run.
BETWEEN_S, BETWEEN_SCANS = 20, 4
#: Time in which a run that was stopped must have ended, also on a busy machine.
PATIENCE_S = 900
#: Temporary folders that are younger than a minute are not removed by the next run.
YOUNG_S = 61
#: How a disturbed run may end: well, with scans that failed for want of space (74) or of a process
#: (75) or both (1), or by the signal itself, before the program can handle it.
ENDS = {0, 1, 74, 75, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
DISTURBANCES = ('SIGKILL', 'SIGTERM', 'SIGINT', 'worker', 'disk', 'disk', 'beside')
OPTIONS = ('--no-bias-correction', '--nprocs', '2')
AXIAL = ('--shape', '64', '48', '4', '--voxel-size', '5', '5', '20')
SAGITTAL = ('--plane', 'sagittal', '--contrasts', 't2w', '--shape', '8', '48', '42')
SAGITTAL += ('--voxel-size', '8', '5', '5')


class Soak:
    """The folders of a soak test and what has happened in them.

    Parameters
    ----------
    folder
        Where everything goes; its ``out`` and ``tmp`` are file systems of their own.
    seed
        Of the disturbances.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)  # noqa: S311
        self.bids, self.reference = folder / 'bids', folder / 'reference'
        self.out, self.temporary = folder / 'out', folder / 'tmp'
        self.between_s = float(BETWEEN_S)
        self.happened: Counter[str] = Counter()
        self.faults: list[str] = []
        self._compared: dict[Path, tuple[int, int, int]] = {}

    def simulate(self, people: int) -> None:
        """Make the dataset: four people, copied under other labels."""
        for name, words in (('axial', AXIAL), ('sagittal', SAGITTAL)):
            command = [sys.executable, '-m', 'bids_muscle.cli.phantom', str(self.folder / name)]
            subprocess.run([*command, '--participants', '4', *words], check=True)
        self.bids.mkdir()
        shutil.copy(self.folder / 'axial/dataset_description.json', self.bids)
        for number in range(people):
            source, label = f'sub-0{number % 4 + 1}', f'sub-{number + 1:03}'
            folders = ['sagittal', 'axial'] if number % 4 == 0 else ['sagittal']
            for path in [each for name in folders for each in self._images(name, source)]:
                target = self.bids / label / 'anat' / path.name.replace(source, label)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)

    def _images(self, name: str, participant: str) -> Iterator[Path]:
        return (self.folder / name / participant / 'anat').glob('*')

    def start(self, out: Path, *words: str, level: str = 'participant') -> subprocess.Popen[bytes]:
        """Start a run whose processes are marked and whose errors are kept."""
        with (self.folder / 'errors.txt').open('ab') as errors:
            return subprocess.Popen(
                [sys.executable, '-m', 'bids_muscle', str(self.bids), str(out), level, *words],
                env={**os.environ, MARK: str(self.folder), 'TMPDIR': str(self.temporary)},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def complete(self, out: Path) -> None:
        """Run both levels undisturbed."""
        for level, words in (('participant', OPTIONS), ('group', ())):
            if code := self.start(out, *words, level=level).wait():
                self.faults.append(f'the {level} level in {out.name} ended with {code}')

    def disturbed_run(self) -> None:
        """Run the participant level, do random things to it until it ends, and compare."""
        words = [*OPTIONS, '--overwrite'] if self.random.random() < 0.7 else OPTIONS
        runs = [self.start(self.out, *words)]
        while alive := [run for run in runs if run.poll() is None]:
            try:
                alive[0].wait(self.random.expovariate(1 / self.between_s))
            except subprocess.TimeoutExpired:
                runs += self._disturb(self.random.choice(alive))
        self.happened.update(f'ended with {run.returncode}' for run in runs)
        self.faults += [
            f'a run ended with {run.returncode}' for run in runs if run.returncode not in ENDS
        ]
        self._expect_no_process()
        self.compare()

    def _disturb(self, run: subprocess.Popen[bytes]) -> list[subprocess.Popen[bytes]]:
        """Do something at random; returns a run that was started beside the others."""
        what = self.random.choice(DISTURBANCES)
        if what == 'beside':
            self.happened['a second run'] += 1
            return [self.start(self.out, *OPTIONS)]
        if what == 'disk':
            full = self.random.choice([self.out, self.temporary])
            self.happened[f'full disk: {full.name}'] += 1
            self._fill(full, self.random.uniform(0, 10))
        elif what == 'worker':
            if workers := sorted(set(self.processes()) - {run.pid}):
                self.happened['SIGKILL of a worker'] += 1
                _send(self.random.choice(workers), signal.SIGKILL)
        else:
            self.happened[what] += 1
            run.send_signal(signal.Signals[what])
            if what != 'SIGKILL':
                self._expect_end(run)
        return []

    def _fill(self, disk: Path, seconds: float) -> None:
        """Leave no space on a disk for some time."""
        filler = disk / 'filler'
        # A run that takes the last space meanwhile fills the disk just as well.
        with filler.open('wb') as stream, contextlib.suppress(OSError):
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(disk).free)
        time.sleep(seconds)
        filler.unlink()

    def _expect_end(self, run: subprocess.Popen[bytes]) -> None:
        try:
            run.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.faults.append(f'a run did not end within {PATIENCE_S} s after a signal')
            run.kill()

    def processes(self) -> list[int]:
        """Return the processes of runs that have not ended."""
        mark = f'{MARK}={self.folder}'.encode()
        found = []
        for path in Path('/proc').glob('[0-9]*/environ'):
            try:
                if mark in path.read_bytes().split(b'\0'):
                    found.append(int(path.parent.name))
            except OSError:  # ended meanwhile
                continue
        return found

    def _expect_no_process(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while self.processes():
            if time.monotonic() > end:
                self.faults.append(f'processes are left: {self.processes()}')
                return
            time.sleep(0.1)

    def compare(self, *, whole: bool = False) -> None:
        """Compare each file that has changed with the one of the undisturbed run.

        Parameters
        ----------
        whole
            Whether all files must be there, and no others.
        """
        there = _files(self.out, logs=whole)
        settled = self._settled()
        for path in there:
            status = (self.out / path).stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._compared.get(path) == version and not whole:
                continue
            if whole or Path(path.parts[0]).stem in settled:
                self._compared[path] = version
                if path.parts[0] != 'logs' and not self._is_same(path):
                    self.faults.append(f'{path} is not that of the undisturbed run')
            elif not _is_whole(self.out / path):
                self.faults.append(f'{path} is torn')
        if whole:
            # multiprocessing leaves an own folder of a socket when its process is killed.
            left = [path for path in self.temporary.iterdir() if not path.name.startswith('pymp-')]
            hidden = [*self.out.rglob('.*.tmp'), *left]
            self.faults += [f'{path} is left' for path in hidden]
            expected = _files(self.reference, logs=True)
            self.faults += [f'{path} is missing' for path in sorted(expected - there)]
            self.faults += [f'{path} is one too many' for path in sorted(there - expected)]

    def _settled(self) -> set[str]:
        """Return the people all of whose scans are done.

        Of others there may be files that no record lists, and an axial scan has its levels from
        the atlas where the sagittal one has failed.
        """
        settled = set()
        for folder in (self.reference / 'logs').glob('sub-*'):
            paths = [
                self.out / 'logs' / folder.name / path.name for path in folder.glob('sub-*.json')
            ]
            records = [json.loads(path.read_text()) for path in paths if path.is_file()]
            problems = [record['problem'] for record in records if record['problem']]
            self.faults += [
                f'{folder.name}: {problem}'
                for problem in problems
                if problem['exit_code'] not in (74, 75)
            ]
            if len(records) == len(paths) and not problems:
                settled.add(folder.name)
        return settled

    def _is_same(self, path: Path) -> bool:
        try:
            contents = [(folder / path).read_bytes() for folder in (self.out, self.reference)]
        except FileNotFoundError:
            return False
        if path.suffix == '.html':  # times and memory stand there, the folder and the options
            varying = rb'[\d.]+|/(out|reference)\b|overwrite = (true|false)'
            contents = [re.sub(varying, b'', each) for each in contents]
        return contents[0] == contents[1]


def _files(folder: Path, *, logs: bool) -> set[Path]:
    """Return the files of a dataset, relative to it, with the records of its scans or without."""
    paths = [path.relative_to(folder) for path in folder.rglob('*') if path.is_file()]
    return {
        path
        for path in paths
        if not path.name.endswith('.tmp')
        and (path.parts[0] != 'logs' or (logs and path.parts[1].startswith('sub-')))
    }


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == '.gz':
            gzip.decompress(path.read_bytes())
        elif path.suffix == '.json':
            json.loads(path.read_bytes())
    except (EOFError, OSError, ValueError):
        return False
    return True


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _own_mounts() -> None:
    """Begin again where mounts are private, as root or as one who is root there."""
    if MARK not in os.environ:
        user = [] if os.getuid() == 0 else ['--user', '--map-root-user']
        os.environ[MARK] = 'mounts'
        command = ['unshare', *user, '--mount', sys.executable, *sys.argv]
        os.execvp(command[0], command)  # noqa: S606


def main() -> int:
    """Run the soak test; returns 1 if something was wrong, and keeps the folder then."""
    _own_mounts()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    minutes = float(os.environ.get('SOAK_MINUTES', '120'))
    scans = int(os.environ.get('SOAK_SCANS', round(SCANS * minutes / 120)))
    seed = int(os.environ.get('SOAK_SEED', time.time_ns() % 10_000))
    folder = Path(tempfile.mkdtemp(prefix='soak-'))
    print(f'{scans} scans for {minutes:g} minutes in {folder}, SOAK_SEED={seed}', flush=True)
    soak = Soak(folder, seed)
    try:
        for disk in (soak.out, soak.temporary):
            disk.mkdir()
            mount = ['mount', '-t', 'tmpfs', '-o', 'size=2g', 'tmpfs', str(disk)]
            subprocess.run(mount, check=True)
        _soak(soak, scans, time.monotonic() + 60 * minutes)
        if 'Traceback' in (folder / 'errors.txt').read_text(errors='replace'):
            soak.faults.append(f'There is a traceback in {folder}/errors.txt.')
        if soak.faults:
            print(*soak.faults[:100], f'The folder {folder} is kept.', sep='\n')
            shutil.copytree(soak.out, folder / 'out-kept')
            return 1
        print(f'{len(_files(soak.out, logs=True))} files are those of the undisturbed run.')
    finally:
        for process in soak.processes():
            _send(process, signal.SIGKILL)
        for disk in (soak.out, soak.temporary):
            subprocess.run(['umount', '--lazy', str(disk)], check=True)
    shutil.rmtree(folder)
    return 0


def _soak(soak: Soak, scans: int, end: float) -> None:
    """Run undisturbed, then disturbed until the time is over, and complete that."""
    people = max(4, scans * 4 // SCANS_OF_FOUR)
    soak.simulate(people)
    begin = time.monotonic()
    soak.complete(soak.reference)
    lasted_s = time.monotonic() - begin
    print(f'The undisturbed run took {lasted_s / 60:.1f} minutes.', flush=True)
    soak.between_s = max(BETWEEN_S, BETWEEN_SCANS * lasted_s / scans)
    while time.monotonic() < end and not soak.faults:
        soak.disturbed_run()
        print(dict(sorted(soak.happened.items())), flush=True)
    if not soak.faults:
        time.sleep(YOUNG_S)
        soak.complete(soak.out)
        soak.compare(whole=True)


if __name__ == '__main__':
    sys.exit(main())
