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
    return f"Time of the recorded build, its simulated time and their ratio: {told}."


def limits(measured: dict[str, float]) -> str:
    """What ends where, and what must change there."""
    seconds = figures.work(FRANCE, measured) + figures.waiting(FRANCE, measured)
    rate = figures.archive_bytes(FRANCE, measured) / seconds
    asked = figures.tiles(FRANCE) * measured["reading.requests_per_tile"] / seconds
    parcels_a_block = FRANCE.parcels / FRANCE.blocks
    fitting, in_a_put = MACHINE / figures.BYTES_A_PARCEL, figures.LARGEST_PUT / figures.INDEX_PARCEL
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
            "rate limits of the archives",
            f"unknown; 64 workers make {64 * asked:.0f} requests a second, and open "
            f"{64 * figures.enmap_files(FRANCE) / seconds:.1f} files at DLR",
            "`sentinel2.connections`; a limit for DLR",
        ),
        (
            "one builder, one machine",
            "the cores of that machine (more than two were not measured)",
            "`--dask`: a cluster (up to 256 workers simulated, two measured)",
        ),
    ]
    return table(["limited by", "limit", "required change"], rows, numbers=False)


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

Sizes, requests and times of the published dataset, France and Europe. Written by `python docs/scale.py` from
docs/benchmarks.md and the figures in docs/scale_figures.py, which state their sources; do not edit. **Nothing of this
size was built, and no remote archive was read.** Expected errors: counts a fifth, bytes a third, hours a factor of
four.

A cell is 1920 m, a block has up to 16 samples. All ground is counted, farmed or not. With EnMAP, every cell has one
clear look. This is an **upper bound**, because EnMAP images selected strips, at most {figures.ENMAP_KM_A_DAY:,} km of
{figures.ENMAP_SWATH_KM} km a day worldwide. France takes {figures.FRANCE_KM2 / a_day:.1f} days of that without clouds,
Europe {figures.EUROPE_KM2 / a_day:.0f}. Each further look at a cell adds one sample, with its own
copy of Sentinel-2 and labels. Five years are five seasons added one by one, each with a release. Europe is the EU, the
United Kingdom, Norway and Switzerland: {figures.EUROPE_KM2 / 1e6:.2f} million km² in eight UTM zones.

## Size of a store

{holdings(measured)}

Raw, a sample has {raw["s2"]:.1f} MB of Sentinel-2, {raw["enmap"]:.2f} of EnMAP, {raw["labels"]:.2f} of labels. Years
with more empty months are smaller: 5.1 MB a sample in a simulated year with two dates a month, against
{measured["store.lz4_mb"]:.1f} here.

## Costs in S3

{requests(measured)}

List prices of us-east-1, 2025: $0.005 for 1000 PUT or LIST, $0.0004 for 1000 GET or HEAD, $0.023 a GB and month. Not
included: traffic out of the region, machines, the lease and the status (4 PUT and a HEAD a minute). The Sentinel-2
archives charge nothing.

## Data read from archives

{sources(measured)}

A cell is read from its home granule, and each internal tile is read once for all cells and samples. Of the tiles of
all granules {percent(figures.HOME_10M)} at 10 m and {percent(figures.HOME_20M)} at 20 m are in the home granule of
some cell. Tiles without clear pixels are not
read either; this saving is not counted. (If cells fill only single EnMAP scenes, only the tiles around these are read.)

## Time

{times(measured)}

A worker is one core. Computing is calculated from measured rates: with bench_build alone a year of France takes
{by_benchmark:.0f} core hours, for few scenes from small files; for the tiles of {figures.scenes(FRANCE):.0f} scenes
over a block, with the time of bench_reading for one tile, it takes {computing:.0f}. Waiting is based on assumptions:
{figures.LATENCY:g} s for an answer (the default of `h2crop plan`), {figures.CONNECTIONS} connections a worker, and
{figures.BANDWIDTH / 1e6:.0f} MB/s. A worker computes while it waits; here
both are added. Planning and sealing use one worker (matching images with parcels uses all); sealing in a bucket also
waits for two objects a block. Cloud masks are not included: for a year of France
{figures.mask_hours(FRANCE, False):.0f} core hours by the classification, {figures.mask_hours(FRANCE, True):.0f} with
`ukis`, if every look has clear pixels (seconds per date and tile of bench_clouds, without reading). Neither are shifts
of dates,
{figures.shift_hours(FRANCE):.0f} core hours (bench_alignment), and matching images with parcels,
{figures.frame_hours(FRANCE):.0f} (bench_frame). Effect of other
assumptions on the
{short(figures.building_hours(FRANCE, SOME, measured))} h of {SOME} workers for a year of France:

{sensitivity(measured)}

## On a cluster

`docs/scale_engine.py` simulates the engine task by task. The schedule of the package itself orders readings before the
blocks that need them; each worker has at most two tasks; units of work of all tiles come first; one client prepares
every task ({figures.client_ms(measured, scale_cases.read_costs()["client_ms"]):.1f} ms each with Dask); connections to
the archive and
the bandwidth of shared storage are divided among the tasks that use them; planning and sealing run on one machine. The
costs of tasks vary as in a recorded build (`tests/benchmarks/build_costs.py`:
{scale_cases.read_costs()["figures"]["blocks"]} blocks, {scale_cases.read_costs()["figures"]["readings"]} readings,
{scale_cases.read_costs()["figures"]["units"]} units of work). They include masks, shifts of dates and matches of
EnMAP, so one worker takes longer here than above. {told_check()} Efficiency is the time of one worker divided by the
sum of
the times of all workers.

![efficiency against workers](images/scale.png)

A year of France:

{efficiencies(rows, FRANCE.name)}

{parts_of(rows, FRANCE.name)}

A year of Europe:

{efficiencies(rows, EUROPE.name)}

{parts_of(rows, EUROPE.name)}

Number of workers at which efficiency falls to 0.8 and 0.5:

{bends(rows)}

- **Connections are the first limit.** By default a recipe uses 24 connections to one archive for all workers together.
Masks and composites of a year of France need {figures.asked_of_archive(FRANCE, measured) / 1e6:.0f} million requests of
{figures.LATENCY:g} s each: {figures.asked_of_archive(FRANCE, measured) * figures.LATENCY / 24 / 3600:.0f} h with
24 connections, however many workers there are. For more than a few workers set `sentinel2.connections` as high as the
archive allows.
- **The scratch folder is the second limit.** Parts of cells wait along the whole height of the ground that is built.
Beyond `--scratch-gb` the readings of only one block at a time are begun. The default of 20 GB is too small for the
whole of France on more than some workers; 50 GB are enough for 64. {figures.SCRATCH / 1e9:.0f} GB are assumed above.
- **The third limit is the work of a single machine**: planning, and sealing with the match of images and parcels on
{figures.CLIENT_CORES} cores. Then follows shared storage, on which every part of a cell is written and read in addition
to the store.

Time for a year of France when one setting changes:

{what_if(rows)}

## Limits

{limits(measured)}

No limits: the size of the root does not depend on the number of samples, a season of 100,000 samples opens in half a
second, and parcel numbers (32 bits) are far from exhausted.

## Assumptions

- Blocks are {percent(figures.FILL_WHOLE)} full if all ground is used, {percent(figures.FILL_SCENE)} if an EnMAP
scene has {figures.CELLS_A_SCENE} clear cells (counted on the real lattice; that 70 % of a scene's cells are clear is
assumed).
- Two Sentinel-2 satellites; {percent(1 - figures.KEPT_SCENES)} of granules are cloudier than 90 %; archive files have
tiles of {figures.ARCHIVE_TILE} pixels and {figures.ARCHIVE_BYTES_A_PIXEL} bytes a pixel; two EnMAP scenes are
examined for each one used.
- Europe's parcels are as dense as those of France ({figures.FRANCE_PARCELS / figures.FRANCE_KM2:.0f} a km²), with
outlines of 16 points.
- No cell is left out. The shipped recipe leaves out cells with less than a tenth of declared crops, and about 1 % lies
across borders of UTM zones.
- In the tables of time N workers are N times as fast as one; on a cluster as simulated.
- On a cluster storage gives {figures.STORAGE / 1e9:g} GB/s to all and {figures.STORAGE_EACH / 1e6:.0f} MB/s to one
worker, archives {figures.BANDWIDTH / 1e6:.0f} MB/s to each, by at most {figures.CONNECTIONS} connections a worker.
The latency of storage, and requests for matching EnMAP, are not counted.

## Unknown

- The rates of the archives for many simultaneous readers, DLR's in particular, and when they begin to refuse.
- The share of France or Europe of which EnMAP has a clear image in a season.
- The compression of a whole real year, and the behaviour of a real S3 (tested with moto).
- The number and outlines of parcels in Europe, and the countries that publish them.
- Planning beyond some thousand cells, sealing beyond 400,000 samples, memory of a worker with full blocks.
"""
    )


if __name__ == "__main__":
    main()
