"""The `h2crop` command: verbs, errors, exit codes."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
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
    export_sample,
    import_h5,
    inspect,
    migrate,
    parcels,
    plan,
    providers,
    recipe,
    refresh,
    relabel,
    restore,
    retract,
    simulate,
    status,
    taxonomy,
    validate,
)
from h2crop_data.cli.console import Exit, console, say
from h2crop_data.cli.logs import OPEN, LoggedGroup, command_log
from h2crop_data.errors import H2cropError, RecipeError, StoreWarning, UsageError
from h2crop_data.logs import ALREADY_SHOWN
from h2crop_data.redaction import without_secrets

log = logging.getLogger(__name__)
app = typer.Typer(
    name="h2crop",
    cls=LoggedGroup,
    help="Build training cubes for crop mapping from public satellite archives and declared parcels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(recipe.app, name="recipe")
app.add_typer(plan.app, name="plan")
app.add_typer(enmap.app, name="enmap")
app.add_typer(parcels.app, name="parcels")
app.add_typer(providers.app, name="providers")
app.add_typer(taxonomy.app, name="taxonomy")
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
app.command("restore")(restore.restore)
app.command("migrate")(migrate.migrate)
app.command("import-h5")(import_h5.import_h5)
app.command("export-h5")(export_h5.export_h5)
app.command("export-sample")(export_sample.export_sample)
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
    begun = time.monotonic()
    with command_log():
        try:
            code = run_command()
        except Exception:
            log.critical("stopped by an unexpected error", exc_info=True, extra=ALREADY_SHOWN)
            if not OPEN[-1].as_json:
                raise
            code = Exit.FAILED
        log.info("ended with exit code %d after %.1f s", code, time.monotonic() - begun)
    sys.exit(code)


def run_command() -> int:
    """Run the command; gives its exit code, after errors a user can act on were printed."""
    try:
        app()
    except SystemExit as ended:
        # As Python takes it: None is 0, and what is no number is printed, with 1.
        return ended.code if isinstance(ended.code, int) else Exit(bool(ended.code))
    except (UsageError, RecipeError) as error:
        return tell(error, Exit.WRONG_USE)
    except H2cropError as error:
        return tell(error, Exit.FAILED)
    except ModuleNotFoundError as error:
        extra = missing_extra(error.name or "")
        if extra is None:
            raise
        text = f"this command needs more than the base install: pip install '.[{extra}]' in a checkout of h2crop"
        return tell(f"{text} ({error})", Exit.WRONG_USE, title="")
    except KeyboardInterrupt:
        text = "stopped; finished work is kept, rerun the same command to continue"
        return tell(text, Exit.FAILED, title="")
    return Exit.DONE


def show_warning(
    otherwise: Any, message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any
) -> None:
    """Print a warning about a store in one line, any other as Python does (`otherwise`), and log it."""
    is_of_store = issubclass(category, StoreWarning)
    place = "" if is_of_store else f" ({category.__name__}, {filename}:{line})"
    log.warning("%s%s", message, place, extra=ALREADY_SHOWN)
    if OPEN and OPEN[-1].as_json:
        return
    if not is_of_store:
        otherwise(message, category, filename, line, *rest)
        return
    console.print("[yellow]warning:[/] ", end="")
    say(str(message))


def tell(error: H2cropError | str, code: Exit, title: str = "error: ") -> Exit:
    """Print and log why a command did not do its work; gives the exit code."""
    text = without_secrets(str(error))
    log.error("%s", text, extra=ALREADY_SHOWN)
    if not OPEN[-1].as_json:
        console.print(f"[red]{title}[/]", end="")
        say(text)
    return code


def missing_extra(module: str) -> str | None:
    """The extra a missing module belongs to, or None where it is none of ours."""
    building = ("affine", "odc", "pyogrio", "pystac", "pystac_client", "rasterio", "requests", "stac_geoparquet")
    extras = {"build": building, "hdf5": ("h5py",), "train": ("torch",)}
    top = module.split(".")[0]
    found = [extra for extra, modules in extras.items() if top in modules and importlib.util.find_spec(top) is None]
    return found[0] if found else None
