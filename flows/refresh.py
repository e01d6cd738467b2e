"""`h2crop refresh` as a Prefect flow, for a schedule: search for what is new since the last run, and build only that.

    python flows/refresh.py RECIPE --out STORE [--changed rebuild]

runs it once, in this process. Nothing here computes anything: h2crop_data/flows/run.py calls what the command calls.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import typer
from prefect import flow

from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.flows import parameters
from h2crop_data.flows.command import end_command
from h2crop_data.flows.result import RunResult
from h2crop_data.flows.run import run_to_store
from h2crop_data.pipeline.changes import Changed
from h2crop_data.pipeline.recording import RecordedPlans
from h2crop_data.pipeline.refresh import refresh_plans
from h2crop_data.progress import Progress
from h2crop_data.recipe.model import load_recipe


@flow(name="h2crop-refresh")
def refresh_dataset(
    recipe: parameters.RecipeName,
    out: parameters.StorePlace,
    changed: Changed = "report",
    workers: parameters.WorkerCount | None = None,
    processes: bool = False,
    dask: parameters.SchedulerAddress = "",
    batch: parameters.BatchSize | None = None,
    retry_seconds: parameters.RetrySeconds = parameters.RETRY_SECONDS,
    timeout_hours: parameters.Hours | None = None,
    check: parameters.ReleaseCheck = "quick",
    today: date | None = None,
) -> RunResult:
    """Search for new scenes, seasons and parcels of a store; build only these, seal and validate.

    If nothing is new, the run does nothing and reports that.

    Args:
        recipe: A recipe file on the worker's machine, or the name of a shipped recipe.
        out: Folder or s3:// URL of the store.
        changed: Report finished blocks whose inputs have changed, or rebuild them.
        workers: Blocks built at the same time; by default H2CROP_WORKERS, else one per core.
        processes: Use worker processes instead of threads.
        dask: Address of a Dask scheduler whose workers build instead, tcp://host:port; by default H2CROP_DASK.
        batch: Blocks in a batch; by default 64 or a fiftieth of all, whichever is more.
        retry_seconds: Seconds to wait before each retry after an outage. An empty list: no retries.
        timeout_hours: Time limit of the run in hours; the next run continues.
        check: Validation of the release: none, quick (everything except pixels) or full.
        today: The day that decides which seasons are over; by default that of the run, in UTC.
    """
    settings = parameters.RunSettings(
        out=out,
        workers=workers,
        processes=processes,
        dask=dask,
        batch=batch,
        retry_seconds=retry_seconds,
        timeout_hours=timeout_hours,
        check=check,
    )
    chosen = load_recipe(recipe)

    def plan(builder: StoreBuilder, progress: Progress) -> RecordedPlans:
        return refresh_plans(builder, chosen, changed=changed, today=today, progress=progress)

    return run_to_store(settings, plan)


def run(
    recipe: str,
    out: Annotated[str, typer.Option()],
    workers: Annotated[int | None, typer.Option()] = None,
    processes: Annotated[bool, typer.Option()] = False,
    dask: Annotated[str, typer.Option()] = "",
    changed: Annotated[Literal["report", "rebuild"], typer.Option()] = "report",
) -> None:
    """Run the flow once, in this process."""
    end_command(
        refresh_dataset(
            recipe,
            out,
            changed=changed,
            workers=workers,
            processes=processes,
            dask=dask,
            return_state=True,
        )
    )


if __name__ == "__main__":
    typer.run(run)
