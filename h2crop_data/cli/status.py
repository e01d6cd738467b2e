"""`h2crop status`: the state of the build of a store, from another shell."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from h2crop_data.cli.console import Exit, console, duration, megabytes, print_table, say
from h2crop_data.errors import StoreError
from h2crop_data.redaction import without_secrets

if TYPE_CHECKING:
    from h2crop_data.pipeline.build_state import BuildState, SeasonState
    from h2crop_data.pipeline.run_status import RunStatus

#: Exit code of each state.
CODES = {
    "finished": Exit.DONE,
    "running": Exit.RUNNING,
    "stuck": Exit.STUCK,
    "dead": Exit.DEAD,
    "failed": Exit.BUILD_FAILED,
    "not begun": Exit.NOT_BEGUN,
}
COLOURS = {"finished": "green", "running": "green", "not begun": "yellow"}
#: Of lists that a status shows.
LINES_SHOWN = 5
#: Seconds without a sign of life, and without progress, that are worth a word.
SILENCE, IDLENESS = 15.0, 60.0


def status(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    watch: Annotated[
        float | None, typer.Option(min=0.1, help="Repeat every N seconds, until no builder is working.")
    ] = None,
    stuck_after: Annotated[
        float, typer.Option(min=0, help="Minutes without progress after which a build is reported as stuck.")
    ] = 30.0,
    last_run: Annotated[
        bool,
        typer.Option("--last-run", help="Exit with 13 or 12 also if the last run of a finished store failed or died."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the state as JSON; with --watch one line each time.")
    ] = False,
) -> None:
    """Show the state of a build; it only reads the store.

    Exit codes: 0 finished, 10 running, 11 stuck, 12 dead, 13 failed, 14 not begun. A finished store stays finished when
    a later run of it fails, a refresh for instance; with --last-run the exit code is then that of the run.
    """
    from h2crop_data.pipeline.build_state import StoreLook

    look, state = StoreLook(store, stuck_minutes=stuck_after), None
    while True:
        try:
            state = look.look()
        except StoreError as error:
            # What could be read once may be read again: a network that is gone for a while ends no watch.
            if not watch or state is None:
                raise
            say(f"{store} cannot be read now: {without_secrets(str(error))}")
            time.sleep(watch)
            continue
        if as_json:
            sys.stdout.write(state.model_dump_json(indent=None if watch else 1) + "\n")
            sys.stdout.flush()
        else:
            if watch and console.is_terminal:
                console.clear()
            show_state(state)
        if not watch or state.state not in ("running", "stuck"):
            break
        time.sleep(watch)
    raise typer.Exit(exit_code(state, last_run))


def exit_code(state: BuildState, last_run: bool) -> Exit:
    """The exit code of a state. last_run: of a finished store that of its last run."""
    if last_run and state.state == "finished" and state.last_run in ("failed", "dead"):
        return CODES[state.last_run]
    return CODES[state.state]


def show_state(state: BuildState) -> None:
    """A state for people."""
    release = "no release yet" if state.release is None else f"release {state.release}"
    console.print(
        f"{escape(state.store)}: [{COLOURS.get(state.state, 'red')}]{state.state}[/], {release}", soft_wrap=True
    )
    say(f"  {state.explanation}")
    run = state.run
    if run is not None:
        show_run(state, run)
    if state.seasons:
        rows = [[str(number), *season_row(season)] for number, season in state.seasons.items()]
        columns = ["season", "blocks", "done", "samples", "in the release", "scenes left out", "empty months"]
        print_table("", columns, rows, texts=("in the release", "empty months"))
    for number, season in state.seasons.items():
        for reason, count in list(season.scenes_left_out.items())[:LINES_SHOWN]:
            say(f"  season {number}: {count} scene(s) left out: {reason}")
    for block in state.failing[:LINES_SHOWN]:
        say(f"  failing: season {block.season} block {block.block}: {block.error}")
    if run is not None and state.failing and run.failing_blocks > len(state.failing[:LINES_SHOWN]):
        say(f"  and {run.failing_blocks - len(state.failing[:LINES_SHOWN])} more failing block(s)")
    for gap in state.gaps[:LINES_SHOWN]:
        say(f"  gap: {gap} could not be read and was left out")
    if state.gap_scenes > len(state.gaps[:LINES_SHOWN]):
        say(f"  and {state.gap_scenes - len(state.gaps[:LINES_SHOWN])} more scene(s) that could not be read")


def show_run(state: BuildState, run: RunStatus) -> None:
    """What a run does, or did last."""
    if state.state in ("running", "stuck"):
        # How many blocks are done markers tell, which are newer.
        done = f" {run.done:,} of {run.total:,}" if run.total and run.phase != "blocks" else ""
        text = f": {run.doing}" if run.doing else ""
        say(f"  {run.command} since {run.begun:%Y-%m-%d %H:%M:%S} UTC, {run.workers}; {run.phase}{done}{text}")
    if run.blocks_built or run.readings:
        failed = f" ({run.failed_readings} failed)" if run.failed_readings else ""
        verb = "so far" if state.state in ("running", "stuck") else "in the last run"
        say(
            f"  {verb}: {run.blocks_built:,} blocks, {run.samples_built:,} samples, {megabytes(run.bytes_built)}; "
            f"{run.readings:,} readings{failed}, {run.tiles_read:,} tiles, {megabytes(run.bytes_read)} read"
        )
    if state.rate is not None:
        left = "" if state.seconds_left is None else f"; about {duration(state.seconds_left)} left"
        say(
            f"  {state.rate.blocks_per_hour:,.0f} blocks and {state.rate.samples_per_hour:,.0f} samples an hour over "
            f"the last {duration(state.rate.minutes * 60)}{left}"
        )
    if state.state in ("running", "stuck"):
        if state.silent_seconds is not None and state.silent_seconds > max(SILENCE, 1.5 * run.every):
            say(f"  last sign of life {duration(state.silent_seconds)} ago")
        if state.idle_seconds is not None and state.idle_seconds > IDLENESS:
            say(f"  last progress {duration(state.idle_seconds)} ago")
            for one in run.at_work[:LINES_SHOWN]:
                say(f"  assigned to workers at {one.since:%H:%M:%S} UTC: {one.what}")
    elif state.state == "dead":
        say(f"  last sign of life {run.written:%Y-%m-%d %H:%M:%S} UTC")


def season_row(season: SeasonState) -> list[str]:
    """A row of the table of seasons, after the year."""
    share = f"{season.blocks_done / season.blocks:.0%}" if season.blocks else "-"
    return [
        f"{season.blocks_done:,}/{season.blocks:,}",
        share,
        f"{season.samples_done:,}/{season.samples:,}",
        "yes" if season.released else "no",
        f"{sum(season.scenes_left_out.values()):,}",
        ", ".join(map(str, season.empty_months)) or "none",
    ]
