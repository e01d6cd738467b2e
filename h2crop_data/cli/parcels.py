"""`h2crop parcels`: files of declared parcels, before they are used."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import print_json, say
from h2crop_data.crops.countries import code_field
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import ParcelError, UsageError

if TYPE_CHECKING:
    from h2crop_data.crops.tables import CropCodes
    from h2crop_data.parcels.coverage import FileCoverage
    from h2crop_data.parcels.file_check import FileCheck
    from h2crop_data.parcels.read import ParcelFile

app = typer.Typer(help="Check files of declared parcels.", no_args_is_help=True)

InCountry = Annotated[str, typer.Option(help="Country (and region) in lower case, such as fr or be-vlg.")]
OfYear = Annotated[int, typer.Option(min=1980, max=2100, help="Year of the declarations.")]
ClassVersion = Annotated[str | None, typer.Option(help="Version of the crop classes (default: the newest).")]
CodeField = Annotated[
    str | None, typer.Option("--code-field", help="Field of the crop code (default: the known one of the country).")
]
LayerName = Annotated[str | None, typer.Option(help="Layer of the file (default: its only layer).")]
StatedCrs = Annotated[str | None, typer.Option(help="CRS of the file, if it has none or a wrong one.")]
OwnTable = Annotated[
    str | None,
    typer.Option(
        help="Your own crop table (CSV with columns code, hcat3), or hcat3 or hcat4 for files with such codes."
    ),
]
#: Lines of a list that are shown; --json has all.
LINES_OF_A_LIST = 10


@app.command("check")
def check_before_use(
    file: Annotated[Path, typer.Argument(help="Vector file of declared parcels.")],
    country: InCountry,
    year: OfYear,
    version: ClassVersion = None,
    code_column: CodeField = None,
    id_field: Annotated[str | None, typer.Option(help="Field of the parcel's own id.")] = None,
    layer: LayerName = None,
    crs: StatedCrs = None,
    table: OwnTable = None,
    picture: Annotated[Path | None, typer.Option("--map", help="PNG to write: a map of the parcels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show what a file would give a build: rows and repairs, place, crops by tier, overlaps, sizes."""
    from h2crop_data.parcels.file_check import check_parcel_file, findings_of

    source, codes, taxonomy = opened_file(file, country, year, version, code_column, layer, crs, table, id_field)
    checked, parcels = check_parcel_file(source, country, codes, taxonomy)
    if picture is not None and len(parcels):
        from h2crop_data.parcels.parcel_map import draw_parcel_map

        drawn = draw_parcel_map(parcels, f"{file.name}, {country} {year}, version {taxonomy.version}")
        try:
            picture.write_bytes(drawn)
        except OSError as error:
            raise UsageError(f"cannot write {picture}: {error.strerror or error}") from error
    findings = findings_of(checked)
    if as_json:
        facts = {"country": country, "year": year, "version": taxonomy.version, **asdict(checked), "findings": findings}
        print_json(facts)
        return
    show_file_check(checked, findings)
    if picture is not None:
        say(f"map: {picture}" if len(parcels) else f"no map: {file} has no parcels")


def opened_file(
    file: Path,
    country: str,
    year: int,
    version: str | None,
    code_column: str | None,
    layer: str | None,
    crs: str | None,
    table: str | None,
    id_field: str | None = None,
) -> tuple[ParcelFile, CropCodes, Taxonomy]:
    """A file of parcels with the crop codes and classes for it.

    Raises UsageError for an unknown version, and where the field of the crop code is not known; ParcelError for a file
    or table that cannot be read.
    """
    from h2crop_data.crops.tables import HCAT3_TABLE, HCAT4_TABLE, country_tables, load_crop_table
    from h2crop_data.parcels.read import open_parcels, vector_fields
    from h2crop_data.recipe.model import CropTable

    chosen = version or taxonomy_versions()[-1]
    if chosen not in taxonomy_versions():
        raise UsageError(f"unknown taxonomy version {chosen!r}; this h2crop has {', '.join(taxonomy_versions())}")
    shipped = table in (HCAT3_TABLE, HCAT4_TABLE)
    own = CropTable(path=table) if table and not shipped else None
    try:
        codes = load_crop_table(
            own or table, country, Path(table) if table and own else None, version=chosen, year=year
        )
    except ParcelError as error:
        if table is None and country not in country_tables():
            known = ", ".join(country_tables())
            raise UsageError(f"no crop table for {country!r} (known: {known}); give your own with --table") from error
        raise
    fields = vector_fields(file, layer)
    field = code_column or code_field(country, fields)
    if field is None:
        raise UsageError(
            f"{file}: no known field of crop codes for {country}; give --code-field, one of {', '.join(fields)}"
        )
    return open_parcels(file, field, id_field=id_field, layer=layer, crs=crs), codes, Taxonomy.load(chosen)


def show_file_check(check: FileCheck, findings: list[str]) -> None:
    """The report on a file."""
    say(f"{check.path}: layer {check.layer} ({check.driver}, {check.crs}), crop code in {check.code_field}")
    counts = check.counts
    say(f"  {check.rows} rows stated, {counts['read']} read, {counts['parcels']} parcels")
    if check.bounds:
        west, south, east, north = check.bounds
        say(f"  longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}")
    show_tiers(check.coverage)
    if check.largest:
        largest, smallest = check.largest[0], check.smallest[0]
        say(
            f"  largest {largest.hectares:g} ha (fid {largest.fid}, {largest.code}), "
            f"smallest {smallest.hectares:g} ha (fid {smallest.fid}, {smallest.code})"
        )
    for finding in findings:
        say(f"  {finding}")


def show_tiers(found: FileCoverage) -> None:
    """How far the classes reach, and the codes for which they do not."""
    for tier in found.tiers:
        say(
            f"  tier {tier.tier}: {tier.parcels} parcels ({tier.parcel_share:.1%}), "
            f"{tier.hectares:.1f} ha ({tier.hectare_share:.1%})"
        )
    show_some(
        "code(s) are not in the table",
        [
            f"{one.code or '(no code)'}: {one.parcels} parcels, {one.hectares:.1f} ha"
            + (f"; looks like {one.near}" if one.near else "")
            for one in found.codes
            if not one.known
        ],
    )
    show_some(
        "code(s) are known to a higher tier only",
        [
            f"{one.code}: {one.parcels} parcels, {one.hectares:.1f} ha, {one.hcat3 or 'unknown'}, {one.tiers} tier(s)"
            for one in found.codes
            if one.known and one.tiers < len(found.tiers)
        ],
    )


def show_some(title: str, lines: list[str]) -> None:
    """Some lines of a kind, with their number."""
    if lines:
        say(f"{len(lines)} {title}:")
    for line in lines[:LINES_OF_A_LIST]:
        say(f"  {line}")
    if len(lines) > LINES_OF_A_LIST:
        say(f"  and {len(lines) - LINES_OF_A_LIST} more (--json lists all)")
