"""Prefect: the same steps as `h2crop build`, with retries, logs and a summary artifact.

All blocks go to the engine in one task. The engine keeps its own markers, so a run that died is started again and goes
on where it was; mapping over thousands of blocks would only load the orchestrator. Nothing here computes anything.

    python flows/build.py RECIPE --out STORE [--season 2024] [--extend]
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import CatalogError, ReadError
from h2crop_data.pipeline.block_run import BuiltBlocks, build_blocks
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BlockOutcome, BuildError, Workers
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.recording import RecordedPlans, recorded_plans
from h2crop_data.pipeline.sealing import seal_store
from h2crop_data.recipe.model import Recipe, load_recipe


def may_recover(_task: Any, _run: Any, state: Any) -> bool:
    """Catalogs and archives recover, and failed blocks are tried alone; a wrong recipe or a full disk stays so."""
    return isinstance(state.result(raise_on_failure=False), CatalogError | ReadError | BuildError)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[30, 120, 600], retry_condition_fn=may_recover)
def plan_seasons(builder: StoreBuilder, recipe: Recipe, extend: bool) -> RecordedPlans:
    """Plan the seasons that are not planned yet, or what is new in them, and keep the plans in the store."""
    return recorded_plans(builder, recipe, extend=extend)


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[60, 600], retry_condition_fn=may_recover)
def build_missing_blocks(builder: StoreBuilder, plans: list[SeasonPlan], workers: int, processes: bool) -> BuiltBlocks:
    """Build the blocks that are not done yet."""
    logger = get_run_logger()

    def log(outcome: BlockOutcome, done: int, total: int) -> None:
        if outcome.error is not None:
            logger.warning("season %s block %s failed: %s", outcome.season, outcome.block, outcome.error)
        else:
            logger.info("%s/%s season %s block %s", done, total, outcome.season, outcome.block)

    return build_blocks(builder, plans, Workers(workers, "processes" if processes else "threads"), log)


@task(cache_policy=NO_CACHE)
def seal_release(
    builder: StoreBuilder, store: str, planned: RecordedPlans, blocks: BuiltBlocks, workers: int, processes: bool
) -> BuildReport:
    """Make the release and publish a summary of the build as an artifact."""
    report = BuildReport.of(
        store, planned, blocks, seal_store(builder, Workers(workers, "processes" if processes else "threads"))
    )
    steps = "\n".join(f"| {step} | {seconds:.1f} |" for step, seconds in sorted(report.seconds.items()))
    gaps = "\n".join(f"- {gap}" for gap in report.gaps) or "none"
    create_markdown_artifact(
        key="h2crop-build",
        markdown=(
            f"# {report.store}, release {report.release}\n\n{report.samples} samples, {report.bytes / 1e6:.1f} MB, "
            f"{report.built} blocks built, {report.already_done} done before.\n\n"
            f"| step | seconds |\n|---|---|\n{steps}\n\n## Gaps\n\n{gaps}\n"
        ),
    )
    return report


@flow(name="h2crop-build", log_prints=True)
def build_dataset(
    recipe: str,
    out: str,
    seasons: list[int] | None = None,
    workers: int = 2,
    processes: bool = False,
    extend: bool = False,
) -> dict[str, Any]:
    """Build a recipe into a store: plan, build, seal. Gives the report of the build as plain data.

    recipe: a recipe file or the name of a shipped one. out: folder or s3:// URL. seasons: other ones than the recipe's.
    extend: search again for seasons the store has, and add what is new.
    """
    chosen = load_recipe(recipe)
    if seasons:
        chosen = chosen.for_seasons(seasons)
    with hold_store(out) as builder:
        planned = plan_seasons(builder, chosen, extend)
        blocks = build_missing_blocks(builder, planned.plans, workers, processes)
        return asdict(seal_release(builder, out, planned, blocks, workers, processes))


def run(
    recipe: str,
    out: Annotated[str, typer.Option()],
    season: Annotated[list[int] | None, typer.Option()] = None,
    workers: Annotated[int, typer.Option()] = 2,
    processes: Annotated[bool, typer.Option()] = False,
    extend: Annotated[bool, typer.Option()] = False,
) -> None:
    """Run the flow once, in this process."""
    typer.echo(build_dataset(recipe, out, season, workers, processes, extend))


if __name__ == "__main__":
    typer.run(run)
