"""What a training shows of itself: a table, a picture and TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bids_muscle.segmentation.training.recipe import Recipe

COLUMNS = ('iteration', 'loss', 'learning_rate', 'dice')


class ProgressLog:
    """Writes ``history.tsv``, ``curves.png`` and ``tensorboard/`` into the folder of a training.

    Parameters
    ----------
    folder
        Folder of the training.
    history
        Rows so far, as the checkpoint has them; :meth:`add` appends to this list.
    iteration
        Where the training goes on; later events of a killed one are purged.
    """

    def __init__(self, folder: Path, history: list[dict[str, float]], iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.history = folder, history
        self.events = SummaryWriter(str(folder / 'tensorboard'), purge_step=iteration + 1)

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row: iteration, loss, learning rate and, if there was a validation, its Dice."""
        self.history.append(dict(row))
        for name in COLUMNS[1:]:
            if name in row:
                self.events.add_scalar(name, row[name], row['iteration'])

    def draw(self, recipe: Recipe) -> None:
        """Write the table and the learning curves so far."""
        from matplotlib.figure import Figure

        self.events.flush()
        lines = ['\t'.join(COLUMNS)]
        for row in self.history:
            values = (f'{row[name]:.6g}' if name in row else 'n/a' for name in COLUMNS)
            lines.append('\t'.join(values))
        (self.folder / 'history.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
        figure = Figure(figsize=(7, 4), layout='constrained')
        left = figure.subplots()
        left.plot(
            [row['iteration'] for row in self.history],
            [row['loss'] for row in self.history],
            color='#0072B2',
        )
        left.set(title=recipe.name, xlabel='iteration')
        left.set_ylabel('training loss (running mean)', color='#0072B2')
        validated = [row for row in self.history if 'dice' in row]
        if validated:
            right = left.twinx()
            right.plot(
                [row['iteration'] for row in validated],
                [row['dice'] for row in validated],
                color='#D55E00',
                marker='o',
            )
            right.set_ylim(0, 1)
            right.set_ylabel('validation Dice', color='#D55E00')
        figure.savefig(self.folder / 'curves.png', dpi=120, metadata={'Software': None})

    def close(self) -> None:
        """Close the event file."""
        self.events.close()
