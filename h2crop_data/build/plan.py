"""A plan: everything the build of a season needs, pinned, and how it is kept in a folder.

PLAN/<season>/plan.json  samples.parquet  blocks.parquet  scenes.parquet  sentinel2.parquet  enmap.parquet
              parcels.parquet  prior.parquet  coverage.parquet
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pystac
import shapely

from h2crop_data.build.declarations import Declarations
from h2crop_data.build.scenes import SceneDecision
from h2crop_data.catalog.inventory import read_items, write_items
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.store import canonical_json, sync
from h2crop_data.errors import PlanError
from h2crop_data.grid import LONLAT
from h2crop_data.recipe import Recipe, parse_recipe

PLAN_VERSION = 1
#: The two years of declarations behind the labels of a season.
ROLES = ("parcels", "prior")


@dataclass(frozen=True)
class SeasonPlan:
    """The plan of one season."""

    season: int
    recipe: Recipe
    #: One row a sample, ordered by block and slot: sample, cell, epsg, x0, y0, block, slot, split, square, scene,
    #: scene_time, flagged_share, labelled_share, geometry (longitude, latitude).
    samples: gpd.GeoDataFrame
    #: One row a block: block, split, square, epsg, scene, samples, s2_items, hash_s2, hash_enmap, hash_labels.
    blocks: pd.DataFrame
    scenes: list[SceneDecision]
    sentinel2: list[pystac.Item]
    enmap: list[pystac.Item]
    parcels: Declarations
    prior: Declarations
    taxonomy_version: str
    taxonomy_hash: str
    #: Version of the algorithm of each array group that the input hashes were made for.
    algorithm: dict[str, int]

    @property
    def layout(self) -> StoreLayout:
        """The layout of the store this plan fits."""
        return StoreLayout.of(self.recipe)

    def facts(self) -> dict[str, Any]:
        """What `plan.json` says beside the tables."""
        return {
            "plan_version": PLAN_VERSION,
            "season": self.season,
            "recipe": self.recipe.as_written(),
            "taxonomy": {"version": self.taxonomy_version, "sha256": self.taxonomy_hash},
            "counts": {role: getattr(self, role).counts for role in ROLES},
            "items": {"sentinel2": len(self.sentinel2), "enmap": len(self.enmap)},
            "algorithm": self.algorithm,
            "coverage": {role: "everywhere" if getattr(self, role).coverage is None else "stated" for role in ROLES},
        }


def kept_seasons(plan: Path) -> list[Path]:
    """The season folders below a folder, in order, without what a killed attempt left half written."""
    return sorted(path.parent for path in plan.glob("[0-9]*/plan.json"))


def season_folders(plan: Path) -> list[Path]:
    """The season folders of a plan, in order. Raises PlanError where there are none."""
    folders = kept_seasons(plan)
    if not folders:
        raise PlanError(
            f"{plan} is not a plan: no <season>/plan.json in it; make one with `h2crop plan RECIPE --out {plan}`"
        )
    return folders


def save_season(plan: SeasonPlan, folder: Path) -> None:
    """Write a season's plan to `folder`, whole or not at all, in the place of an older one.

    Raises PlanError where the folder is something else (a store's season, say) or cannot be written.
    """
    if folder.exists() and not (folder / "plan.json").exists():
        raise PlanError(f"{folder} is there and is no plan; choose another --out")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        write_tables(plan, partial)
        for path in [*partial.iterdir(), partial]:
            sync(path)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        sync(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PlanError(f"cannot write the plan {folder}: {error.strerror or error}") from error


def write_tables(plan: SeasonPlan, folder: Path) -> None:
    """The files of a plan."""
    plan.samples.to_parquet(folder / "samples.parquet")
    plan.blocks.to_parquet(folder / "blocks.parquet")
    scenes_table(plan.scenes).to_parquet(folder / "scenes.parquet")
    write_items(folder / "sentinel2.parquet", plan.sentinel2)
    write_items(folder / "enmap.parquet", plan.enmap)
    coverage = {}
    for role in ROLES:
        declarations: Declarations = getattr(plan, role)
        declarations.parcels.to_parquet(folder / f"{role}.parquet")
        coverage[role] = declarations.coverage or shapely.Polygon()
    gpd.GeoDataFrame({"role": list(coverage)}, geometry=list(coverage.values()), crs=LONLAT).to_parquet(
        folder / "coverage.parquet"
    )
    (folder / "plan.json").write_text(canonical_json(plan.facts()), encoding="utf-8")


def load_season(folder: Path) -> SeasonPlan:
    """Read a season's plan. Raises PlanError for a damaged one or one of another version."""
    try:
        facts = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        if facts["plan_version"] != PLAN_VERSION:
            raise PlanError(
                f"{folder} is a plan of version {facts['plan_version']}, this reads {PLAN_VERSION}; plan again"
            )
        coverage = gpd.read_parquet(folder / "coverage.parquet").set_index("role").geometry
        declarations = {
            role: Declarations(
                gpd.read_parquet(folder / f"{role}.parquet"),
                None if facts["coverage"][role] == "everywhere" else coverage[role],
                facts["counts"][role],
            )
            for role in ROLES
        }
        items = {name: read_items(folder / f"{name}.parquet") for name in facts["items"]}
        if {name: len(found) for name, found in items.items()} != facts["items"]:
            raise ValueError("scenes are missing")
        return SeasonPlan(
            season=facts["season"],
            recipe=parse_recipe(facts["recipe"], folder, str(folder)),
            samples=gpd.read_parquet(folder / "samples.parquet"),
            blocks=pd.read_parquet(folder / "blocks.parquet"),
            scenes=scene_decisions(pd.read_parquet(folder / "scenes.parquet")),
            sentinel2=items["sentinel2"],
            enmap=items["enmap"],
            parcels=declarations["parcels"],
            prior=declarations["prior"],
            taxonomy_version=facts["taxonomy"]["version"],
            taxonomy_hash=facts["taxonomy"]["sha256"],
            algorithm=facts["algorithm"],
        )
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"{folder} is damaged ({type(error).__name__}: {error}); delete it and plan again") from error


def scenes_table(scenes: list[SceneDecision]) -> pd.DataFrame:
    """The decisions on scenes as a table with the same columns and types whatever is in it."""
    columns = list(SceneDecision.__dataclass_fields__)
    table = pd.DataFrame([asdict(scene) for scene in scenes], columns=columns)
    table["time"] = pd.to_datetime(table["time"], utc=True).dt.as_unit("us")
    texts = dict.fromkeys(("id", "sensor", "collection", "baseline", "reason"), "str")
    return table.astype({"taken": "bool", "offset": "Int32", **texts})


def scene_decisions(table: pd.DataFrame) -> list[SceneDecision]:
    """The rows of such a table."""
    known = table.astype(object).where(table.notna(), None)
    rows: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]
    return [SceneDecision(**{**row, "time": row["time"].to_pydatetime()}) for row in rows]
