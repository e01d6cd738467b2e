"""`h2crop enmap`: find EnMAP scenes, download them, and use products that were downloaded manually."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import Exit, megabytes, print_json, print_table, progress_line, say
from h2crop_data.errors import UsageError
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.settings import Folders

if TYPE_CHECKING:
    from h2crop_data.sources.enmap.added import AddedProducts
    from h2crop_data.sources.enmap.search import SceneSighting, SearchedArea

app = typer.Typer(no_args_is_help=True, help="Find and download EnMAP scenes, or use products on a disk.")

RecipeArgument = Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")]
SeasonOption = Annotated[list[int] | None, typer.Option(help="Season to use instead of the recipe's; may be repeated.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.command()
def search(
    recipe: RecipeArgument,
    season: SeasonOption = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="Write all scenes found to this file as an ItemCollection.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the scenes over a recipe's area: quality, clouds, angles, which ones a build would use, and why not the
    others.

    No account is required, because no file of a scene is opened. A build opens the files, and may then refuse some
    scenes.
    """
    from h2crop_data.catalog.collections import write_items

    chosen = recipe_with_enmap(recipe, season)
    found = searched(chosen, quiet=as_json)
    if items:
        write_items(items, [scene.item for scene in found.scenes])
    if as_json:
        covered = {str(year): share for year, share in found.covered.items()}
        print_json({"scenes": [scene.row() for scene in found.scenes], "covered": covered, "notes": found.notes})
        return
    show_scenes(found)
    if items:
        say(f"{len(found.scenes)} scene(s) in {items}")


@app.command()
def add(
    places: Annotated[
        list[Path], typer.Argument(help="Folders of products, folders of such folders, zip or tar files.")
    ],
    into: Annotated[
        Path, typer.Option("--into", help="ItemCollection that the products are added to, for `enmap.catalog`.")
    ],
    unpack: Annotated[
        Path | None,
        typer.Option("--unpack", help="Folder to unpack archives into (default: ITEMS_products beside ITEMS)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Use products that were downloaded manually: check their files, and describe them in an ItemCollection.

    A product that is already in the collection is replaced. Exit code 3 if some products were refused, 1 if all were.
    """
    from h2crop_data.sources.enmap.added import add_products

    unpacked = unpack or into.with_name(f"{into.stem}_products")
    with progress_line(quiet=as_json) as progress:
        report = add_products(places, into, unpacked, progress)
    if as_json:
        print_json(report.as_json())
    else:
        show_added(report)
    refused = len(report.products) - len(report.used)
    if not report.used:
        raise typer.Exit(Exit.FAILED)
    if refused or report.problems:
        raise typer.Exit(Exit.GAPS)


def show_added(report: AddedProducts) -> None:
    """What became of each product, and where to go on."""
    for product in report.products:
        say(f"{product.status}: {product.name}")
        if product.folder:
            say(f"  in {product.folder}")
        if product.missing:
            say(f"  without {', '.join(product.missing)}")
        if product.reason:
            say(f"  {product.reason}")
    for place, problem in report.problems.items():
        say(f"not read: {place}: {problem}")
    if not report.products:
        say("no EnMAP product found; expected files named ENMAP01-____L2A-...-METADATA.XML and so on")
    if report.used:
        say(f"{len(report.used)} product(s) in {report.into}; in a recipe: enmap: {{catalog: {report.into}}}")


@app.command()
def fetch(
    recipe: RecipeArgument,
    into: Annotated[
        Path, typer.Option("--into", help="ItemCollection that the scenes are added to, for `enmap.catalog`.")
    ],
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of downloaded files, shared by all builds (default: H2CROP_CACHE)."),
    ] = None,
    season: SeasonOption = None,
    scene: Annotated[
        list[str] | None,
        typer.Option(help="Id of a scene: fetch only this one, even if it would not be used; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download the scenes that a build would use, complete and checked, once for all builds. Rerun to continue.

    The account comes from ~/.netrc, or from H2CROP_DOWNLOAD_USER and H2CROP_DOWNLOAD_PASSWORD, or from
    H2CROP_DOWNLOAD_COOKIE. Exit code 3 if some scenes could not be downloaded, 1 if none could.
    """
    from h2crop_data.catalog.downloads import FileCache
    from h2crop_data.sources.enmap.fetch import fetch_scenes

    cache = cache or Folders.read().downloads
    if cache is None:
        raise UsageError("no folder for downloaded files: give --cache FOLDER or set H2CROP_CACHE")
    downloads = FileCache(cache)
    found = searched(recipe_with_enmap(recipe, season), quiet=as_json)
    chosen = chosen_scenes(found, scene or [])
    with progress_line(quiet=as_json) as progress:
        report = fetch_scenes([one.item for one in chosen], downloads, into, progress)
    if as_json:
        print_json(report.as_json())
    else:
        for one in report.scenes:
            came = f"{one.files} file(s), {megabytes(one.bytes)} downloaded, {one.kept} already there"
            say(f"{one.id}: {'incomplete: ' + one.reason if one.reason else came}")
        whole = len(report.scenes) - len(report.failed)
        say(f"{whole} of {len(report.scenes)} scene(s) in {into}")
    if report.failed:
        raise typer.Exit(Exit.GAPS if len(report.failed) < len(report.scenes) else Exit.FAILED)


def chosen_scenes(found: SearchedArea, wanted: list[str]) -> list[SceneSighting]:
    """The scenes to download: those to take, or those asked for. Raises UsageError for one that was not found."""
    if not wanted:
        return [scene for scene in found.scenes if scene.taken]
    unknown = sorted(set(wanted) - {scene.id for scene in found.scenes})
    if unknown:
        raise UsageError(
            f"--scene {unknown[0]}: unknown scene; the catalog does not list it for the recipe's area and seasons"
        )
    return [scene for scene in found.scenes if scene.id in wanted]


def recipe_with_enmap(name: str, seasons: list[int] | None) -> Recipe:
    """A recipe that uses EnMAP, for other seasons where some are given. Raises UsageError, RecipeError."""
    recipe = load_recipe(name)
    if recipe.enmap is None:
        raise UsageError(
            f"{name} has no section `enmap`, which names the catalog and the scenes to use; add it to the recipe"
        )
    return recipe.for_seasons(seasons) if seasons else recipe


def searched(recipe: Recipe, *, quiet: bool) -> SearchedArea:
    """The scenes over a recipe's area."""
    from h2crop_data.grid import LONLAT, to_crs
    from h2crop_data.pipeline.survey import area_of
    from h2crop_data.sources.enmap.search import search_enmap

    assert recipe.enmap is not None
    ground = to_crs(*area_of(recipe.area, recipe.locate), LONLAT)
    with progress_line(quiet=quiet) as progress:
        return search_enmap(recipe.enmap, recipe.locate_catalog, ground, recipe.seasons, progress)


def show_scenes(found: SearchedArea) -> None:
    """A table of each season's scenes, why some are left, and how much of the area those to be taken cover.

    `scene` is datatake and tile, `sun` its elevation, `view` the angle off nadir across the flight, both in degrees.
    """
    columns = ["scene", "date", "version", "quality", "cloud %", "sun", "view", "area %", "use"]
    for season, covered in found.covered.items():
        scenes = [scene for scene in found.scenes if scene.season == season]
        taken = sum(scene.taken for scene in scenes)
        if scenes:
            print_table(f"season {season}", columns, [scene_row(scene) for scene in scenes], texts=("date", "use"))
        for scene in scenes:
            if not scene.taken or scene.warning:
                say(f"  {short_name(scene)}: {scene.warning if scene.taken else scene.reason}")
        say(f"season {season}: {len(scenes)} scene(s), {taken} to use, which cover {covered:.1%} of the area")
    for note in found.notes:
        say(f"warning: {note}")


def short_name(scene: SceneSighting) -> str:
    """Datatake and tile, `24647/025`; the id of what is no product's name."""
    return f"{int(scene.datatake)}/{scene.tile}" if scene.datatake else scene.id


def scene_row(scene: SceneSighting) -> list[str]:
    """A scene in a table; `-` for what its item does not state."""
    return [
        short_name(scene),
        f"{scene.time:%Y-%m-%d}" if scene.time else "not stated",
        scene.version or "-",
        *(
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in (
                (scene.quality, 0),
                (scene.cloud_cover, 0),
                (scene.sun_elevation, 1),
                (scene.across_off_nadir, 1),
                (None if scene.covered is None else 100 * scene.covered, 1),
            )
        ),
        "take" if scene.taken else "leave",
    ]
