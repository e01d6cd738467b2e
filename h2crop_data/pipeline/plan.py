"""A plan: everything the build of a season needs, pinned, and how it is kept in a folder.

PLAN/<part>/plan.json  samples.parquet  blocks.parquet  scenes.parquet  squares.parquet
            and the files of its sources: enmap.parquet  enmap-facts.parquet  sentinel2.parquet  parcels.parquet ...

A part is the plan of a season (`2022`), or of what was added to it later (`2022-000120`, by its first block).
`plan.json` has the bytes and the SHA-256 of the other files, and a checksum of itself; those of earlier versions have
neither.
"""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import geopandas as gpd
import pandas as pd

from h2crop_data.cube.crop_tables import merged_crop_tables
from h2crop_data.cube.retraction import REBUILT, Retractions
from h2crop_data.cube.schema import LAYOUT_GENERATION, StoreLayout
from h2crop_data.errors import H2cropError, MissingFileError, PlanError, RecipeError, StoreError
from h2crop_data.recipe.model import Recipe, parse_recipe
from h2crop_data.sources.registry import layout_of_recipe, sources_of, used_sources
from h2crop_data.sources.scenes import SceneDecision, scene_decisions, scenes_table
from h2crop_data.storage.checked import checked_json, digest_of, parsed_document
from h2crop_data.storage.local import LocalStorage, sync
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

PLAN_VERSION = 2
#: Of a plan that replaces blocks: an older h2crop must not read it as one that only adds samples.
REPLACING_VERSION = 3
#: Of a plan for a layout that is not of generation 1: an older h2crop would write shards of that.
LAYOUT_VERSION = 4
#: Where a store keeps its plans.
PLAN_FOLDER = f"{BUILD_FOLDER}/plan"
SQUARE_COLUMNS = ["column", "row", "split"]


@dataclass(frozen=True)
class SeasonPlan:
    """The plan of one season.

    season: the year. recipe: as it was when the season was planned. samples: one row a sample, ordered by block and
    slot: sample, cell, epsg, x0, y0, block, slot, split, square, scene, the other planned columns, geometry (longitude,
    latitude). blocks: one row a block: block, split, square, epsg, scene, samples, the columns of its sources, input
    hashes. scenes: every scene the catalogs gave, with the decision on it. pinned: what each source found, by name; of
    sources that come with h2crop also where the recipe does not use them. taxonomy_version, taxonomy_hash: of the
    classes. algorithm: version of the algorithm of each array group that the input hashes were made for. squares: the
    split of every square this plan decided on. split_problems: in words, what the split of the samples could not be
    made to meet. replaces: blocks of earlier parts of the season whose samples are planned again here, each with the
    reason. They leave the release in which all blocks of this part are. planned: when it was made, of a season that was
    not complete then; None for others. generation: of the layout of its store; one that is kept in a store has that of
    the store.
    """

    season: int
    recipe: Recipe
    samples: gpd.GeoDataFrame
    blocks: pd.DataFrame
    scenes: list[SceneDecision]
    pinned: dict[str, Any]
    taxonomy_version: str
    taxonomy_hash: str
    algorithm: dict[str, int]
    squares: dict[tuple[int, int], str]
    split_problems: list[str] = field(default_factory=list)
    replaces: dict[int, str] = field(default_factory=dict)
    planned: date | None = None
    generation: int = LAYOUT_GENERATION

    @property
    def first_block(self) -> int:
        """Number of the first of its blocks; the others follow without a gap."""
        return int(self.blocks["block"].iloc[0])

    @property
    def part(self) -> str:
        """Name of its folder."""
        return str(self.season) if not self.first_block else f"{self.season}-{self.first_block:06d}"

    @property
    def layout(self) -> StoreLayout:
        """The layout of the store this plan fits."""
        return layout_of_recipe(self.recipe, self.generation)

    @property
    def version(self) -> int:
        """The lowest version of plans that says all this one does."""
        if self.generation > 1:
            return LAYOUT_VERSION
        return REPLACING_VERSION if self.replaces else PLAN_VERSION

    @property
    def crop_tables(self) -> dict[str, str] | None:
        """Country -> SHA-256 of the crop table that labels are made with; None where an earlier version planned it."""
        known = [source.crop_tables(self.pinned[source.name]) for source, _ in used_sources(self.recipe)]
        return None if None in known else merged_crop_tables(tables for tables in known if tables is not None)

    def facts(self) -> dict[str, Any]:
        """What `plan.json` says beside the tables."""
        facts: dict[str, Any] = {
            "plan_version": self.version,
            "season": self.season,
            "recipe": self.recipe.as_written(),
            "taxonomy": {"version": self.taxonomy_version, "sha256": self.taxonomy_hash},
            "algorithm": self.algorithm,
            "split_problems": self.split_problems,
        }
        # Plans without these say what they said before there were any.
        if self.crop_tables is not None:
            facts["taxonomy"]["countries"] = self.crop_tables
        if self.replaces:
            facts["replaces"] = {str(block): reason for block, reason in sorted(self.replaces.items())}
        if self.planned is not None:
            facts["planned"] = self.planned.isoformat()
        if self.generation > 1:
            facts["layout"] = self.generation
        for source in sources_of(self.recipe):
            for name, value in source.facts(self.pinned[source.name]).items():
                facts[name] = {**facts.get(name, {}), **value}
        return facts


def kept_parts(files: Storage, folder: str = "") -> list[str]:
    """The folders of the finished plans below a folder, in order; what a killed attempt left half written is none."""
    found = (name.removeprefix(folder).split("/") for name, _ in files.names(folder))
    names = sorted(path[0] for path in found if path[1:] == ["plan.json"] and path[0][0].isdigit())
    return [f"{folder}{name}/" for name in names]


def season_of_part(folder: str) -> int:
    """The season of a part, by its folder."""
    return int(folder.rstrip("/").rsplit("/", 1)[-1].split("-")[0])


def load_plans(folder: Path) -> list[SeasonPlan]:
    """The plans of a folder that `h2crop plan` made. Raises PlanError where there are none."""
    files = LocalStorage(folder)
    parts = kept_parts(files)
    if not parts:
        raise PlanError(
            f"{folder} is not a plan: no <season>/plan.json in it; make one with `h2crop plan RECIPE --out {folder}`"
        )
    return [load_plan(files, part) for part in parts]


def save_plan(plan: SeasonPlan, folder: Path) -> None:
    """Write a plan to its part of a folder, whole or not at all, in the place of an older one.

    Raises PlanError where that is something else (a store's season, say) or cannot be written.
    """
    target = folder / plan.part
    if target.exists() and not (target / "plan.json").exists():
        raise PlanError(f"{target} exists and is not a plan; choose another --out")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        for left in folder.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        for name, data in plan_files(plan).items():
            (partial / name).write_bytes(data)
        for path in [*partial.iterdir(), partial]:
            sync(path)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PlanError(f"cannot write the plan {target}: {error.strerror or error}") from error


def keep_plan(plan: SeasonPlan, files: Storage) -> None:
    """Keep a plan in the store it is built into, `plan.json` last."""
    folder = f"{PLAN_FOLDER}/{plan.part}/"
    for name, data in plan_files(plan).items():
        files.replace(f"{folder}{name}", [data])


def plan_files(plan: SeasonPlan) -> dict[str, bytes]:
    """The files of a plan by name, `plan.json` last."""
    squares = pd.DataFrame([(*square, name) for square, name in sorted(plan.squares.items())], columns=SQUARE_COLUMNS)
    tables = {"samples": plan.samples, "blocks": plan.blocks, "scenes": scenes_table(plan.scenes), "squares": squares}
    files = {}
    for name, table in tables.items():
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        files[f"{name}.parquet"] = buffer.getvalue()
    for source in sources_of(plan.recipe):
        files |= source.files(plan.pinned[source.name])
    records = {name: {"bytes": len(data), "sha256": digest_of(data)} for name, data in sorted(files.items())}
    return {**files, "plan.json": checked_json({**plan.facts(), "files": records}).encode()}


def load_plan(files: Storage, folder: str, *, whole: bool = True) -> SeasonPlan:
    """Read the plan in a folder (`2022/`). Raises PlanError for a plan that is damaged, was edited, is that of another
    part or of a newer version, StoreError where its files cannot be read now.

    whole: with its parcels; a country's take room and time, and a plan of another season is needed without. Files that
    are read are compared with their checksums.
    """
    where = files.where(folder.rstrip("/"))
    try:
        plan = parsed_plan(files, folder, whole=whole)
        if plan.part != PurePosixPath(folder).name:
            raise ValueError(f"it contains the plan of {plan.part}")
    except (MemoryError, PlanError):
        raise
    except Exception as error:  # any library may fail on a file without a checksum
        # Of a store that cannot be read now its plan may be whole.
        is_unread = isinstance(error, StoreError) and not isinstance(error, MissingFileError)
        is_other = isinstance(error, H2cropError) and not isinstance(error, OSError | ValueError)
        if is_other or (is_unread and not isinstance(error.__cause__, ValueError)):
            raise
        remedy = (
            "restore it from a backup, or, where no release has its samples, delete it and plan again"
            if folder.startswith(f"{PLAN_FOLDER}/")
            else "delete it and plan again; a setting is changed in the recipe, not in the plan"
        )
        raise PlanError(f"{where} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    return plan


def parsed_plan(files: Storage, folder: str, *, whole: bool) -> SeasonPlan:
    """The plan in a folder. Raises ValueError or StoreError for a damaged one, PlanError for one of a newer version; a
    damaged plan without checksums may raise any other error.
    """
    where = files.where(folder.rstrip("/"))
    try:
        document = parsed_document(files.read(f"{folder}plan.json"))
    except ValueError as error:
        raise ValueError(f"plan.json: {error}") from error
    facts = document.content
    records = facts.pop("files", None)
    if document.checked != (records is not None):
        raise ValueError("plan.json: expected a checksum and a list of files, or neither")

    def read(name: str) -> bytes:
        data = files.read(f"{folder}{name}")
        if records is not None and records.get(name) != {"bytes": len(data), "sha256": digest_of(data)}:
            raise ValueError(f"{name} is not the file that plan.json lists: its bytes or their SHA-256 differ")
        return data

    def table(name: str) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(read(f"{name}.parquet")))

    if facts["plan_version"] not in (1, PLAN_VERSION, REPLACING_VERSION, LAYOUT_VERSION):
        raise PlanError(
            f"{where} is a plan of version {facts['plan_version']}, this h2crop reads up to "
            f"{LAYOUT_VERSION}: a newer h2crop made it; install that version or a later one (nothing was "
            "changed)"
        )
    try:
        recipe = parse_recipe(facts["recipe"], Path(where), where, stored=True)
    except RecipeError as error:
        raise PlanError(
            f"{where} has settings unknown to this h2crop: a newer h2crop made it, or it is damaged; install "
            f"that version or a later one: {error}"
        ) from error
    samples = gpd.read_parquet(io.BytesIO(read("samples.parquet")))
    scenes = scene_decisions(table("scenes"))
    return SeasonPlan(
        season=facts["season"],
        recipe=recipe,
        samples=samples,
        blocks=table("blocks"),
        scenes=scenes,
        pinned={source.name: source.load(facts, read, scenes, whole=whole) for source in sources_of(recipe)},
        taxonomy_version=facts["taxonomy"]["version"],
        taxonomy_hash=facts["taxonomy"]["sha256"],
        algorithm=facts["algorithm"],
        squares=pinned_squares(table("squares")) if facts["plan_version"] > 1 else squares_of(samples),
        split_problems=facts.get("split_problems", []),
        replaces={int(block): reason for block, reason in facts.get("replaces", {}).items()},
        planned=date.fromisoformat(facts["planned"]) if "planned" in facts else None,
        generation=facts.get("layout", 1),
    )


def with_replaced(retractions: Retractions, plans: Iterable[SeasonPlan]) -> Retractions:
    """The retractions of a store, and with them the blocks that some of its plans replace.

    Of unfinished parts too, unless `plans` are without them: what they replace is still in the release, but is neither
    compared nor planned again. What a block would have replaced that is never built stays.
    """
    together = Retractions({season: dict(blocks) for season, blocks in retractions.blocks.items()}, retractions.scenes)
    for plan in plans:
        if replaced := replaced_by(plan, retractions):
            together.add(Retractions({plan.season: replaced}))
    return together


def replaced_by(plan: SeasonPlan, retractions: Retractions) -> dict[int, str]:
    """The blocks that a plan replaces, with the reasons, without those whose new blocks are never built."""
    never = retractions.never_built(plan.season)
    return {block: reason for block, reason in plan.replaces.items() if not rebuilt_as(reason) & never}


def rebuilt_reason(blocks: Iterable[int], why: str) -> str:
    """The reason in the index of a block that was rebuilt: the blocks that have its samples now, and why."""
    return f"{REBUILT} {', '.join(map(str, sorted(blocks)))}: {why}"


def rebuilt_as(reason: str) -> set[int]:
    """The blocks that such a reason names."""
    return {int(block) for block in reason.removeprefix(REBUILT).partition(":")[0].split(",")}


def row_dictionaries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def pinned_squares(table: pd.DataFrame) -> dict[tuple[int, int], str]:
    """The rows of a plan's table of squares."""
    return {(int(column), int(row)): name for column, row, name in table[SQUARE_COLUMNS].itertuples(index=False)}


def squares_of(samples: pd.DataFrame) -> dict[tuple[int, int], str]:
    """The split of the squares that hold samples, as plans of version 1 tell it."""
    named = dict(zip(samples["square"], samples["split"], strict=True))
    return {(int(square.split("_")[0]), int(square.split("_")[1])): name for square, name in named.items()}
