"""Simulating a region: how fast its products are drawn and written, and how memory grows with the region.

    python tests/benchmarks/bench_simulate.py [--workers 2] [--folder DIR]

Cells of 1920 m, one season, one EnMAP pass, the truth beside the products. The unit of speed is a million pixels times
bands times dates: what the products hold, each band counted at its own resolution, a granule of each tile that shows
the region counted for itself. Land, parcels and truth take their time but add nothing. Each region is simulated in a
process of its own; memory is the resident memory of that process and its workers together, looked at every 0.1 s, so
that pages they share count more than once.

The last line is one JSON object:

- mpx_bands_per_s: of a region of 16 cells, two Sentinel-2 dates a month, in its whole time (target at least 5 on two
  cores); small_mpx_bands_per_s: of one of 4 cells
- natural_mpx_bands_per_s: of a natural region of 16 cells, as the command makes them; the others are plain
- scenes_mpx_bands_per_s: the same plain 16 cells, in the time after land and parcels are made
- land_seconds: of land and parcels of the 16 cells, in one process
- peak_mb: memory of the 16 cells; wide_peak_mb: of 64 cells with one date in each of two months
- peak_mb_ratio: 64 cells / 16 cells with these few dates (bounded memory: near 1)
- written_mb: files of the 16 cells; land_seconds_wide: land and parcels of the 64
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import Simulation

SEASON = 2022
#: Seconds between two looks at memory.
INTERVAL = 0.1
#: What each region differs in from the defaults.
FEW_DATES = {"sentinel2": {"dates_per_month": 1, "months": [5, 7]}, "enmap": {"scenes": 1}}
MANY_DATES = {"sentinel2": {"dates_per_month": 2}, "enmap": {"scenes": 1}}
REGIONS: dict[str, dict[str, Any]] = {
    "small": {"cells": 4, **MANY_DATES},
    "large": {"cells": 16, **MANY_DATES},
    "natural": {"cells": 16, "natural": {}, **MANY_DATES},
    "compact": {"cells": 16, **FEW_DATES},
    "wide": {"cells": 64, **FEW_DATES},
}


def parents() -> dict[int, int]:
    """The parent of each process there is."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces.
            found[int(path.parent.name)] = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parent, members = parents(), [pid]
    for member in members:
        members += [child for child, its in parent.items() if its == member]
    return members


def resident(pid: int) -> int:
    """Bytes of resident memory of a process; 0 if it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def run_watched(command: list[str]) -> tuple[dict[str, Any], float]:
    """The JSON object on the last line a command prints, and the peak memory of its processes together in MB.

    Raises CalledProcessError when it fails.
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(resident, family(process.pid))))
            time.sleep(INTERVAL)
        output = process.communicate()[0]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result, peak / 1e6


def simulate(folder: Path, changes: dict[str, Any], workers: int) -> dict[str, Any]:
    """The report of simulating a region, with the seconds its land took."""
    began = time.time()
    report = simulate_region(
        Simulation.model_validate({"seed": 1, "seasons": [SEASON], **changes}), folder, workers=workers
    )
    # The last file of land and parcels; scenes come after it.
    land = (folder / "truth" / f"labels-{SEASON}.tif").stat().st_mtime - began
    return {**asdict(report), "land": land}


def measure_region(folder: Path, name: str, workers: int) -> dict[str, Any]:
    """Simulate one region in a process of its own; its report with `peak_mb`. Its files are removed."""
    region = folder / name
    command = [sys.executable, __file__, "--region", name, "--folder", str(region), "--workers", str(workers)]
    report, peak = run_watched(command)
    shutil.rmtree(region)
    seconds, megapixels = report["seconds"], report["megapixels"]
    print(
        f"{name:9s}{report['cells']:3d} cells: {megapixels:6.1f} million pixels x bands in {seconds:5.1f} s, of which "
        f"{report['land']:4.1f} s land; {megapixels / seconds:5.2f} a second; {report['bytes'] / 1e6:4.0f} MB; "
        f"peak {peak:.0f} MB"
    )
    return {**report, "peak_mb": peak}


def measure(folder: Path, workers: int) -> dict[str, float]:
    """Every figure of this benchmark."""
    reports = {name: measure_region(folder, name, workers) for name in REGIONS}
    rate = {name: one["megapixels"] / one["seconds"] for name, one in reports.items()}
    large, wide = reports["large"], reports["wide"]
    return {
        "mpx_bands_per_s": rate["large"],
        "small_mpx_bands_per_s": rate["small"],
        "natural_mpx_bands_per_s": rate["natural"],
        "scenes_mpx_bands_per_s": large["megapixels"] / (large["seconds"] - large["land"]),
        "land_seconds": large["land"],
        "land_seconds_wide": wide["land"],
        "peak_mb": large["peak_mb"],
        "wide_peak_mb": wide["peak_mb"],
        "peak_mb_ratio": wide["peak_mb"] / reports["compact"]["peak_mb"],
        "written_mb": large["bytes"] / 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--region", choices=REGIONS, help="only simulate one of the regions and print its report")
    arguments = parser.parse_args()
    if arguments.region:
        print(json.dumps(simulate(arguments.folder, REGIONS[arguments.region], arguments.workers)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-simulate-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.workers)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
