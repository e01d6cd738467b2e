"""The estimate of a plan: counts, bytes and time, before anything is built."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h2crop_data.grid import home_tile
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.planning import PlannedBlocks, units_of_blocks
from h2crop_data.pipeline.source_facts import reasons_left_out, source_facts
from h2crop_data.settings import Estimates, Folders
from h2crop_data.sources.readings import ToRead
from h2crop_data.sources.registry import sources_of, used_sources
from h2crop_data.sources.scenes import SceneDecision
from h2crop_data.sources.source import PlannedBlock
from h2crop_data.sources.units import Unit
from h2crop_data.sources.work import ArchiveLine, Work, WorkStep

#: Stored over raw bytes of full-size cells, as measured (docs/benchmarks.md); cloudy years are smaller.
COMPRESSION = {"lz4": 0.66, "zstd": 0.58}
#: Seconds of a core for a megabyte of raw output: assembling, labels, statistics, compression, hashes. These and the
#: next were measured with those of sources/sentinel2/work.py.
SECONDS_A_MEGABYTE = 0.008
#: Seconds of a core to look where the images of a cell lie against its parcels.
SECONDS_A_FRAME = 0.18
#: Seconds before and after all blocks that nobody shares: for a build, and for each scene in its tables.
SECONDS_OF_BUILD, SECONDS_A_SCENE = 1.0, 0.02


@dataclass(frozen=True)
class Prices:
    """What a worker costs an hour, and a gigabyte that comes from a server, in any currency; None where not given."""

    hour: float | None = None
    gigabyte: float | None = None


def known_line(request_seconds: float | None = None, megabytes_a_second: float | None = None) -> ArchiveLine:
    """The way to archives as it is given, else as the environment says."""
    settings = Estimates.read()
    seconds = settings.request_seconds if request_seconds is None else request_seconds
    return ArchiveLine(seconds, (megabytes_a_second or settings.megabytes_a_second) * 1e6)


def known_prices(hour: float | None = None, gigabyte: float | None = None) -> Prices:
    """Prices as they are given, else as the environment says."""
    settings = Estimates.read()
    return Prices(settings.price_hour if hour is None else hour, settings.price_gb if gigabyte is None else gigabyte)


@dataclass(frozen=True)
class OnWorkers:
    """What so many workers make of a plan, about. cost: by the prices that were given, else None."""

    hours: float
    cost: float | None


@dataclass(frozen=True)
class Estimate:
    """The estimate of a plan.

    counts: samples, cells, blocks, and what its sources count. raw_bytes, bytes: of all arrays, before and (about)
    after compression. to_read: tiles and bytes of files for composites, and requests to servers, at most (clouds make
    it less). seconds: of one worker, roughly. left_out: reason -> scenes. months_without_scenes: 1..12.
    split_problems: in words, what the split does not meet. sources: what was read (`source_facts`). catalogs: scenes
    used of each (`scenes_of_catalogs`).

    Of the build after the plan, about. bytes_to_read: of all files. remote_bytes, requests: what comes from servers of
    these, and by how many requests. bytes_to_write: into store, work folder and scratch folder. work_bytes: disk of the
    work folder, at most its bound, but at least what blocks use, which stays there until the end. scratch_bytes: of the
    scratch folder, at most. cpu_seconds: of one core by step. on_workers: by their number.
    """

    counts: dict[str, int]
    raw_bytes: int
    bytes: int
    to_read: ToRead
    seconds: float
    left_out: dict[str, int]
    months_without_scenes: list[int]
    split_problems: list[str]
    sources: dict[str, Any]
    catalogs: dict[str, int]
    bytes_to_read: int = 0
    remote_bytes: int = 0
    requests: int = 0
    bytes_to_write: int = 0
    work_bytes: int = 0
    scratch_bytes: int = 0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    on_workers: dict[str, OnWorkers] = field(default_factory=dict)


def estimate(
    plan: SeasonPlan, workers: Collection[int] = (), line: ArchiveLine | None = None, prices: Prices | None = None
) -> Estimate:
    """The estimate of a plan.

    workers: numbers of workers to estimate hours for. line, prices: by default those of the environment.
    """
    line, prices = line or known_line(), prices or known_prices()
    raw = sum(int(np.prod(spec.sample_shape)) * spec.dtype.itemsize for spec in plan.layout.arrays().values()) * len(
        plan.samples
    )
    size = int(raw * COMPRESSION[plan.recipe.store.codec])
    planned = list(PlannedBlocks(plan))
    to_read = ToRead()
    for source, of_source in used_sources(plan.recipe):
        to_read += source.to_read(of_source, plan.pinned[source.name], planned)
    splits = plan.samples["split"].value_counts()
    counts = {
        "samples": len(plan.samples),
        **{f"samples_{split}": int(splits.get(split, 0)) for split in ("train", "val", "test")},
        "cells": int(plan.samples["cell"].nunique()),
        "blocks": len(plan.blocks),
    }
    for source in sources_of(plan.recipe):
        counts |= source.counts(plan.pinned[source.name])
    units, asked = units_of_plan(plan, planned)
    steps = steps_of(plan, planned, raw, units.values())
    alone = SECONDS_OF_BUILD + SECONDS_A_SCENE * sum(one.taken for one in plan.scenes)
    remote = sum(step.remote_bytes for step in steps)
    kept = sum(task.written for step in steps for task in step.tasks)
    scratch = scratch_bytes(plan, planned)
    return Estimate(
        counts=counts,
        raw_bytes=raw,
        bytes=size,
        to_read=to_read.waiting(line),
        seconds=seconds_on(steps, 1, line, alone),
        left_out=dict(reasons_left_out(plan.scenes).most_common()),
        months_without_scenes=empty_months(plan),
        split_problems=plan.split_problems,
        sources=source_facts(plan),
        catalogs=scenes_of_catalogs(plan.scenes),
        bytes_to_read=sum(step.bytes for step in steps),
        remote_bytes=remote,
        requests=sum(step.requests for step in steps),
        bytes_to_write=size + kept + scratch,
        work_bytes=min(kept, max(Folders.read().work_bytes, asked)),
        scratch_bytes=min(scratch, Folders.read().scratch_bytes),
        cpu_seconds={step.name: round(step.cpu, 4) for step in steps},
        on_workers={
            str(number): on_workers(seconds_on(steps, number, line, alone), number, remote, prices)
            for number in sorted(set(workers))
        },
    )


def seconds_on(steps: Sequence[WorkStep], workers: int, line: ArchiveLine, alone: float) -> float:
    """How long a build takes: its steps one after the other, and work that cannot be shared."""
    return alone + sum(step.seconds(workers, line) for step in steps)


def on_workers(seconds: float, workers: int, remote_bytes: int, prices: Prices) -> OnWorkers:
    """Hours and cost of so many workers. Nothing is charged where no price is given."""
    hours = seconds / 3600
    costs = [workers * hours * prices.hour] if prices.hour is not None else []
    costs += [remote_bytes / 1e9 * prices.gigabyte] if prices.gigabyte is not None else []
    return OnWorkers(round(hours, 4), round(sum(costs), 4) if costs else None)


def units_of_plan(plan: SeasonPlan, planned: Sequence[PlannedBlock]) -> tuple[dict[tuple[str, str], Unit], int]:
    """The units of work of a build by step and name, those that others need too.

    Besides the bytes of the results that blocks use, which a work folder keeps beyond its bound.
    """
    units: dict[tuple[str, str], Unit] = {}
    asked: dict[tuple[str, str], Unit] = {}
    for source, _ in used_sources(plan.recipe):
        for of_block in units_of_blocks(plan, source, planned):
            for unit in of_block:
                note_unit(unit, units)
                asked[unit.step, unit.name] = unit
    return units, sum(unit.work().written for unit in asked.values() if unit.work is not None)


def steps_of(
    plan: SeasonPlan, planned: Sequence[PlannedBlock], raw_bytes: int, units: Collection[Unit]
) -> list[WorkStep]:
    """The steps of a build in the order in which they run: units of work, readings, blocks, frames."""
    used = used_sources(plan.recipe)
    by_depth: dict[tuple[int, str], list[Work]] = defaultdict(list)
    for unit in units:
        if unit.work is not None:
            by_depth[depth_of(unit), unit.step].append(unit.work())
    steps = [WorkStep.of(name, tasks) for (_, name), tasks in sorted(by_depth.items(), key=lambda item: item[0])]
    steps += [
        WorkStep.of(f"read {source.name}", source.reading_work(settings, plan.pinned[source.name], planned))
        for source, settings in used
    ]
    seconds = raw_bytes / 1e6 * SECONDS_A_MEGABYTE / max(1, len(planned))
    steps.append(WorkStep.of("blocks", [Work(cpu=seconds) for _ in planned]))
    if any(source.matched_bands(settings) is not None for source, settings in used):
        cells = Counter(home_tile(cell) for cell in {cell for block in planned for cell in block.cells})
        steps.append(WorkStep.of("frames", [Work(cpu=SECONDS_A_FRAME * count) for _, count in sorted(cells.items())]))
    return [step for step in steps if step.tasks]


def note_unit(unit: Unit, known: dict[tuple[str, str], Unit]) -> None:
    """Note a unit and all it needs, once, by what they are called: to hash them takes longer."""
    if (unit.step, unit.name) not in known:
        known[unit.step, unit.name] = unit
        for need in unit.needs:
            note_unit(need, known)


def depth_of(unit: Unit) -> int:
    """How many units have to run before it, one after the other."""
    return 1 + max((depth_of(need) for need in unit.needs), default=-1)


def scratch_bytes(plan: SeasonPlan, planned: Sequence[PlannedBlock]) -> int:
    """Bytes of the parts of cells that pass through the scratch folder."""
    return sum(
        reading.bytes
        for source, settings in used_sources(plan.recipe)
        for reading in source.readings(settings, plan.pinned[source.name], planned)
    )


def scenes_of_catalogs(scenes: Sequence[SceneDecision]) -> dict[str, int]:
    """Scenes used by catalog, by `catalog, collection` where it gave several; nothing where all are of one."""
    collections: dict[str, set[str]] = defaultdict(set)
    for one in scenes:
        collections[one.catalog].add(one.collection)
    used: dict[str, int] = {}
    for one in scenes:
        name = f"{one.catalog}, {one.collection}" if len(collections[one.catalog]) > 1 else one.catalog
        used[name] = used.get(name, 0) + one.taken
    return used if len(used) > 1 else {}


def empty_months(plan: SeasonPlan) -> list[int]:
    """The months (1..12) for which a source has nothing that has something for others."""
    months: set[int] = set()
    for source, _ in used_sources(plan.recipe):
        months |= set(source.months_without(plan.pinned[source.name], plan.season))
    return sorted(months)
