"""Run the last steps of a participant alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_muscle.engine.execute import run_workflow
from bids_muscle.engine.resources import Resources
from bids_muscle.workflows.session import run_sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nipype import Workflow

    from bids_muscle.engine.outcome import RunReport
    from bids_muscle.errors import Problem
    from bids_muscle.settings import Settings


def finish_sessions(settings: Settings, ran: list[str] | None = None) -> list[Problem]:
    """Run the last steps of participant 01; names of those that were run are added to `ran`."""
    from nipype import Workflow

    def run(graphs: Sequence[Workflow]) -> RunReport:
        workflow = Workflow('wf', base_dir=settings.output_dir.parent / 'work')
        workflow.add_nodes(list(graphs))
        crash_dir = settings.output_dir.parent / 'crash'
        report = run_workflow(
            workflow, resources=Resources(nprocs=1, memory_gb=4), crash_dir=crash_dir
        )
        if ran is not None:
            ran.extend(outcome.name for outcome in report.outcomes)
        return report

    return run_sessions(settings, ['01'], run)
