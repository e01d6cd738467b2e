"""One run of a flow: lock the store, plan, build in batches, seal, validate, show the results.

The steps are those of the command line; each is a Prefect task, and so is each batch of blocks. What is done is
decided by the store's markers, never by Prefect's states.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import sleep
from typing import TypeVar, cast

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import H2cropError, HeldStoreError
from h2crop_data.flows import contents
from h2crop_data.flows.artifacts import Artifacts
from h2crop_data.flows.deadline import Deadline, TimeoutHoursError, end_process_later
from h2crop_data.flows.parameters import RunSettings
from h2crop_data.flows.result import (
    InvalidReleaseError,
    RunResult,
    UnforeseenError,
    UnplannedSeasonsError,
    completed_state,
    failed_state,
    may_recover,
    skipped_state,
)
from h2crop_data.flows.run_log import Logger, ProgressLines, library_lines
from h2crop_data.pipeline.block_run import BlockRun, BuiltBlocks, SeasonBlock
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BlockOutcome, Workers
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, kept_parts
from h2crop_data.pipeline.recording import RecordedPlans
from h2crop_data.pipeline.refresh import seasons_in_words
from h2crop_data.pipeline.run_notes import RunNotes, kept_notes
from h2crop_data.pipeline.sealing import NothingFinishedError, seal_store
from h2crop_data.progress import Progress
from h2crop_data.redaction import without_secrets
from h2crop_data.report.cell_map import draw_cells
from h2crop_data.validation.validate import Mode, validate_store

Result = TypeVar("Result")
#: What the table of plans shows.
PLAN_TEXT = (
    "What this run has to build, by part of a season; figures of `all blocks` include the blocks that are already "
    "built."
)
#: Plans what is to be built, and keeps the plans in the store.
PlanStep = Callable[[StoreBuilder, Progress], RecordedPlans]


@dataclass
class Watcher:
    """Receivers of the progress of a run."""

    logger: Logger
    artifacts: Artifacts

    def __post_init__(self) -> None:
        self.lines = ProgressLines(self.logger)

    def progress(self, done: int, total: int, text: str) -> None:
        """Show how far work is, in the artifact and now and then in the log."""
        self.artifacts.show_progress(done, total, text)
        self.lines.show(done, total, text)

    def note_block(self, outcome: BlockOutcome, done: int, total: int) -> None:
        """Show that a block has ended; the library logs what became of it."""
        self.progress(done, total, f"blocks, season {outcome.season} block {outcome.block}")


@task(cache_policy=NO_CACHE)
def do_step(work: Callable[[], Result]) -> Result:
    """One step of a run. Its work is given as a function: Prefect would look through any other argument.

    Raises UnforeseenError for what is no error of this package: Prefect keeps the words of an error, and a library may
    put a signed address into them.
    """
    try:
        return work()
    except H2cropError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever a library raises must not reach the server as it is
        get_run_logger().error("%s", without_secrets("".join(traceback.format_exception(error))))
        raise UnforeseenError(f"{without_secrets(f'{type(error).__name__}: {error}')} (possibly a bug)") from None


class Steps:
    """Runs pieces of work as Prefect tasks, within the time a run has."""

    def __init__(self, deadline: Deadline, logger: Logger) -> None:
        self.deadline, self.logger = deadline, logger
        #: Told of pauses, while a store is held.
        self.notes: RunNotes | None = None

    def run(self, name: str, work: Callable[[], Result], retry_seconds: Sequence[float] = ()) -> Result:
        """Do some work under a name. retry_seconds: how long to wait before each further try of what may recover.

        Raises TimeoutHoursError where the run has no time left, and whatever the work raises.
        """
        pauses = iter(retry_seconds)
        while True:
            try:
                return do_step.with_options(name=name)(partial(self.deadline.keep, work))
            except H2cropError as error:
                if not may_recover(error) or not self.wait(next(pauses, None), f"{name} is retried"):
                    raise

    def wait(self, seconds: float | None, what: str) -> bool:
        """Wait before another try; False, at once, where there is none, or no time for it. what: to say in the log."""
        left = self.deadline.seconds_left()
        if seconds is None or (left is not None and left <= seconds):
            return False
        self.logger.warning("%s in %g s", what, seconds)
        if self.notes is not None:
            self.notes.note_pause(seconds, f"pause, then {what}")
        sleep(seconds)
        return True


def run_to_store(settings: RunSettings, plan: PlanStep) -> RunResult:
    """Build what a step plans, seal and validate it. To be called by a flow, which returns what this gives.

    That is the state in which the run ends: Prefect takes it for the run's own, and gives its result to who called the
    flow, or raises its error.
    """
    logger = get_run_logger()
    with library_lines(logger), Artifacts(settings.out, logger) as artifacts:
        watcher, steps = Watcher(logger, artifacts), Steps(Deadline(settings.timeout_hours), logger)
        try:
            workers = settings.engine_workers
            with (
                hold_store(settings.out) as builder,
                kept_notes(builder, "flow", workers, watcher.progress) as notes,
            ):
                result = build_release(builder, settings, workers, plan, steps, watcher, notes)
            # Readers may look at a release while others build on: the store is not held any more.
            if result.outcome == "built" and settings.check != "none":
                result = validated(result, settings.check, steps, watcher)
            if result.failed_seasons:
                raise UnplannedSeasonsError(seasons_in_words(result.failed_seasons))
            state = completed_state(result)
            artifacts.show_progress(1, 1, "steps: the run is complete")
        except HeldStoreError as error:
            state = skipped_state(settings.out, error)
        except H2cropError as error:
            state = failed_state(error)
            if isinstance(error, TimeoutHoursError):
                end_process_later()
    logger.log(logging.ERROR if state.is_failed() else logging.INFO, "%s: %s", state.name, state.message)
    return cast(RunResult, state)


def build_release(
    builder: StoreBuilder,
    settings: RunSettings,
    workers: Workers,
    plan: PlanStep,
    steps: Steps,
    watcher: Watcher,
    notes: RunNotes,
) -> RunResult:
    """Plan, build and seal. Raises BuildError where blocks failed: then there is no release, as on the command line."""
    artifacts, steps.notes = watcher.artifacts, notes
    before, known = builder.found_release, kept_parts(builder.storage, f"{PLAN_FOLDER}/")
    with notes.phase("planning"):
        planned = steps.run("plan", lambda: plan(builder, notes.progress), settings.retry_seconds)
    new = new_in_plans(planned.plans, known)
    report = None
    if planned.plans:
        with notes.phase("blocks"):
            blocks = build_plans(builder, planned.plans, workers, settings, steps, watcher, notes)
        # Plans hold a country's parcels: they are let go before sealing reads its own.
        planned = replace(planned, plans=[])
        # Where everything that was planned so far was retracted unbuilt, there is nothing to release.
        with suppress(NothingFinishedError):
            with notes.phase("sealing"):
                sealed = steps.run("seal", lambda: seal_store(builder, workers, notes.progress))
            report = BuildReport.of(settings.out, planned, blocks, sealed, notes.time_spent())
            notes.note_release(report.release, report.gaps)
    gaps = contents.gaps_text(report, planned.waiting, planned.failed_seasons, planned.changes)
    artifacts.show_markdown("gaps", gaps)
    if planned.failed_seasons:
        notes.end("failed", seasons_in_words(planned.failed_seasons))
    result = RunResult(
        "built", settings.out, report, *new, planned.waiting, planned.failed_seasons, changes=planned.changes
    )
    if report is None or (not any(new) and not report.built and report.release == before):
        return replace(result, outcome="nothing new")
    artifacts.show_markdown("release", contents.release_text(report))
    return result


def build_plans(
    builder: StoreBuilder,
    plans: Sequence[SeasonPlan],
    workers: Workers,
    settings: RunSettings,
    steps: Steps,
    watcher: Watcher,
    notes: RunNotes,
) -> BuiltBlocks:
    """Build what plans have left to build. Raises BuildError where blocks failed."""
    with BlockRun(builder, plans, workers, progress=notes.progress, notes=notes) as run:
        batches = run.batches(settings.batch_size(run.missing))
        pending = {block for batch in batches for block in batch}
        show_pending(watcher.artifacts, plans, pending, workers)
        return build_blocks_of(run, batches, settings.retry_seconds, steps, watcher)


def build_blocks_of(
    run: BlockRun,
    batches: Sequence[Sequence[SeasonBlock]],
    retry_seconds: Sequence[float],
    steps: Steps,
    watcher: Watcher,
) -> BuiltBlocks:
    """Build batch after batch, and at the end once more what failed for a reason that may pass.

    Raises BuildError where blocks stay failed; the log and an artifact list each of them.
    """
    pauses = iter(retry_seconds)
    try:
        if batches:
            steps.run("units of work", run.run_units)
        build_batches(run, batches, "blocks", steps, watcher)
        while again := [(outcome.season, outcome.block) for outcome in run.failed if may_recover(outcome.error)]:
            if not steps.wait(next(pauses, None), f"{len(again)} of {len(run.failed)} failed block(s) are retried"):
                break
            build_batches(run, [again], "failed blocks again", steps, watcher)
        return run.finish()
    except H2cropError as error:
        if isinstance(error, TimeoutHoursError):
            run.abandon()
        show_failed(run.failed, watcher)
        raise


def show_failed(failed: Sequence[BlockOutcome], watcher: Watcher) -> None:
    """List each failed block in the log and in an artifact."""
    for outcome in failed:
        told = without_secrets(str(outcome.error))
        watcher.logger.error("not built: season %s block %s: %s", outcome.season, outcome.block, told)
    if failed:
        watcher.artifacts.show_table("failed-blocks", contents.failed_rows(failed), "Blocks that could not be built.")


def build_batches(
    run: BlockRun, batches: Sequence[Sequence[SeasonBlock]], name: str, steps: Steps, watcher: Watcher
) -> None:
    """Build batches, each a step of the run."""
    for batch in batches:
        steps.run(name, partial(run.build, batch, watcher.note_block))


def new_in_plans(plans: Sequence[SeasonPlan], known: Collection[str]) -> tuple[dict[int, int], dict[int, list[int]]]:
    """By season, how many new samples a run planned, and the blocks whose samples it planned again.

    known: folders of the parts that were there before. What a try planned that failed later is in it: it is kept.
    """
    names = {part.rstrip("/").rpartition("/")[2] for part in known}
    samples: dict[int, int] = {}
    rebuilt: dict[int, list[int]] = {}
    for plan in plans:
        if plan.part in names:
            continue
        before = {name for other in plans if other.part in names for name in other.samples["sample"]}
        new = sum(name not in before for name in plan.samples["sample"])
        if new:
            samples[plan.season] = samples.get(plan.season, 0) + new
        if plan.replaces:
            rebuilt[plan.season] = sorted([*rebuilt.get(plan.season, []), *plan.replaces])
    return samples, rebuilt


def show_pending(
    artifacts: Artifacts, plans: Sequence[SeasonPlan], pending: Collection[SeasonBlock], workers: Workers
) -> None:
    """Show what is to be built by some workers, and where."""
    if not pending:
        return
    rows = contents.plan_rows(plans, pending, contents.estimated_for(workers))
    artifacts.show_table("plan", rows, PLAN_TEXT)
    cells = pd.concat([plan.samples[["cell", "split", "geometry"]] for plan in plans])
    artifacts.show_picture("cells", draw_cells(cells), contents.cells_text(cells))


def validated(result: RunResult, mode: Mode, steps: Steps, watcher: Watcher) -> RunResult:
    """A result with what validating its release found. Raises InvalidReleaseError where that is an error."""
    found = steps.run("validate", lambda: validate_store(result.store, mode=mode, progress=watcher.progress))
    for finding in found.findings:
        level = logging.ERROR if finding.severity == "error" else logging.WARNING
        line = without_secrets(f"{finding.check}: {finding.where}: {finding.what} -> {finding.remedy}")
        watcher.logger.log(level, "%s", line)
    text = f"{found.errors} error(s), {found.warnings} warning(s) in release {found.release} ({mode})."
    watcher.artifacts.show_table("findings", contents.finding_rows(found.findings), text)
    if found.errors:
        first = next(finding for finding in found.findings if finding.severity == "error")
        raise InvalidReleaseError(
            f"release {found.release} of {result.store} has {found.errors} error(s), the first: {first.check}, "
            f"{first.where}: {first.what} -> {first.remedy}; see the log or the artifact about findings for all"
        )
    return replace(result, findings=found.findings)
