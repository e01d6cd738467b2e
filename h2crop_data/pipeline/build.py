"""Building a store: plan what is not planned, build what is not built, seal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from h2crop_data.cube.writer import hold_store
from h2crop_data.pipeline.block_run import BuiltBlocks, OnBlock, build_blocks, ignore_outcome
from h2crop_data.pipeline.changes import Changed
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.recording import RecordedPlans, recorded_plans
from h2crop_data.pipeline.run_notes import kept_notes
from h2crop_data.pipeline.sealing import SealedRelease, seal_store
from h2crop_data.pipeline.timings import TimeSpent
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.storage.storage import Storage


@dataclass(frozen=True)
class BuildReport:
    """The report of a build.

    store: as it was given. release: the number of the release that was made, or of the newest where nothing changed.
    seasons: those that were asked for. samples, bytes: how many samples these have, and bytes of their shards. built,
    already_done: blocks built by this run, and before it. tiles_read, bytes_read: internal tiles of scenes that this
    run decoded for composites, and their bytes as files state them. seconds: of work by step, summed over the workers.
    gaps: scenes that could not be read and were left out, as the recipe allows. impossible: scenes with clear pixels
    whose values are impossible for ground; these pixels were not used. differences: items that contradict their files,
    `scene: what (assets)`; the files were used. empty_months: by season, months (1..12) that stay empty because a
    source has no scene in them. changes: inputs of finished blocks that have changed, and what can be done. sources: by
    season and part of its plan, what was read: counts, unmapped crop codes, warnings. repaired: files of the newest
    release that were missing or damaged; they were written again, or are right in the release that was made.
    steps, phases, slowest: where the time of this run went, as `TimeSpent` has it.
    """

    store: str
    release: int
    seasons: list[int]
    built: int
    already_done: int
    samples: int
    bytes: int
    tiles_read: int
    bytes_read: int
    seconds: dict[str, float]
    gaps: list[str]
    impossible: list[str]
    differences: list[str]
    empty_months: dict[int, list[int]]
    changes: list[str]
    sources: dict[int, dict[str, Any]]
    repaired: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(
        cls, store: str, planned: RecordedPlans, blocks: BuiltBlocks, sealed: SealedRelease, spent: TimeSpent
    ) -> BuildReport:
        """The report of what each step gave."""
        seasons = {season: sealed.seasons[season] for season in planned.seasons if season in sealed.seasons}
        faults = {
            kind: [scene for season in seasons.values() for scene in season.faults.get(kind, [])]
            for kind in ("gaps", "impossible", "differences")
        }
        return cls(
            store=store,
            release=sealed.number,
            seasons=planned.seasons,
            built=blocks.built,
            already_done=blocks.already_done,
            samples=sum(season.samples for season in seasons.values()),
            bytes=sum(season.bytes for season in seasons.values()),
            tiles_read=blocks.read.tiles,
            bytes_read=blocks.read.bytes,
            seconds=blocks.seconds,
            gaps=faults["gaps"],
            impossible=faults["impossible"],
            differences=faults["differences"],
            empty_months={number: season.empty_months for number, season in seasons.items() if season.empty_months},
            changes=planned.changes,
            sources={number: season.sources for number, season in seasons.items()},
            repaired=sealed.repaired,
            steps=spent.steps,
            phases=spent.phases,
            slowest=spent.slowest,
        )


def build_store(
    source: Recipe | SeasonPlan | Path | str,
    store: str | Path | Storage,
    *,
    extend: bool = False,
    changed: Changed = "report",
    workers: Workers | int | None = None,
    scratch: Path | None = None,
    scratch_bytes: int | None = None,
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
    today: date | None = None,
) -> BuildReport:
    """Build the seasons of a recipe or of a plan into a store, continuing an unfinished one, and seal it.

    source: a recipe, a plan, the folder of plans, a recipe file or the name of a shipped recipe. store: folder, `s3://`
    URL, or the storage of the store. extend: search again for seasons the store has, and add what is new. changed:
    whether finished blocks whose inputs have changed are listed in the report, or their samples are rebuilt in new
    blocks, which replace the old ones in the new release (with extend). today: a date in UTC, by default that of the
    day; a season is built when it is complete (`seasons.CATCH_UP`), or in season by recipe. workers: the workers; a
    number means threads, None the workers of the environment. scratch: a folder for composites that wait for the rest
    of their block; scratch_bytes: its approximate limit; default of both: the environment variables. progress: called
    with (done, total, text) while a season is planned, and with the blocks that are done and what was read of scenes.
    Raises UsageError for another kind of source, PlanError where the store was begun from other inputs, BuildError when
    blocks failed, StoreError when the store cannot be written or another builder has locked it. Finished work is always
    kept.
    """
    workers = Workers.of(workers)
    with hold_store(store) as builder, kept_notes(builder, "build", workers, progress) as notes:
        progress = notes.progress
        with notes.phase("planning"):
            planned = recorded_plans(builder, source, extend=extend, changed=changed, today=today, progress=progress)
        blocks = build_blocks(
            builder,
            planned.plans,
            workers,
            on_block,
            progress=progress,
            scratch=scratch,
            scratch_bytes=scratch_bytes,
            notes=notes,
        )
        # Plans hold a country's parcels: they are let go before sealing reads its own.
        planned = replace(planned, plans=[])
        with notes.phase("sealing"):
            sealed = seal_store(builder, workers, progress)
        location = store.location if isinstance(store, Storage) else str(store)
        report = BuildReport.of(location, planned, blocks, sealed, notes.time_spent())
        notes.note_release(report.release, report.gaps)
        return report
