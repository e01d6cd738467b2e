"""`h2crop inspect`: the contents of a store, in tables, as JSON, or one sample as a picture."""

from __future__ import annotations

import calendar
from pathlib import Path
from typing import Annotated, Any

import typer

from h2crop_data.cli.console import console, megabytes, print_json, print_table, say
from h2crop_data.errors import UsageError


def inspect(
    store: Annotated[str, typer.Argument(help="Folder, http(s) or s3 URL of a store.")],
    season: Annotated[int | None, typer.Option(help="Season to show in detail (default: the last).")] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="Sample to show: number (from 0), id, or id of its cell (default: the one with the most content)."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw all layers of the sample into this PNG file.", metavar="FILE.png")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the contents of a store: seasons, arrays, clear months, classes, statistics, and one of its samples."""
    from h2crop_data.cube.reading import read_index, store_attributes
    from h2crop_data.report.summary import find_sample, sample_facts, season_of, summarize

    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: expected a name that ends in .png")
    # One release for everything: another one may be made at any moment.
    release = int(store_attributes(store)["release"])
    chosen = season_of(store, season, release)
    samples = read_index(store, f"samples-{chosen}", release)
    facts = sample_facts(samples, find_sample(samples, sample))
    summary = summarize(store, release) | {"season": chosen, "sample": facts}
    if plot is not None:
        from h2crop_data.report.picture import draw_sample

        summary["picture"] = str(draw_sample(store, chosen, facts["number"], plot, release))
    if as_json:
        print_json(summary)
    else:
        show_summary(summary)


def show_summary(summary: dict[str, Any]) -> None:
    """The overview for people: the store, its seasons, one season closely, and one sample."""
    layout = summary["layout"]
    say(
        f"{summary['store']}: release {summary['release']}, format {summary['format_version']}, {summary['software']}; "
        f"{summary['files']} files, {megabytes(summary['bytes'])}"
    )
    say(
        f"cells of {layout['cell_size']} m, {layout['block_capacity']} sample(s) a block, "
        f"compressed with {layout['codec']['name']} level {layout['codec']['level']}"
    )
    show_seasons(summary["seasons"])
    season = summary["seasons"][str(summary["season"])]
    show_arrays(summary["season"], season)
    show_clear_months(summary["season"], season)
    show_labels(summary["season"], season)
    show_training(summary["training"], season["wavelength_nm"])
    show_sample(summary["sample"], season["samples"])
    if "picture" in summary:
        say(f"its picture: {summary['picture']}")


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table after an empty line."""
    console.print()
    print_table(title, columns, rows)


def show_seasons(seasons: dict[str, Any]) -> None:
    """A line a season: samples by split, scenes, size, and where it lies."""
    rows = [
        [
            season,
            str(facts["samples"]),
            ", ".join(f"{name} {count['samples']}" for name, count in facts["splits"].items()),
            str(facts["blocks"]),
            *(scenes_taken(facts["scenes"].get(sensor)) for sensor in ("sentinel2", "enmap")),
            megabytes(facts["bytes"]),
        ]
        for season, facts in seasons.items()
    ]
    show_table("seasons", ["season", "samples", "of split", "blocks", "S2 scenes", "EnMAP scenes", "size"], rows)
    for season, facts in seasons.items():
        west, south, east, north = facts["ground"]["bbox"]
        zones = ", ".join(f"EPSG:{code}" for code in facts["ground"]["epsg"])
        say(
            f"  {season}: longitude {west} to {east}, latitude {south} to {north}, {zones}; "
            f"recipe {facts['recipe']['name']}"
        )


def scenes_taken(counts: dict[str, int] | None) -> str:
    """How many scenes of a sensor were taken of those found."""
    return f"{counts['taken']} of {counts['found']}" if counts else "-"


def show_arrays(season: int, facts: dict[str, Any]) -> None:
    """The arrays of a season."""
    rows = [
        [
            name,
            " × ".join(map(str, array["shape"])),
            array["dtype"],
            str(array["shards"]),
            megabytes(array["bytes"]),
        ]
        for name, array in facts["arrays"].items()
    ]
    show_table(f"arrays of {season}, first axis: slots", ["array", "shape", "dtype", "shards", "size"], rows)


def show_clear_months(season: int, facts: dict[str, Any]) -> None:
    """Share of the pixels with a clear Sentinel-2 observation, month by month."""
    shares = facts["s2_clear_share"]
    if shares is not None:
        row = ["clear", *(f"{share:.0%}" for share in shares)]
        show_table(f"clear Sentinel-2 pixels of {season}", ["", *calendar.month_abbr[1:]], [row])


def show_labels(season: int, facts: dict[str, Any]) -> None:
    """How much is declared and labelled at each tier, and the most frequent classes."""
    if facts["labelled_share"] is None:
        return
    tiers = [f"tier {tier}" for tier in range(1, len(facts["labelled_share"]) + 1)]
    shares = [facts["declared_share"], *facts["labelled_share"]]
    row = ["share", *(f"{share:.1%}" for share in shares)]
    show_table(f"declared and labelled pixels of {season}", ["", "declared", *tiers], [row])
    rows = [
        [one["name"].replace("_", " "), str(one["id"]), str(one["pixels"]), f"{one['share']:.1%}"]
        for one in facts["classes"]
    ]
    show_table(f"most frequent classes of tier 4, {season}", ["class", "id", "pixels", "of the labelled"], rows)


def show_training(training: dict[str, Any], wavelengths: list[float] | None) -> None:
    """Mean and standard deviation of the reflectance over the training split."""
    title = f"reflectance of the split {training['split']}, {training['samples']} sample(s)"
    if "s2" in training:
        bands = training["s2"]
        rows = [
            [key, *("-" if band[key] is None else f"{band[key]:.3f}" for band in bands.values())]
            for key in ("mean", "sd")
        ]
        show_table(title, ["Sentinel-2", *bands], rows)
    if "enmap" in training and wavelengths is not None:
        means = training["enmap"]["mean"]
        known = [mean for mean in means if mean is not None]
        first, last = wavelengths
        span = f"band means {min(known):.3f} to {max(known):.3f}" if known else "no measured pixel"
        say(f"EnMAP of the split {training['split']}: {len(means)} bands from {first:g} to {last:g} nm, {span}")


def show_sample(facts: dict[str, Any], samples: int) -> None:
    """What the index says of one sample."""
    console.print()
    say(f"sample {facts['number']} (of 0 to {samples - 1}): {facts['sample']}")
    west, south, east, north = facts["bbox"]
    say(
        f"  split {facts['split']}, block {facts['block']}, slot {facts['slot']}; longitude {west} to {east}, "
        f"latitude {south} to {north}, EPSG:{facts['epsg']}; scene {facts['scene']}"
    )
    shares = {
        "declared": facts.get("declared_share"),
        "labelled at tier 4": (facts.get("class_share") or [None])[-1],
        "clear Sentinel-2 pixels": mean(facts.get("s2_clear_share")),
        "EnMAP flagged": facts.get("enmap_flagged_share"),
        "EnMAP cloud by enmap_mask": facts.get("enmap_own_cloud_share"),
        "shadow by enmap_mask": facts.get("enmap_own_shadow_share"),
        "EnMAP fill": facts.get("enmap_fill_share"),
    }
    say("  " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share is not None))


def mean(values: list[float] | None) -> float | None:
    """The mean of some values, or None where there are none."""
    return sum(values) / len(values) if values else None
