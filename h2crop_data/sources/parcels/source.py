"""Declared parcels as a source: labels of the season and of the year before."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely

from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.crop_tables import merged_crop_tables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.quality import DECLARED
from h2crop_data.errors import PlanError
from h2crop_data.grid import LONLAT, Cell
from h2crop_data.recipe.model import Parcels
from h2crop_data.sources.changes import InputChange
from h2crop_data.sources.parcels.assemble import label_block
from h2crop_data.sources.parcels.declarations import (
    ROLES,
    CellParcels,
    Declarations,
    Declared,
    check_declared,
    declarations_of,
    digests_near,
    home_squares,
    keeping_splits,
    near_cells,
    no_declarations,
    with_listed_splits,
    with_splits,
)
from h2crop_data.sources.parcels.files import check_other_files, check_year_files, season_files
from h2crop_data.sources.parcels.format import parcels_format
from h2crop_data.sources.parcels.report import explain_declarations
from h2crop_data.sources.parcels.words import ParcelWords
from h2crop_data.sources.scenes import SceneDecision
from h2crop_data.sources.source import (
    BlockGround,
    BlockInputs,
    Described,
    GroundSplits,
    PlannedBlock,
    ReadFile,
    Request,
    Source,
    SourceBlock,
    SurveyedGround,
)
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.splits.squares import Square


class DeclaredParcels(Source):
    """Parcels that farmers declared, with their crops."""

    name = "parcels"
    group = "labels"
    algorithm = 2
    settings = Parcels
    words = ParcelWords()
    #: What is read of the files is part of the input hash itself, parcel by parcel.
    not_identity = frozenset({"season", "prior", "min_labelled_share"})
    remedy = "`h2crop relabel {store} --out NEW` redoes them"

    def format(self, settings: Parcels, cell_size: int) -> SourceFormat:
        return parcels_format(cell_size)

    def describe(
        self, settings: Parcels, request: Request, ground: SurveyedGround, known: Sequence[Declared]
    ) -> Described:
        declared = declarations_in(settings, request, ground, known)
        shares, classes = survey_labels(declared.parcels, ground, request)
        least = settings.min_labelled_share
        usable = frozenset(cell for cell, share in shares.items() if share >= least)
        if not usable:
            raise PlanError(
                f"{request.season}: none of {len(shares)} cells reaches parcels.min_labelled_share {least:g}"
            )
        split = request.split
        roles = ROLES if split.method == "optimised" else ()
        touched = frozenset(square for role in roles for square in declared.of(role).touched(split.square_size))
        return Described(declared, usable, {"labelled_share": shares}, classes, touched)

    def split(self, settings: Parcels, pinned: Declared, splits: GroundSplits, known: Sequence[Declared]) -> Declared:
        if splits.method == "hash":
            return pinned
        result = {}
        for role in ROLES:
            before = numbered(known, role)
            if splits.cells is not None:
                result[role] = keeping_splits(with_listed_splits(pinned.of(role), splits.cells), before)
            else:
                result[role] = with_splits(pinned.of(role), splits, before)
        return Declared(result["parcels"], result["prior"])

    def nothing(self) -> Declared:
        return Declared(no_declarations(), no_declarations())

    def for_samples(self, pinned: Declared, samples: gpd.GeoDataFrame, *, further: bool) -> Declared:
        """All of it, or for a later part of a season what lies near its own cells."""
        if not further:
            return pinned
        cells = sorted({Cell.parse(name) for name in samples["cell"]})
        return Declared(near_cells(pinned.parcels, cells), near_cells(pinned.prior, cells))

    def inputs(self, settings: Parcels | None, pinned: Declared, blocks: Sequence[PlannedBlock]) -> list[list[Any]]:
        # What is read of the files shows in the parcels; settings of how they are drawn would not.
        identity = self.identity(settings)
        drawn = [identity] if identity else []
        return [
            [[block.taxonomy_hash, block.split, declared], *drawn]
            for block, declared in zip(blocks, digests_of_blocks(pinned, blocks), strict=True)
        ]

    def input_changes(self, before: BlockInputs, now: BlockInputs) -> list[list[InputChange]]:
        old, new = (digests_of_blocks(inputs.pinned, inputs.blocks) for inputs in (before, now))
        differ = [was != is_now for was, is_now in zip(old, new, strict=True)]
        countries = other_crop_tables(before.pinned, now.pinned)
        if not countries:
            return [[InputChange("content")] if one else [] for one in differ]
        declared = (digests_of_blocks(without_classes(inputs.pinned), inputs.blocks) for inputs in (before, now))
        by_table = InputChange("crop tables", countries)
        return [
            ([by_table] if was == is_now else [InputChange("content"), by_table]) if one else []
            for one, was, is_now in zip(differ, *declared, strict=True)
        ]

    def crop_tables(self, pinned: Declared) -> dict[str, str] | None:
        known = [pinned.of(role).tables for role in ROLES]
        return None if None in known else merged_crop_tables(tables for tables in known if tables is not None)

    def missing_files(self, settings: Parcels, season: int, locate: Callable[[str], Path]) -> list[str]:
        lines = []
        for role, files in season_files(settings, locate, season).items():
            of_year = [files.path(source) for source in files.sources if "{year}" in source.path]
            lines += [f"{DECLARED[role]}: {path} does not exist" for path in of_year if not path.exists()]
        return lines

    def files(self, pinned: Declared) -> dict[str, bytes]:
        coverage = {role: pinned.of(role).coverage or shapely.Polygon() for role in ROLES}
        ground = gpd.GeoDataFrame({"role": list(coverage)}, geometry=list(coverage.values()), crs=LONLAT)
        tables = {**{role: pinned.of(role).parcels for role in ROLES}, "coverage": ground}
        files = {}
        for name, table in tables.items():
            buffer = io.BytesIO()
            table.to_parquet(buffer)
            files[f"{name}.parquet"] = buffer.getvalue()
        return files

    def facts(self, pinned: Declared) -> dict[str, Any]:
        return {
            "counts": {role: pinned.of(role).counts for role in ROLES},
            "unmapped": {role: pinned.of(role).unmapped for role in ROLES},
            "notes": {role: pinned.of(role).notes for role in ROLES},
            "coverage": {role: "everywhere" if pinned.of(role).coverage is None else "stated" for role in ROLES},
            "tables": {role: pinned.of(role).tables for role in ROLES if pinned.of(role).tables is not None},
        }

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> Declared:
        def table(name: str) -> gpd.GeoDataFrame:
            return gpd.read_parquet(io.BytesIO(read(f"{name}.parquet")))

        coverage = table("coverage").set_index("role").geometry
        found = {
            role: Declarations(
                table(role) if whole else no_declarations().parcels,
                None if facts["coverage"][role] == "everywhere" else coverage[role],
                facts["counts"][role],
                # Plans of earlier versions count unmapped parcels without naming their codes.
                facts.get("unmapped", {}).get(role, {}),
                facts.get("notes", {}).get(role, []),
                facts.get("tables", {}).get(role),
            )
            for role in ROLES
        }
        return Declared(found["parcels"], found["prior"])

    def counts(self, pinned: Declared) -> dict[str, int]:
        return {
            "parcels": len(pinned.parcels.parcels),
            "parcels_unmapped": pinned.parcels.counts.get("unmapped", 0),
            "prior_parcels": len(pinned.prior.parcels),
        }

    def parcels(self, pinned: Declared) -> gpd.GeoDataFrame:
        return pinned.parcels.parcels

    def what_was_read(self, pinned: Declared) -> tuple[dict[str, Any], list[str]]:
        facts, notes = {}, []
        for role in ROLES:
            declarations = pinned.of(role)
            facts[role] = {"counts": declarations.counts, "unmapped": declarations.unmapped}
            notes += [f"{DECLARED[role]}: {note}" for note in declarations.notes]
        return facts, notes

    def explain(self, facts: Mapping[str, Any]) -> list[str]:
        return explain_declarations(facts)

    def task(self, settings: Parcels, pinned: Declared, block: PlannedBlock) -> Declared:
        return Declared(pinned.parcels.near(block.cells), pinned.prior.near(block.cells))

    def assemble(self, task: Declared, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return label_block(task, ground, watch)


def digests_of_blocks(pinned: Declared, blocks: Sequence[PlannedBlock]) -> list[list[str]]:
    """For each block the SHA-256 of the declarations that bear on it, of each role."""
    places = [block.place for block in blocks]
    of_roles = [digests_near(pinned.of(role), places) for role in ROLES]
    return [[digests[i] for digests in of_roles] for i in range(len(places))]


def without_classes(pinned: Declared) -> Declared:
    """What was declared, without what crop tables and taxonomy make of it."""
    classes = ["hcat3", *TIER_COLUMNS]
    declared = {role: pinned.of(role) for role in ROLES}
    bare = {role: replace(one, parcels=one.parcels.drop(columns=classes)) for role, one in declared.items()}
    return Declared(bare["parcels"], bare["prior"])


def other_crop_tables(before: Declared, now: Declared) -> tuple[str, ...]:
    """The countries whose crop table is another one now; those of a plan that did not keep its tables are unknown."""
    found: set[str] = set()
    for role in ROLES:
        old, new = before.of(role).tables or {}, now.of(role).tables or {}
        found |= {country for country in old.keys() & new.keys() if old[country] != new[country]}
    return tuple(sorted(found))


def numbered(known: Sequence[Declared], role: str) -> gpd.GeoDataFrame | None:
    """The parcels of a role that have a number already; None where there are none."""
    return pd.concat([declared.of(role).parcels for declared in known]) if known else None


def declarations_in(settings: Parcels, request: Request, ground: SurveyedGround, known: Sequence[Declared]) -> Declared:
    """The declarations of the season and of the year before. Raises ParcelError for files that cannot be those of the
    cells.
    """
    files = season_files(settings, request.locate, request.season, request.taxonomy)
    taxonomy = Taxonomy.load(request.taxonomy)
    declared = {}
    for role in ROLES:
        if role == "prior":
            check_other_files(files["parcels"], files[role])
        notes = check_year_files(files[role], list(ground.squares), request.crs)
        before = numbered(known, role)
        read = declarations_of(files[role], ground.groups, request.split, taxonomy, request.progress, before)
        check_declared([read], files[role])
        declared[role] = replace(read, notes=[*notes, *read.notes])
    return Declared(declared["parcels"], declared["prior"])


def survey_labels(
    declarations: Declarations, ground: SurveyedGround, request: Request
) -> tuple[dict[Cell, float], dict[Square, set[tuple[int, int]]]]:
    """Share of each cell's pixels whose crop has a class, and the classes (tier, id) sure to occur in each square.

    A class is sure to occur where it has a pixel of a parcel that lies for the most part in that square: such a parcel
    has the split of its square, whatever the other squares' are.
    """
    shares: dict[Cell, float] = {}
    classes: dict[Square, set[tuple[int, int]]] = defaultdict(set)
    split = request.split
    homes = home_squares(declarations.parcels, split.square_size) if split.method == "optimised" else None
    for done, cells in enumerate(ground.groups):
        request.progress(done, len(ground.groups), "labelled pixels of the cells")
        near = CellParcels(declarations, cells)
        for cell in cells:
            shares[cell] = near.labelled_share(cell)
            if homes is not None:
                square = ground.squares[cell]
                classes[square] |= near.classes_at_home(cell, homes, square)
    return shares, classes
