"""`h2crop build` as a Prefect flow: plan, units of work, blocks in batches, seal, validate; docs/flows.md explains it.

    python flows/build.py RECIPE --out STORE [--season 2024] [--extend]

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
from h2crop_data.pipeline.recording import RecordedPlans, recorded_plans
from h2crop_data.progress import Progress
from h2crop_data.recipe.model import load_recipe


@flow(name="h2crop-build")
def build_dataset(
    recipe: parameters.RecipeName,
    out: parameters.StorePlace,
    seasons: parameters.Seasons | None = None,
    extend: bool = False,
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
    """Build a recipe into a store, or continue an interrupted run; seal and validate.

    Args:
        recipe: A recipe file on the worker's machine, or the name of a shipped recipe.
        out: Folder or s3:// URL of the store.
        seasons: Seasons to build instead of the recipe's.
        extend: Search again for the seasons of the store, and add new scenes and cells.
        changed: With extend: report finished blocks whose inputs have changed, or rebuild them.
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
    if seasons:
        chosen = chosen.for_seasons(seasons)

    def plan(builder: StoreBuilder, progress: Progress) -> RecordedPlans:
        return recorded_plans(builder, chosen, extend=extend, changed=changed, today=today, progress=progress)

    return run_to_store(settings, plan)


def run(
    recipe: str,
    out: Annotated[str, typer.Option()],
    season: Annotated[list[int] | None, typer.Option()] = None,
    workers: Annotated[int | None, typer.Option()] = None,
    processes: Annotated[bool, typer.Option()] = False,
    dask: Annotated[str, typer.Option()] = "",
    extend: Annotated[bool, typer.Option()] = False,
    changed: Annotated[Literal["report", "rebuild"], typer.Option()] = "report",
) -> None:
    """Run the flow once, in this process."""
    end_command(
        build_dataset(
            recipe,
            out,
            seasons=season,
            extend=extend,
            changed=changed,
            workers=workers,
            processes=processes,
            dask=dask,
            return_state=True,
        )
    )


if __name__ == "__main__":
    typer.run(run)
