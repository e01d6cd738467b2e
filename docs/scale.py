"""Writes docs/scale.md: what the published dataset, France and Europe amount to.

    python docs/scale.py

The figures and formulas are in scale_figures.py, beside this file. What clusters make of it is simulated first, by
scale_runs.py (some minutes); `python docs/scale.py --kept` takes what was simulated last.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from math import floor, inf, log10
from pathlib import Path
from typing import Any

import scale_cases
import scale_figures as figures
import scale_runs
from scale_figures import CASES, EUROPE, FRANCE, WORKERS, Case

PAGE = Path(__file__).parent / "scale.md"
WIDTH = 120
LATENCIES, BANDWIDTHS = (0.05, figures.LATENCY, 1.0), (10e6, figures.BANDWIDTH, 200e6)
#: Workers of the table of sensitivity, bytes of the machine that is asked for.
SOME, MACHINE = 16, 128e9
FIVE_YEARS = next(case for case in CASES if case.releases > 1)
Row = tuple[str, Callable[[Case], float | str]]


def main() -> None:
    """Simulate, and write the page."""
    if sys.argv[1:] != ["--kept"]:
        scale_runs.main()
    PAGE.write_text(page(figures.read_benchmarks()), encoding="utf-8")
    print(f"wrote {PAGE}")


def short(value: float) -> str:
    """Three digits that mean something: 0.0123, 12.3, 12,300."""
    if value == 0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    text = f"{round(value, digits):,.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.0f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table; numbers to the right."""
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def case_table(rows: Sequence[Row]) -> str:
    """A table of all cases, one row a figure."""

    def told(value: float | str) -> str:
        return value if isinstance(value, str) else short(value)

    head = ["", *(case.name for case in CASES)]
    return table(head, [[name, *(told(tell(case)) for case in CASES)] for name, tell in rows])


def wrapped(text: str) -> str:
    """Paragraphs and points broken at WIDTH; tables and headings as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith(("|", "#")):
            blocks.append(block)
            continue
        points = block.split("\n- ")
        parts = [points[0], *(f"- {point}" for point in points[1:])]
        blocks.append("\n".join(filled(" ".join(part.split())) for part in parts))
    return "\n\n".join(blocks) + "\n"


def filled(text: str) -> str:
    """A paragraph or a point in lines of at most WIDTH."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def all_blocks(case: Case) -> int:
    """Blocks of all seasons."""
    return case.blocks * case.seasons


def parcels_gb(case: Case) -> float:
    """Gigabytes of the newest release's tables of parcels."""
    return figures.index_bytes(case)["parcels"] / 1e9


def holdings(measured: dict[str, float]) -> str:
    """What a store holds."""

    def stored(group: str) -> Callable[[Case], float]:
        return lambda case: figures.stored_bytes(case, measured).get(group, 0) / 1e9

    def other_objects(case: Case) -> float:
        return sum(figures.objects(case)[kind] for kind in ("coordinates and documents", "index", "plans"))

    return case_table(
        [
            ("samples", lambda case: f"{case.samples * case.seasons:,.0f}"),
            ("blocks", all_blocks),
            ("raw, GB", lambda case: sum(figures.raw_bytes(case).values()) / 1e9),
            ("stored with lz4, GB", lambda case: sum(figures.stored_bytes(case, measured).values()) / 1e9),
            ("… Sentinel-2", stored("s2")),
            ("… EnMAP", stored("enmap")),
            ("… labels", stored("labels")),
            ("stored with zstd, GB", lambda case: sum(figures.stored_bytes(case, measured, "zstd").values()) / 1e9),
            ("shards (objects)", lambda case: figures.objects(case)["shards"]),
            ("markers and sums", lambda case: figures.objects(case)["markers and sums"]),
            ("all other objects", other_objects),
            ("newest index: parcels, GB", parcels_gb),
            ("… all else, GB", lambda case: sum(figures.index_bytes(case).values()) / 1e9 - parcels_gb(case)),
            ("root, KB", lambda case: figures.ROOT_KB_A_SEASON * case.seasons),
        ]
    )


def requests(measured: dict[str, float]) -> str:
    """What a store costs in S3."""

    def to_write(case: Case) -> str:
        puts, gets = figures.writing_requests(case)
        return f"{puts * figures.PRICE_PUT + gets * figures.PRICE_GET:.2f}"

    def to_keep(case: Case) -> str:
        gigabytes = sum(figures.stored_bytes(case, measured).values()) / 1e9
        return f"{gigabytes * figures.PRICE_GB_MONTH:,.0f}"

    return case_table(
        [
            ("PUT and LIST to build and seal", lambda case: figures.writing_requests(case)[0]),
            ("GET and HEAD to build and seal", lambda case: figures.writing_requests(case)[1]),
            ("… $", to_write),
            ("GET, an epoch in random order", figures.epoch_requests),
            ("… $", lambda case: f"{figures.epoch_requests(case) * figures.PRICE_GET:.2f}"),
            ("GET, to copy the shards once", lambda case: figures.objects(case)["shards"]),
            ("storage, $ a month", to_keep),
        ]
    )


def sources(measured: dict[str, float]) -> str:
    """What is asked of catalogs and archives."""
    return case_table(
        [
            ("Sentinel-2 items listed", figures.items),
            ("pages of search results", lambda case: figures.items(case) / figures.PAGE_OF_SEARCH),
            ("scenes over a block", figures.scenes),
            ("internal tiles of home granules, million", lambda case: figures.tiles(case) / 1e6),
            ("… requests, million", lambda case: figures.tiles(case) * measured["reading.requests_per_tile"] / 1e6),
            ("read from archives, TB", lambda case: figures.archive_bytes(case, measured) / 1e12),
            ("the same granules whole, TB", lambda case: figures.granule_bytes(case) / 1e12),
            ("EnMAP scenes used", figures.enmap_scenes),
        ]
    )


def times(measured: dict[str, float]) -> str:
    """How long a build takes."""

    def blocks_on(workers: int) -> Row:
        return f"blocks on {workers}, h", lambda case: figures.building_hours(case, workers, measured)

    return case_table(
        [
            ("computing, core hours", lambda case: figures.work(case, measured) / 3600),
            ("waiting, worker hours", lambda case: figures.waiting(case, measured) / 3600),
            ("blocks on 1 worker, h", blocks_on(WORKERS[0])[1]),
            *map(blocks_on, WORKERS[1:]),
            ("planning before, h", figures.planning_hours),
            ("sealing the newest release, min", lambda case: figures.sealing_hours(case) * 60),
            ("tables in the builder's memory, GB", lambda case: figures.memory(case) / 1e9),
            ("an epoch from memory, core hours", lambda case: figures.epoch_hours(case, measured)),
        ]
    )


def sensitivity(measured: dict[str, float]) -> str:
    """Hours of a year of France, by what the network gives."""

    def hours(latency: float, bandwidth: float) -> str:
        return short(figures.building_hours(FRANCE, SOME, measured, latency=latency, bandwidth=bandwidth))

    head = ["for an answer", *(f"{bandwidth / 1e6:.0f} MB/s a worker" for bandwidth in BANDWIDTHS)]
    return table(head, [[f"{latency:g} s", *(hours(latency, each) for each in BANDWIDTHS)] for latency in LATENCIES])


#: What limits a build, in words.
LIMITS = {
    "archive": "connections to the archive",
    "storage": "shared storage",
    "client": "the client",
    "order": "room in the scratch folder",
    "plan and seal": "planning and sealing",
    "workers": "workers",
}
Rows = Sequence[Mapping[str, Any]]


def hours_of(rows: Rows, case: str, variant: str) -> dict[int, Mapping[str, Any]]:
    """The simulated builds of a case, by workers."""
    return {row["workers"]: row for row in rows if (row["case"], row["variant"]) == (case, variant)}


def efficiencies(rows: Rows, case: str) -> str:
    """Hours, efficiency and limit by workers, for both numbers of connections."""
    lines = []
    for workers in WORKERS:
        line = [str(workers)]
        for variant in ("24", "256"):
            row = hours_of(rows, case, variant)[workers]
            share = scale_runs.efficiency(rows, case, variant)[workers]
            line += [short(row["hours"]), f"{share:.2f}", LIMITS[row["limit"]]]
        lines.append(line)
    head = ["workers", "24 connections, h", "efficiency", "limit", "256 connections, h", "efficiency", "limit"]
    return table(head, lines)


def parts_of(rows: Rows, case: str) -> str:
    """Hours of each part of a build, with most connections."""
    found = hours_of(rows, case, "256")
    lines = [
        [str(workers), *(short(found[workers][part]) for part in ("plan", "units", "blocks", "seal"))]
        for workers in WORKERS
    ]
    return table(["workers", "planning, h", "units of work, h", "readings and blocks, h", "sealing, h"], lines)


def bends(rows: Rows) -> str:
    """Up to how many workers efficiency is at least 0.8 and 0.5."""
    lines = []
    for case in scale_runs.CASES:
        for variant, name in (("24", "24"), ("256", "256"), ("none", "as many as are asked for")):
            shares = scale_runs.efficiency(rows, case, variant)
            found = [scale_runs.workers_down_to(shares, least) for least in (0.8, 0.5)]
            lines.append([case, name, *("over 256" if at == inf else f"{at:.0f}" for at in found)])
    return table(["", "connections", "workers at 0.8", "at 0.5"], lines)


def what_if(rows: Rows) -> str:
    """Efficiency of a year of France when one thing is otherwise."""
    names = {
        "12": "12 connections (half of 24)",
        "24": "24 connections",
        "48": "48 connections (double)",
        "128": "128 connections (half of 256)",
        "256": "256 connections",
        "512": "512 connections (double; recipes allow 256)",
        "none": "no limit of archives (200 GB of scratch)",
        "storage half": "no limit, storage of half the bandwidth",
        "storage double": "no limit, storage of double the bandwidth",
        "scratch 20 GB": "no limit, 20 GB of scratch (the default)",
        "scratch 50 GB": "no limit, 50 GB of scratch",
        "scratch 100 GB": "no limit, 100 GB of scratch",
    }
    lines = []
    for variant, name in names.items():
        found = hours_of(rows, FRANCE.name, variant)
        shares = scale_runs.efficiency(rows, FRANCE.name, variant)
        lines.append([name, *(f"{short(found[at]['hours'])} ({shares[at]:.2f})" for at in scale_runs.SOME[1:])])
    return table(["hours (efficiency)", *(f"{at} workers" for at in scale_runs.SOME[1:])], lines)


def told_check() -> str:
    """How the simulation compares with real builds."""
    costs = scale_cases.read_costs()["figures"]
    if "ratio" not in costs:
        return ""
    names = {"one": "one worker", "threads": "two threads", "processes": "two processes"}
    told = ", ".join(
        f"{name} {costs['real_s'][key]:.0f} s and {costs['simulated_s'][key]:.0f} ({costs['ratio'][key]:.2f})"
        for key, name in names.items()
    )
    return f"The recorded build took and was simulated to take, with the ratio: {told}."


def limits(measured: dict[str, float]) -> str:
    """What ends where, and what must change there."""
    seconds = figures.work(FRANCE, measured) + figures.waiting(FRANCE, measured)
    rate = figures.archive_bytes(FRANCE, measured) / seconds
    asked = figures.tiles(FRANCE) * measured["reading.requests_per_tile"] / seconds
    parcels_a_block = FRANCE.parcels / FRANCE.blocks
    fitting, in_a_put = MACHINE / figures.BYTES_A_PARCEL, figures.LARGEST_PUT / figures.INDEX_PARCEL
    sums = all_blocks(FIVE_YEARS) * figures.TRAINING_SHARE * figures.SUMS_BYTES
    rows = [
        (
            "memory for parcels",
            f"{MACHINE / 1e9:.0f} GB: {fitting / 1e6:.0f} million parcels in one season, about "
            f"{short(fitting / parcels_a_block)} blocks; each season before adds a quarter",
            "plan and seal by region, read finished seasons' parcels one by one",
        ),
        (
            "`parcels-<season>` in one PUT",
            f"5 GiB: {in_a_put / 1e6:.0f} million parcels, about {short(in_a_put / parcels_a_block)} blocks; France "
            f"has {FRANCE.parcels / 1e6:.1f} million, Europe about {EUROPE.parcels / 1e6:.0f}",
            "a table for each country or zone (a folder has no such limit)",
        ),
        (
            "network of one machine",
            f"10 Gbit/s: {1.25e9 / rate:.0f} workers at {rate / 1e6:.0f} MB/s each",
            "more machines",
        ),
        (
            "patience of the archives",
            f"unknown; 64 workers ask {64 * asked:.0f} times a second, and open "
            f"{64 * figures.enmap_files(FRANCE) / seconds:.1f} files at DLR",
            "`sentinel2.connections`; a limit for DLR",
        ),
        (
            "one builder, one machine",
            "the cores of that machine (more than two never measured)",
            "`--dask`: a cluster (up to 256 workers simulated, two measured)",
        ),
        (
            "sealing reads all sums again",
            f"{figures.SUMS_BYTES / 1e6:.0f} MB a training block: {sums / 1e9:.0f} GB for five years of France",
            "keep the sums of a finished season added up",
        ),
        (
            "each release has its own index",
            f"{parcels_gb(FRANCE) * FIVE_YEARS.sealed:.0f} GB after five yearly releases of France, until pruned",
            "share the tables of seasons that did not change",
        ),
    ]
    return table(["what", "ends at", "what must change then"], rows, numbers=False)


def page(measured: dict[str, float]) -> str:
    """The page, from the figures of docs/benchmarks.md."""
    raw = {group: size / FRANCE.samples / 1e6 for group, size in figures.raw_bytes(FRANCE).items()}
    by_benchmark = FRANCE.samples / measured["build.samples_per_minute_threads"] * measured["cores"] / 60
    computing = figures.work(FRANCE, measured) / 3600
    a_day = figures.ENMAP_SWATH_KM * figures.ENMAP_KM_A_DAY
    rows = scale_runs.read_runs()
    return wrapped(
        f"""
# Scale

What the published dataset, France and Europe amount to. Written by `python docs/scale.py` from docs/benchmarks.md and
the figures in docs/scale_figures.py, which name their sources; do not edit. **Nothing of this size was built, and no
remote archive was read.** Counts should hold within a fifth, bytes within a third, hours within a factor of four.

A cell is 1920 m, a block has up to 16 samples. All ground is counted, farmed or not. With EnMAP, every cell has one
clear look: an **upper bound**, since EnMAP images chosen strips, at most {figures.ENMAP_KM_A_DAY:,} km of
{figures.ENMAP_SWATH_KM} km a day the world over. France is {figures.FRANCE_KM2 / a_day:.1f} days of that under a sky
without clouds, Europe {figures.EUROPE_KM2 / a_day:.0f}. Each further look at a cell is one sample more, with its own
copy of Sentinel-2 and labels. Five years are five seasons added one by one, with a release each. Europe is the EU, the
United Kingdom, Norway and Switzerland: {figures.EUROPE_KM2 / 1e6:.2f} million km² in eight UTM zones.

## What it holds

{holdings(measured)}

A sample is {raw["s2"]:.1f} MB raw of Sentinel-2, {raw["enmap"]:.2f} of EnMAP, {raw["labels"]:.2f} of labels. Years with
more empty months are smaller: 5.1 MB a sample in a simulated year of two dates a month, against
{measured["store.lz4_mb"]:.1f} here.

## What it costs in S3

{requests(measured)}

List prices of us-east-1, 2025: $0.005 for 1000 PUT or LIST, $0.0004 for 1000 GET or HEAD, $0.023 a GB and month. Not
counted: bytes that leave the region, machines, the lease and the status (4 PUT and a HEAD a minute). The Sentinel-2
archives charge nothing.

## What it reads

{sources(measured)}

A cell is read from its home granule, and each internal tile once, for all cells and samples. Of the tiles of all
granules {percent(figures.HOME_10M)} at 10 m and {percent(figures.HOME_20M)} at 20 m lie in the home of some cell. Tiles
without anything clear are not read either: by how much less is not counted. (Where cells fill single EnMAP scenes, only
the tiles around these are read.)

## How long it takes

{times(measured)}

A worker is one core. Computing follows from measured rates: bench_build alone gives a year of France
{by_benchmark:.0f} core hours, with few scenes from small files; with the tiles of {figures.scenes(FRANCE):.0f} scenes
over a block, at what bench_reading takes for one, it is {computing:.0f}. Waiting is assumed: {figures.LATENCY:g} s for
an answer (as `h2crop plan` does by default), {figures.CONNECTIONS} connections a worker, and
{figures.BANDWIDTH / 1e6:.0f} MB/s. A worker computes while it waits;
here both are added. Planning and sealing have one worker (where images lie against parcels, all); sealing in
a bucket also waits for two objects a block. Masks of clouds come on top: for a year of France
{figures.mask_hours(FRANCE, False):.0f} core hours by the classification, {figures.mask_hours(FRANCE, True):.0f} with
`ukis`, where every look has something clear (seconds a date and tile of bench_clouds, without reading); shifts of dates
{figures.shift_hours(FRANCE):.0f} (bench_alignment), and whether images lie on the parcels
{figures.frame_hours(FRANCE):.0f} (bench_frame). What other assumptions make of the
{short(figures.building_hours(FRANCE, SOME, measured))} h that {SOME} workers take for a year of France:

{sensitivity(measured)}

## On a cluster

`docs/scale_engine.py` simulates the engine task by task: the package's own schedule hands out readings before the
blocks that need them, at most two tasks a worker are begun, units of work of all tiles come first, one client prepares
every task ({figures.client_ms(measured, scale_cases.read_costs()["client_ms"]):.1f} ms each with Dask), connections to
the archive and shared storage are divided among those who use them, and planning and sealing have one machine. What
tasks cost varies as it did in a recorded build (`tests/benchmarks/build_costs.py`:
{scale_cases.read_costs()["figures"]["blocks"]} blocks, {scale_cases.read_costs()["figures"]["readings"]} readings,
{scale_cases.read_costs()["figures"]["units"]} units of work); masks, shifts of dates and matches of EnMAP are among it,
so that one worker takes longer here than above. {told_check()} Efficiency is the hours of one worker over all hours of
so many.

![efficiency against workers](images/scale.png)

A year of France:

{efficiencies(rows, FRANCE.name)}

{parts_of(rows, FRANCE.name)}

A year of Europe:

{efficiencies(rows, EUROPE.name)}

{parts_of(rows, EUROPE.name)}

Where efficiency falls:

{bends(rows)}

- **Connections first.** A recipe asks for 24 connections to one archive, of all workers together. Masks and composites
  of a year of France ask {figures.asked_of_archive(FRANCE, measured) / 1e6:.0f} million times, {figures.LATENCY:g} s
  each: {figures.asked_of_archive(FRANCE, measured) * figures.LATENCY / 24 / 3600:.0f} h through 24 connections, however
  many workers wait. For more than a few workers set `sentinel2.connections` as high as the archive bears.
- **Then the scratch folder.** Parts of cells wait along the whole height of the ground that is built. Beyond
  `--scratch-gb` the readings of one block at a time are begun: the default of 20 GB is too little for France as a whole
  on more than some workers, 50 GB do for 64. {figures.SCRATCH / 1e9:.0f} GB are assumed above.
- **Then what one machine does alone.** Planning, and sealing with the match of images and parcels on
  {figures.CLIENT_CORES} cores, take what they take; then shared storage, which has every part of a cell written and
  read beside the store itself.

What a year of France takes when one thing is otherwise:

{what_if(rows)}

## What ends first

{limits(measured)}

What does not: the root is as large for any number of samples, a season of 100,000 samples opens in half a second,
parcel numbers (32 bits) are far from used up.

## Assumed

- Blocks are {percent(figures.FILL_WHOLE)} full where all ground is taken, {percent(figures.FILL_SCENE)} where an EnMAP
scene has {figures.CELLS_A_SCENE} clear cells (counted on the real lattice; that 70 % of a scene's cells are clear is
assumed).
- Two Sentinel-2 satellites; {percent(1 - figures.KEPT_SCENES)} of granules are cloudier than 90 %; archive files have
tiles of {figures.ARCHIVE_TILE} pixels and {figures.ARCHIVE_BYTES_A_PIXEL} bytes a pixel; two EnMAP scenes are looked at
for one used.
- Europe's parcels are as dense as those of France ({figures.FRANCE_PARCELS / figures.FRANCE_KM2:.0f} a km²), with
outlines of 16 points.
- No cell is dropped. The shipped recipe drops those with less than a tenth of declared crops, and about 1 % lies across
borders of UTM zones.
- In the tables of time N workers are N times as fast as one; on a cluster as simulated.
- On a cluster storage gives {figures.STORAGE / 1e9:g} GB/s to all and {figures.STORAGE_EACH / 1e6:.0f} MB/s to one
worker, archives {figures.BANDWIDTH / 1e6:.0f} MB/s to each, by at most {figures.CONNECTIONS} connections a worker.
The latency of storage, and what matching EnMAP asks of archives, are not counted.

## Not known

- What the archives give to many readers at once, DLR's above all, and when they begin to refuse.
- What share of France or Europe EnMAP sees clearly in a season.
- How a whole real year compresses, and how a real S3 behaves (tested against moto).
- How many parcels Europe has, with what outlines, and which countries publish them.
- Planning beyond some thousand cells, sealing beyond 400,000 samples, memory of a worker with full blocks.
"""
    )


if __name__ == "__main__":
    main()
