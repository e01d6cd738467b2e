"""The `h2crop` command: verbs, errors, exit codes."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from functools import partial
from typing import Annotated, Any

import typer

from h2crop_data import __version__
from h2crop_data.cli import (
    build,
    compare,
    config,
    enmap,
    export_h5,
    import_h5,
    inspect,
    migrate,
    plan,
    providers,
    recipe,
    refresh,
    relabel,
    retract,
    simulate,
    status,
    validate,
)
from h2crop_data.cli.console import Exit, console, say
from h2crop_data.errors import H2cropError, RecipeError, StoreWarning, UsageError
from h2crop_data.redaction import without_secrets

app = typer.Typer(
    name="h2crop",
    help="Build training cubes for crop mapping from public satellite archives and declared parcels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(recipe.app, name="recipe")
app.add_typer(plan.app, name="plan")
app.add_typer(enmap.app, name="enmap")
app.add_typer(providers.app, name="providers")
app.command("build")(build.build)
app.command("config")(config.config)
app.command("refresh")(refresh.refresh)
app.command("status")(status.status)
app.command("inspect")(inspect.inspect)
app.command("validate")(validate.validate)
app.command("compare")(compare.compare)
app.command("relabel")(relabel.relabel)
app.command("retract")(retract.retract)
app.command("prune")(retract.prune)
app.command("migrate")(migrate.migrate)
app.command("import-h5")(import_h5.import_h5)
app.command("export-h5")(export_h5.export_h5)
app.command("simulate")(simulate.simulate)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        typer.echo(f"h2crop {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Exit codes: 0 done, 1 failed, 2 wrong use, 3 done with gaps that are listed."""


def main() -> None:
    """Run the command; errors that a user can fix are printed without a stack trace."""
    # rasterio warns of scratch datasets that it makes itself, whenever threads undo its silencing.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    warnings.showwarning = partial(show_warning, warnings.showwarning)
    try:
        app()
    except (UsageError, RecipeError) as error:
        sys.exit(tell(error, Exit.WRONG_USE))
    except H2cropError as error:
        sys.exit(tell(error, Exit.FAILED))
    except ModuleNotFoundError as error:
        extra = missing_extra(error.name or "")
        if extra is None:
            raise
        say(
            f"this command needs more than the base install: pip install '.[{extra}]' in a checkout of h2crop ({error})"
        )
        sys.exit(Exit.WRONG_USE)
    except KeyboardInterrupt:
        console.print("stopped; finished work is kept, rerun the same command to continue")
        sys.exit(Exit.FAILED)


def show_warning(
    otherwise: Any, message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any
) -> None:
    """Print a warning about a store in one line, any other as Python does (`otherwise`)."""
    if not issubclass(category, StoreWarning):
        otherwise(message, category, filename, line, *rest)
        return
    console.print("[yellow]warning:[/] ", end="")
    console.print(str(message), markup=False, soft_wrap=True)


def tell(error: H2cropError, code: Exit) -> Exit:
    """Print an error; gives the exit code."""
    console.print("[red]error:[/] ", end="")
    console.print(without_secrets(str(error)), markup=False, soft_wrap=True)
    return code


def missing_extra(module: str) -> str | None:
    """The extra a missing module belongs to, or None where it is none of ours."""
    building = ("affine", "odc", "pyogrio", "pystac", "pystac_client", "rasterio", "requests", "stac_geoparquet")
    extras = {"build": building, "hdf5": ("h5py",), "train": ("torch",)}
    top = module.split(".")[0]
    found = [extra for extra, modules in extras.items() if top in modules and importlib.util.find_spec(top) is None]
    return found[0] if found else None
