"""`h2crop taxonomy`: the crop classes and the crop tables of the countries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import Exit, print_json, say
from h2crop_data.cli.parcels import (
    ClassVersion,
    CodeField,
    InCountry,
    LayerName,
    OfYear,
    OwnTable,
    StatedCrs,
    opened_file,
    show_some,
    show_tiers,
)
from h2crop_data.crops.countries import countries
from h2crop_data.crops.taxonomy import PUBLISHED_VERSION, Taxonomy, taxonomy_versions
from h2crop_data.errors import UsageError

if TYPE_CHECKING:
    from h2crop_data.crops.lookup import KnownCrop

app = typer.Typer(help="Check, extend and explain the crop classes and the crop tables.", no_args_is_help=True)

JsonReport = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
OfCountry = Annotated[str | None, typer.Option(help="Country (and region) in lower case, such as fr or be-vlg.")]


@app.command("check")
def check_tables(
    table: Annotated[Path | None, typer.Argument(help="A crop table (default: all tables of h2crop).")] = None,
    as_json: JsonReport = False,
) -> None:
    """Check classes and crop tables: a strict tree, ids without gaps, nothing published changed, codes that exist."""
    from h2crop_data.crops.check import check_crop_table, check_taxonomy

    problems = check_taxonomy() if table is None else check_crop_table(table)
    if as_json:
        print_json({"problems": problems, "versions": taxonomy_versions()})
    for problem in () if as_json else problems:
        say(problem)
    if problems:
        raise typer.Exit(Exit.FAILED)
    if not as_json:
        versions = ", ".join(f"{v} ({len(Taxonomy.load(v).classes[-1])} classes)" for v in taxonomy_versions())
        say(f"{table}: no problem found" if table else f"no problem found; versions {versions}")


@app.command("import")
def import_list(
    file: Annotated[Path, typer.Argument(help="CSV of EuroCrops or fiboa, or any CSV whose columns are named.")],
    out: Annotated[Path, typer.Option(help="Crop table to write, such as taxonomy/countries/xx.csv.")],
    country: Annotated[str | None, typer.Option(help="Whose rows to take of a list of several countries.")] = None,
    code_column: Annotated[str | None, typer.Option(help="Column of the country's crop code.")] = None,
    name_column: Annotated[str | None, typer.Option(help="Column of the crop's name.")] = None,
    english_column: Annotated[str | None, typer.Option(help="Column of its English name.")] = None,
    hcat3_column: Annotated[str | None, typer.Option(help="Column of the HCAT3 code.")] = None,
    hcat4_column: Annotated[str | None, typer.Option(help="Column of the HCAT4 code.")] = None,
    use_column: Annotated[str | None, typer.Option(help="Column of HCAT4's code of the use.")] = None,
    from_column: Annotated[str | None, typer.Option(help="Column of the first year of a meaning.")] = None,
    to_column: Annotated[str | None, typer.Option(help="Column of its last year.")] = None,
    reason: Annotated[str, typer.Option(help="Why you decided the meanings yourself, for every row.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing table.")] = False,
    as_json: JsonReport = False,
) -> None:
    """Bring a list of crop codes into the form of h2crop's tables, and report what does not fit."""
    from h2crop_data.crops.imports import ForeignColumns, import_table, table_text

    named = (code_column, name_column, english_column, hcat3_column, hcat4_column, use_column)
    columns = None
    if any(named):
        if not (code_column or name_column) or not (hcat3_column or hcat4_column):
            raise UsageError(
                "name the column of the code or the name, and that of the HCAT3 or HCAT4 code; a list without such "
                "codes gets them first (`h2crop taxonomy suggest` helps)"
            )
        columns = ForeignColumns(
            code_column,
            name_column,
            english_column,
            hcat3_column,
            hcat4=hcat4_column,
            use=use_column,
            first=from_column,
            last=to_column,
        )
    if out.exists() and not force:
        raise UsageError(f"{out} exists; give --force to replace it")
    rows, report = import_table(file, columns, country, reason)
    try:
        out.write_text(table_text(rows), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from error
    if as_json:
        print_json(asdict(report))
        return
    say(f"{out}: {report.kept} codes of {report.read} rows, {report.repeated} repeated")
    for title, lines in (
        ("without a code, told by their name", report.by_name),
        ("without code and name, left out", report.unnamed),
        ("not in HCAT3, kept as unknown", report.unmapped),
        ("codes of HCAT4 in the place of HCAT3, kept as unknown", report.hcat4),
        ("several meanings, kept at the tier where they agree", report.two_meanings),
        ("code and name of HCAT3 contradict each other, the code was taken", report.contradictions),
    ):
        show_some(title, lines)


@app.command("show")
def show_code(
    crop: Annotated[str, typer.Argument(help="A country's code or crop name, an HCAT3 code, or the name of a class.")],
    country: OfCountry = None,
    as_json: JsonReport = False,
) -> None:
    """Show what is known of a code or class: its path through the tiers, and the countries and years that name it."""
    from h2crop_data.crops.lookup import crops_of

    found = crops_of(crop, country)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        show_crop(one)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A version of the crop classes.", metavar="V1")],
    after: Annotated[str, typer.Argument(help="Another version.", metavar="V2")],
    as_json: JsonReport = False,
) -> None:
    """Show what a version of the crop classes has that another one has not, and the crop codes that changed."""
    from h2crop_data.crops.lookup import version_difference

    found = version_difference(before, after)
    if as_json:
        print_json(asdict(found))
        return
    for tier, added in found.added.items():
        say(f"tier {tier}: {len(added)} added, {len(found.removed[tier])} removed, {len(found.renamed[tier])} renamed")
        for sign, classes in (("+", added), ("-", found.removed[tier])):
            for prefix, name in classes:
                say(f"  {sign} {prefix} {name}")
    for country, codes in found.codes.items():
        say(f"{country}: {len(codes)} code(s) differ")
        for code, (old, new) in codes.items():
            say(f"  {code}: {told_meaning(old)} -> {told_meaning(new)}")
    if any(found.codes.values()):
        say("(-: the table of that version does not have the code)")


@app.command()
def coverage(
    file: Annotated[Path, typer.Argument(help="Vector file of declared parcels.")],
    country: InCountry,
    year: OfYear,
    version: ClassVersion = None,
    code_column: CodeField = None,
    layer: LayerName = None,
    crs: StatedCrs = None,
    table: OwnTable = None,
    as_json: JsonReport = False,
) -> None:
    """Show which share of a file's parcels and hectares each tier of the crop classes reaches, and codes it lacks."""
    from h2crop_data.parcels.coverage import file_coverage

    source, codes, taxonomy = opened_file(file, country, year, version, code_column, layer, crs, table)
    found = file_coverage(source, codes, taxonomy)
    if as_json:
        facts = {"file": str(file), "country": country, "year": year, "version": taxonomy.version}
        print_json({**facts, **asdict(found)})
        return
    say(
        f"{file}: {found.parcels} parcels, {found.hectares:.1f} ha, field {source.code_field}, "
        f"version {taxonomy.version}"
    )
    show_tiers(found)


@app.command()
def suggest(
    file: Annotated[Path | None, typer.Argument(help="CSV with a column of crop names.")] = None,
    name_column: Annotated[str | None, typer.Option(help="Column of the crop's name, best in English.")] = None,
    name: Annotated[str | None, typer.Option(help="One crop name instead of a file.")] = None,
    code_column: Annotated[str | None, typer.Option(help="Column of the crop code, to show with it.")] = None,
    number: Annotated[int, typer.Option("--number", min=1, help="Suggestions for each name.")] = 3,
    as_json: JsonReport = False,
) -> None:
    """Suggest HCAT3 codes for crop names by the names in all crop tables; nothing is applied."""
    from h2crop_data.crops.suggestions import suggested_codes, suggested_for_file

    if (file is None) == (name is None) or (file is not None and name_column is None):
        raise UsageError("give a CSV and --name-column, or one --name")
    if name is not None:
        found = [suggested_codes(name, number)]
    else:
        found = suggested_for_file(Path(file or ""), name_column or "", code_column, number)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        say(f"{f'{one.code} ' if one.code else ''}{one.name}")
        for suggestion in one.suggestions:
            say(f"  {suggestion.score:3.0f} {suggestion.hcat3} {suggestion.hcat3_name} (as {suggestion.like})")


@app.command()
def propose(
    version: Annotated[str, typer.Argument(help="Name of the new version.")],
    least: Annotated[int, typer.Option("--countries", min=1, help="Countries that must name a crop.")] = 3,
    as_json: JsonReport = False,
) -> None:
    """Print the classes that a new version would append to the newest one, as rows of taxonomy/tiers.csv."""
    from h2crop_data.crops.appending import appended_classes, countries_by_code

    if version in taxonomy_versions():
        raise UsageError(f"version {version} exists; a published version never changes")
    found = appended_classes(Taxonomy.load(taxonomy_versions()[-1]), countries_by_code(), least)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        say(f"version {version} would have no more classes than {taxonomy_versions()[-1]}")
    for one in found:
        typer.echo(f"{one.tier},{one.id},{one.prefix},{one.name},{version}")


@app.command("list")
def list_tables(as_json: JsonReport = False) -> None:
    """List the countries with a crop table, and where it is from."""
    known = countries().values()
    if as_json:
        print_json([asdict(country) for country in known])
        return
    for country in known:
        partial = ", partial" if country.partial else ""
        fields = f"; field {', '.join(country.fields)}" if country.fields else ""
        say(f"{country.country:7} {country.name}: by {country.key}{partial}; {country.source}{fields}")
    say(f"versions of the classes: {', '.join(taxonomy_versions())}; {PUBLISHED_VERSION} is of the published dataset")


def show_crop(crop: KnownCrop) -> None:
    """What is known of a crop."""
    say(f"{crop.hcat3 or '(unknown)'} {crop.name}")
    for version, path in crop.path.items():
        steps = " > ".join(f"{one.id} {one.name}" if one.id else "unknown" for one in path)
        say(f"  version {version}: {steps}")
    for one in crop.countries:
        years = f" {one.years}" if one.years else ""
        decided = f" ({one.reason})" if one.reason else ""
        say(f"  {one.country}{years} {one.code}: {one.name or one.english}{decided}")
    for code in crop.hcat4:
        say(f"  HCAT4 {code}")


def told_meaning(hcat3: str | None) -> str:
    """An HCAT3 code in words: `-` for none in the table, `unknown` for an empty one."""
    return "-" if hcat3 is None else hcat3 or "unknown"
