"""`h2crop plan`: search, choose and pin scenes, and show a plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from h2crop_data.cli.console import duration, megabytes, print_json, print_table, progress_line, say
from h2crop_data.constants import ARCHIVE_BYTES_A_SECOND, REQUEST_SECONDS
from h2crop_data.errors import UsageError
from h2crop_data.recipe.model import load_recipe
from h2crop_data.settings import Folders

if TYPE_CHECKING:
    from h2crop_data.pipeline.estimate import Estimate
    from h2crop_data.pipeline.plan import SeasonPlan


class PlanGroup(TyperGroup):
    """`h2crop plan RECIPE` is `h2crop plan make RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Put `make` before anything that is no subcommand."""
        if args and args[0] not in self.commands and args[0] not in ("--help",):
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PlanGroup, no_args_is_help=True, help="Plan a build (`h2crop plan RECIPE --out PLAN`), or show a plan."
)

#: What an estimate is made for, of both commands.
WorkersOption = Annotated[
    list[int] | None,
    typer.Option(
        "--workers",
        min=1,
        help=(
            "Estimate hours for this number of workers, one core each; may be repeated (default: 1, and one per core)."
        ),
    ),
]
RequestOption = Annotated[
    float | None,
    typer.Option(
        "--request-seconds",
        min=0,
        help=f"Seconds until an archive answers a request (default: H2CROP_REQUEST_SECONDS, else {REQUEST_SECONDS:g}).",
    ),
]
SpeedOption = Annotated[
    float | None,
    typer.Option(
        "--mb-per-second",
        min=0.001,
        help=(
            "Megabytes a second from archives to all workers together (default: H2CROP_MB_PER_SECOND, else "
            f"{ARCHIVE_BYTES_A_SECOND / 1e6:g})."
        ),
    ),
]
PriceHourOption = Annotated[
    float | None,
    typer.Option("--price-hour", min=0, help="Price of an hour of one worker (default: H2CROP_PRICE_HOUR, else none)."),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        "--price-gb", min=0, help="Price of a gigabyte from an archive (default: H2CROP_PRICE_GB, else none)."
    ),
]


@app.command()
def make(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the plan.")] = None,
    season: Annotated[
        list[int] | None, typer.Option(help="Season to plan instead of the recipe's; may be repeated.")
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(help="Existing store: plan only what it lacks, and report what has changed since it was built."),
    ] = None,
    changed: Annotated[
        Literal["report", "rebuild"],
        typer.Option(help="With --extend: list blocks whose inputs have changed, or plan to rebuild their samples."),
    ] = "report",
    workers: WorkersOption = None,
    request_seconds: RequestOption = None,
    mb_per_second: SpeedOption = None,
    price_hour: PriceHourOption = None,
    price_gb: PriceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Search the catalogs, choose scenes, cells and parcels, pin them, and show counts, bytes and time."""
    from h2crop_data.pipeline.changes import explain_changes
    from h2crop_data.pipeline.extension import plan_extensions
    from h2crop_data.pipeline.plan import save_plan
    from h2crop_data.pipeline.planning import make_plan

    chosen = load_recipe(recipe)
    if season:
        chosen = chosen.for_seasons(season)
    if out is None and extend is None:
        raise UsageError("give --out PLAN to write a plan, or --extend STORE to show what would be added")
    if changed == "rebuild" and extend is None:
        raise UsageError("--changed requires --extend STORE")
    notes: list[str] = []
    plans = []
    with progress_line(quiet=as_json) as progress:
        if extend is None:
            plans = [make_plan(chosen, year, progress) for year in sorted(chosen.seasons)]
        else:
            for found in plan_extensions(chosen, extend, progress, changed=changed):
                plans += [found.plan] if found.plan else []
                lines = [] if found.plan else ["the store has every sample of the recipe; nothing to add"]
                lines += explain_changes(chosen, found.changed, extend, changed)
                if found.not_compared:
                    lines.append(
                        f"{found.not_compared} block(s) not compared: retracted, or on ground outside the recipe"
                    )
                notes += [f"season {found.season}: {line}" for line in lines]
    if out:
        for plan in plans:
            save_plan(plan, out)
    reckoning = Reckoning(workers, request_seconds, mb_per_second, price_hour, price_gb)
    show_plans(plans, as_json, notes, reckoning)
    if out and plans and not as_json:
        say(f"plan in {out}; build it with: h2crop build {out} --out {extend or 'STORE'}")


@app.command()
def show(
    plan: Annotated[Path, typer.Argument(help="Folder of a plan.")],
    workers: WorkersOption = None,
    request_seconds: RequestOption = None,
    mb_per_second: SpeedOption = None,
    price_hour: PriceHourOption = None,
    price_gb: PriceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the contents of a plan."""
    from h2crop_data.pipeline.plan import load_plans

    reckoning = Reckoning(workers, request_seconds, mb_per_second, price_hour, price_gb)
    show_plans(load_plans(plan), as_json, [], reckoning)


@dataclass(frozen=True)
class Reckoning:
    """What estimates are made with; None for what the environment says."""

    workers: list[int] | None
    request_seconds: float | None
    mb_per_second: float | None
    price_hour: float | None
    price_gb: float | None

    def of(self, plan: SeasonPlan) -> Estimate:
        """What a plan amounts to."""
        from h2crop_data.pipeline.engine import Workers
        from h2crop_data.pipeline.estimate import estimate, known_line, known_prices

        return estimate(
            plan,
            self.workers or (1, Workers.of(None).number),
            known_line(self.request_seconds, self.mb_per_second),
            known_prices(self.price_hour, self.price_gb),
        )


def show_plans(plans: list[SeasonPlan], as_json: bool, notes: list[str], reckoning: Reckoning) -> None:
    """Counts, bytes and time of the seasons of a plan, and what else is to be known."""
    from h2crop_data.pipeline.source_facts import explain_sources

    summaries = [reckoning.of(plan) for plan in plans]
    if as_json:
        found = {str(plan.season): asdict(summary) for plan, summary in zip(plans, summaries, strict=True)}
        print_json({**found, "notes": notes} if notes else found)
        return
    for plan, summary in zip(plans, summaries, strict=True):
        rows = [[name.replace("_", " "), str(value)] for name, value in summary.counts.items()]
        rows += [[f"scenes from {name}", str(count)] for name, count in summary.catalogs.items()]
        rows.append(["size", f"about {megabytes(summary.bytes)} ({megabytes(summary.raw_bytes)} raw)"])
        read = summary.to_read
        if read.tiles:
            requests = f", {read.requests:,} requests" if read.requests else ""
            rows.append(["to read", f"at most {megabytes(read.bytes)} in {read.tiles:,} tiles{requests}"])
        if read.mask_dates:
            amount = f"{read.mask_dates:,} date(s) of processing tiles, at most {megabytes(read.mask_bytes)}"
            shifts = getattr(plan.recipe.sentinel2, "alignment", "none") != "none"
            name = "masks and shifts" if shifts else "cloud masks"
            rows.append([name, amount])
        rows += rows_of_build(summary)
        print_table(f"season {plan.season}", ["what", "how much"], rows)
        for reason, count in summary.left_out.items():
            say(f"  left out {count} scene(s): {reason}")
        if summary.months_without_scenes:
            months = ", ".join(map(str, summary.months_without_scenes))
            say(f"  no Sentinel-2 scene in month {months}; these months stay empty")
        for problem in summary.split_problems:
            say(f"  split: {problem}")
        for line in explain_sources(summary.sources):
            say(f"  {line}")
    for note in notes:
        say(f"  {note}")


def rows_of_build(summary: Estimate) -> list[list[str]]:
    """What a build reads, writes and takes."""
    asked = f", {megabytes(summary.remote_bytes)} of them in {summary.requests:,} requests" if summary.requests else ""
    bound = Folders.read().work_bytes
    beyond = (
        f" (above its limit of {megabytes(bound)}, because blocks need these results)"
        if summary.work_bytes > bound
        else ""
    )
    rows = [
        ["to read in all", f"about {megabytes(summary.bytes_to_read)}{asked}"],
        ["to write", f"about {megabytes(summary.bytes_to_write)}"],
        ["work folder, at most", megabytes(summary.work_bytes) + beyond],
        ["scratch folder, at most", megabytes(summary.scratch_bytes)],
    ]
    for number, found in summary.on_workers.items():
        cost = "" if found.cost is None else f", cost {found.cost:,.2f}"
        rows.append([f"time on {number} worker(s)", f"about {duration(3600 * found.hours)}{cost}"])
    return rows
