"""`h2crop plan`: search, choose and pin, and look at a plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from h2crop_data.cli.console import console, duration, megabytes, print_json, print_table, progress_line
from h2crop_data.errors import UsageError
from h2crop_data.recipe.model import load_recipe

if TYPE_CHECKING:
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


@app.command()
def make(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the plan.")] = None,
    season: Annotated[list[int] | None, typer.Option(help="Other seasons than the recipe's; may be repeated.")] = None,
    extend: Annotated[
        str | None, typer.Option(help="A store: plan only what it does not have, and report what has changed since.")
    ] = None,
    changed: Annotated[
        Literal["report", "rebuild"],
        typer.Option(help="With --extend: list blocks with other inputs today, or plan their samples anew."),
    ] = "report",
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
        raise UsageError("give --out PLAN, or --extend STORE to look at what would be added")
    if changed == "rebuild" and extend is None:
        raise UsageError("--changed goes with --extend STORE")
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
                    what = "were retracted or lie on ground the recipe leaves out"
                    lines.append(f"{found.not_compared} block(s) {what}: not compared")
                notes += [f"season {found.season}: {line}" for line in lines]
    if out:
        for plan in plans:
            save_plan(plan, out)
    show_plans(plans, as_json, notes)
    if out and plans and not as_json:
        console.print(f"plan in {out}; build it with: h2crop build {out} --out {extend or 'STORE'}")


@app.command()
def show(
    plan: Annotated[Path, typer.Argument(help="Folder of a plan.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a plan holds."""
    from h2crop_data.pipeline.plan import load_plans

    show_plans(load_plans(plan), as_json, [])


def show_plans(plans: list[SeasonPlan], as_json: bool, notes: list[str]) -> None:
    """Counts, bytes and time of the seasons of a plan, and what else is to be known."""
    from h2crop_data.pipeline.estimate import estimate
    from h2crop_data.pipeline.source_facts import explain_sources

    summaries = [estimate(plan) for plan in plans]
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
            rows.append([name, f"{amount}, about {duration(read.mask_seconds)} of one worker"])
        rows.append(["time", f"about {duration(summary.seconds)} of one worker"])
        print_table(f"season {plan.season}", ["what", "how much"], rows)
        for reason, count in summary.left_out.items():
            console.print(f"  left out {count} scene(s): {reason}", markup=False, soft_wrap=True)
        if summary.months_without_scenes:
            months = ", ".join(map(str, summary.months_without_scenes))
            console.print(f"  no Sentinel-2 scene in month {months}: these months stay empty")
        for problem in summary.split_problems:
            console.print(f"  split: {problem}", markup=False, soft_wrap=True)
        for line in explain_sources(summary.sources):
            console.print(f"  {line}", markup=False, soft_wrap=True)
    for note in notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
