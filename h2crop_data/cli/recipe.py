"""`h2crop recipe`: the schema of recipes, and checking one."""

from __future__ import annotations

from typing import Annotated

import typer

from h2crop_data.cli.console import print_json, say
from h2crop_data.recipe.model import Recipe, load_recipe

app = typer.Typer(help="Check and show recipes.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors (yaml-language-server: $schema=...)."""
    print_json(Recipe.model_json_schema())


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the recipe with every default filled in.")] = False,
) -> None:
    """Check a recipe without searching or reading anything."""
    checked = load_recipe(recipe)
    if as_json:
        print_json(checked.complete())
    else:
        seasons = ", ".join(map(str, checked.seasons))
        sources = [name for name in ("enmap", "sentinel2", "parcels") if getattr(checked, name) is not None]
        sources += checked.other_sources
        say(f"{recipe} is a valid recipe: {checked.name}, seasons {seasons}, {' + '.join(sources)}")
