"""A synthetic region from its settings: land, scenes, catalogs, a recipe.

Scene by scene, in processes; an interrupted run is continued, and the bytes do not depend on the order.

    DIR/simulation.yaml        the settings, every default written out
    DIR/recipe.yaml            a recipe that builds the region
    DIR/catalog/<name>.json    one STAC ItemCollection for each archive
    DIR/products/<name>/...    the scenes' files
    DIR/parcels/RPG_<year>.gpkg
    DIR/truth/...              what only a simulator knows (docs/simulation.md)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pyogrio.errors import DataSourceError

from h2crop_data.errors import H2cropError, StoreError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.simulate.land.landscape import declared_years, write_landscape
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.scenes import SceneJob, draw_scene, jobs_of
from h2crop_data.simulate.settings import Simulation
from h2crop_data.simulate.workers import started

#: Notes of what is finished, until everything is.
NOTES = ".simulate"
SETTINGS = "simulation.yaml"


@dataclass(frozen=True)
class RegionReport:
    """What was simulated.

    folder: as it was given. recipe: the recipe file to build it with. seasons, cells: what it holds.
    sentinel2, enmap, parcels: how many granules, tiles and declared parcels. bytes: of its files.
    megapixels: pixels of products times their bands, in millions, drawn by this run. seconds: that this took.
    """

    folder: str
    recipe: str
    seasons: list[int]
    cells: int
    sentinel2: int
    enmap: int
    parcels: int
    bytes: int
    megapixels: float
    seconds: float


def simulate_region(
    simulation: Simulation, folder: Path, *, workers: int | None = None, progress: Progress = silent
) -> RegionReport:
    """Write a region into a folder, or continue one that was started with the same settings.

    workers: scenes at a time, one a core by default. Raises UsageError for a folder that holds something else and
    StoreError for one that cannot be written.
    """
    start = time.perf_counter()
    layout = Layout(simulation)
    layout.check()
    try:
        megapixels = write_region(layout, folder, workers or len(os.sched_getaffinity(0)), progress)
    except H2cropError:
        raise
    except (OSError, DataSourceError) as error:
        raise StoreError(
            f"cannot write the region {folder}: {error}; finished work is kept, rerun the same command to continue"
        ) from error
    return report_of(layout, folder, megapixels, time.perf_counter() - start)


def write_region(layout: Layout, folder: Path, workers: int, progress: Progress) -> float:
    """Write what is not yet there of a region; gives the millions of pixels drawn now."""
    claim(layout.simulation, folder)
    notes = folder / NOTES
    if is_written(folder):
        shutil.rmtree(notes, ignore_errors=True)
        return 0.0
    drawn = 0.0
    with held(notes), started(workers) as team:
        once(notes / "landscape.json", lambda: {"parcels": write_landscape(layout, folder, team, progress)})
        jobs = jobs_of(layout)
        calls = [(layout.simulation, folder, job) for job in jobs]
        for done, (call, pixels) in enumerate(team.as_done(job_note, calls), 1):
            drawn += pixels
            progress(done, len(jobs), call[-1].name)
        write_catalogs(folder)
        draft = notes / "recipe.draft"
        draft.write_text(recipe_text(layout), encoding="utf-8")
        draft.replace(folder / "recipe.yaml")
    shutil.rmtree(notes)
    return drawn


@contextmanager
def held(notes: Path) -> Iterator[None]:
    """Lock a region against other simulations until the `with` block ends; the lock ends with the process.

    Raises StoreError when another one has locked it.
    """
    notes.mkdir(exist_ok=True)
    with (notes / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{notes.parent} is locked by another simulation; wait for it or end it") from None
        yield


def claim(simulation: Simulation, folder: Path) -> None:
    """Take an empty folder, or one begun with the same settings. Raises UsageError for any other."""
    text = yaml.safe_dump(simulation.model_dump(mode="json"), sort_keys=False)
    path = folder / SETTINGS
    if path.exists():
        if yaml.safe_load(path.read_text(encoding="utf-8")) != yaml.safe_load(text):
            raise UsageError(f"{folder} contains a region with other settings (see {path}): choose another folder")
        return
    if folder.exists() and (
        not folder.is_dir() or any(entry != path.with_suffix(".draft") for entry in folder.iterdir())
    ):
        raise UsageError(f"{folder} is not empty and contains no simulated region: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def is_written(folder: Path) -> bool:
    """Whether everything was written: the recipe is the last."""
    return (folder / "recipe.yaml").exists()


def once(note: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a piece of work, done now or noted before."""
    if note.exists():
        done: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return done
    result = work()
    draft = note.with_suffix(".draft")
    draft.write_text(json.dumps(result), encoding="utf-8")
    draft.replace(note)
    return result


def job_note(simulation: Simulation, folder: Path, job: SceneJob) -> float:
    """Run a job unless it is noted as done; gives the millions of pixels it drew."""
    note = folder / NOTES / f"{job.name}.json"
    fresh = not note.exists()
    result = once(note, lambda: draw_scene(Layout(simulation), folder, job))
    return float(result["megapixels"]) if fresh else 0.0


def write_catalogs(folder: Path) -> None:
    """One ItemCollection for each archive, and the tables of what is true of scenes, from the notes of the jobs."""
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    scenes: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    for note in sorted((folder / NOTES).glob("*.json")):
        result = json.loads(note.read_text(encoding="utf-8"))
        for catalog, found in result.get("items", {}).items():
            items[catalog] += found
        scenes += result.get("scenes", [])
        shifts += result.get("shifts", [])
    (folder / "catalog").mkdir(exist_ok=True)
    for catalog, found in items.items():
        collection = {"type": "FeatureCollection", "features": sorted(found, key=lambda item: str(item["id"]))}
        (folder / "catalog" / f"{catalog}.json").write_text(json.dumps(collection, indent=1), encoding="utf-8")
    table = pd.DataFrame(scenes).sort_values("scene", ignore_index=True) if scenes else pd.DataFrame({"scene": []})
    table.to_parquet(folder / "truth" / "scenes.parquet", index=False)
    if shifts:
        by_date = pd.DataFrame(shifts).sort_values(["time", "tile"], ignore_index=True)
        by_date.to_parquet(folder / "truth" / "shifts.parquet", index=False)


def recipe_text(layout: Layout) -> str:
    """The recipe that builds the region."""
    simulation = layout.simulation
    recipe: dict[str, Any] = {
        "name": f"simulated-{simulation.seed}",
        "description": "A synthetic region with known truth; not for training models of the real world.",
        "area": layout.area(),
        "seasons": list(simulation.seasons),
        "cell_size": simulation.cell_size,
    }
    if simulation.enmap.scenes:
        recipe["enmap"] = {"catalog": "catalog/enmap.json", "max_cloud_cover": 40, "max_flagged_share": 0.3}
    if simulation.sentinel2.dates_per_month and simulation.sentinel2.months:
        archive = simulation.sentinel2.archives[0]
        collection = archive if archive.startswith("sentinel-2-") else "sentinel-2-l2a"
        recipe["sentinel2"] = {"catalog": f"catalog/{archive}.json", "collection": collection}
    source = {
        "path": "parcels/RPG_{year}.gpkg",
        "country": "fr",
        "code_field": "CODE_CULTU",
        "id_field": "ID_PARCEL",
        "years": declared_years(simulation.seasons),
    }
    recipe["parcels"] = {"season": [source], "prior": "same"}
    # Real splits need squares of 10-20 km; these are small so that a small region meets every split.
    recipe["split"] = {"square_size": simulation.split_square}
    return "# Written by `h2crop simulate` with the region.\n" + yaml.safe_dump(recipe, sort_keys=False)


def report_of(layout: Layout, folder: Path, megapixels: float, seconds: float) -> RegionReport:
    """What lies in a finished region."""
    simulation = layout.simulation
    counts = {
        path.stem: len(json.loads(path.read_text(encoding="utf-8"))["features"])
        for path in sorted((folder / "catalog").glob("*.json"))
    }
    parcels = sum(
        int(pd.read_parquet(path, columns=["declared"])["declared"].sum())
        for path in sorted((folder / "truth").glob("parcels-*.parquet"))
    )
    return RegionReport(
        folder=str(folder),
        recipe=str(folder / "recipe.yaml"),
        seasons=list(simulation.seasons),
        cells=simulation.cells,
        sentinel2=sum(number for name, number in counts.items() if name != "enmap"),
        enmap=counts.get("enmap", 0),
        parcels=parcels,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        megapixels=megapixels,
        seconds=seconds,
    )
