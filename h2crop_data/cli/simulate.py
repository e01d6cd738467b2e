"""`h2crop simulate`: a synthetic region with known truth, in the archives' formats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from h2crop_data.cli.console import duration, megabytes, print_json, progress_line, say
from h2crop_data.errors import UsageError


def show_schema(wanted: bool) -> None:
    """Print the JSON schema of the settings and exit."""
    if wanted:
        from h2crop_data.simulate.settings import Simulation

        print_json(Simulation.model_json_schema())
        raise typer.Exit


def simulate(
    folder: Annotated[Path, typer.Argument(help="Folder of the region; an unfinished region is continued.")],
    settings: Annotated[Path | None, typer.Option(help="YAML file of settings; options override it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the region (default 0).")] = None,
    season: Annotated[
        list[int] | None, typer.Option(help="Calendar year to simulate; may be repeated (default 2022).")
    ] = None,
    cells: Annotated[int | None, typer.Option(help="Number of cells (default 16).")] = None,
    dates: Annotated[int | None, typer.Option(help="Sentinel-2 dates in each month (default 3).")] = None,
    scenes: Annotated[int | None, typer.Option(help="EnMAP passes a season (default 2).")] = None,
    cloudiness: Annotated[float | None, typer.Option(help="Mean share of ground under cloud (default 0.35).")] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(help="Shift of EnMAP in metres `east,north`; repeated for further passes (default drawn)."),
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Sentinel-2 processing baselines of successive dates (default by date).")
    ] = None,
    l1c: Annotated[bool | None, typer.Option("--l1c/--no-l1c", help="Also write Sentinel-2 L1C.")] = None,
    natural: Annotated[
        bool | None,
        typer.Option(
            "--natural/--plain",
            help=(
                "Clouds and ground as hard to mask as in real images (default), or plain ones (default of settings "
                "files)."
            ),
        ),
    ] = None,
    date_shifts: Annotated[
        bool | None,
        typer.Option(
            "--date-shifts/--no-date-shifts",
            help="Shift Sentinel-2 dates by some metres, as in real images (default with --natural).",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Scenes simulated at the same time (default: one per core).")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", callback=show_schema, is_eager=True, help="Print all settings and exit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a synthetic region: catalogs, products, parcels, their truth, and a recipe that builds it."""
    from h2crop_data.simulate.region import simulate_region
    from h2crop_data.simulate.settings import load_settings

    given: dict[str, Any] = {
        "seed": seed,
        "seasons": season or None,
        "cells": cells,
        "sentinel2.dates_per_month": dates,
        "enmap.scenes": scenes,
        "sentinel2.sky.cloudiness": cloudiness,
        "enmap.shifts": [metres(text) for text in shift] if shift else None,
        "sentinel2.baselines": baseline or None,
        "sentinel2.l1c": l1c,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= kinds_of_region(folder, settings, natural, date_shifts)
    wanted = load_settings(settings, changes)
    with progress_line(quiet=as_json) as progress:
        report = simulate_region(wanted, folder, workers=workers, progress=progress)
    if as_json:
        print_json(asdict(report))
        return
    seasons = ", ".join(map(str, report.seasons))
    say(
        f"{report.folder}: season {seasons}, {report.cells} cells, {report.sentinel2} Sentinel-2 granules, "
        f"{report.enmap} EnMAP tiles, {report.parcels} parcels; {megabytes(report.bytes)} in {duration(report.seconds)}"
    )
    say(f"Build it: h2crop build {report.recipe} --out STORE")


def kinds_of_region(
    folder: Path, settings: Path | None, natural: bool | None, date_shifts: bool | None
) -> dict[str, Any]:
    """Settings of whether a region is natural, and whether its dates are shifted; None: not stated.

    Then a new region without a settings file is both, and one that was begun stays what it is.
    """
    from h2crop_data.simulate.region import SETTINGS
    from h2crop_data.simulate.settings import read_settings

    own = read_settings(settings) if settings else {}
    begun = read_settings(folder / SETTINGS) if (folder / SETTINGS).is_file() else None
    if natural is None and settings is None:
        natural = begun is None or stated(begun, "natural") is not None
    if date_shifts is None and natural is not None:
        date_shifts = natural if begun is None else stated(begun, "sentinel2.geometry") is not None
    changes: dict[str, Any] = {}
    for name, wanted in (("natural", natural), ("sentinel2.geometry", date_shifts)):
        if wanted is False:
            changes[name] = None
        elif wanted and stated(own, name) is None:
            changes[name] = {}
    return changes


def stated(document: dict[str, Any], name: str) -> Any:
    """What a settings file states for `sentinel2.geometry`; None where it states nothing."""
    place: Any = document
    for key in name.split("."):
        place = place.get(key) if isinstance(place, dict) else None
    return place


def metres(text: str) -> list[float]:
    """`east,north` as two numbers. Raises UsageError for anything else."""
    try:
        east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--shift {text!r}: expected two numbers in metres, such as `7.5,-3`") from error
    return [east, north]
