"""`h2crop export-sample`: one sample as GeoTIFFs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from h2crop_data.cli.console import console, megabytes, print_json


def export_sample(
    store: Annotated[str, typer.Argument(help="Folder, http(s) or s3 URL of the store.")],
    sample: Annotated[str, typer.Argument(help="Id of the sample.", metavar="ID")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    classes: Annotated[
        str | None,
        typer.Option(help="Mapping file, or worldcereal or cdl: write the classes of a mapping as well as the tiers."),
    ] = None,
    release: Annotated[int | None, typer.Option(min=1, help="Release to export (default: the current one).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in this folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export one sample as GeoTIFFs for QGIS and GDAL: images, flags, classes with colours and names, parcels."""
    from h2crop_data.one_sample.geotiffs import write_geotiffs

    report = write_geotiffs(store, sample, folder, classes=classes, release=release, force=force)
    if as_json:
        print_json(asdict(report))
        return
    place = "" if report.georeferenced else "; without coordinates, because the place of the sample is not known"
    console.print(
        f"{report.folder}: sample {report.sample}, release {report.release}: {len(report.files)} files, "
        f"{megabytes(report.bytes)}{place}",
        markup=False,
        soft_wrap=True,
    )
