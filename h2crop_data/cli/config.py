"""`h2crop config`: the variables of the environment, where they come from, and what is wrong with them."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Any

import typer

from h2crop_data.cli.console import Exit, print_json, say
from h2crop_data.settings import VariableState, states, unknown_variables


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show the environment variables that h2crop and its libraries read; for secrets only whether they are set.

    Exit code 1 if a variable is invalid, or unknown although it begins with H2CROP_.
    """
    found, unknown = states(), unknown_variables()
    problems = [state.problem for state in found if state.problem]
    problems += [
        f"unknown variable {name}: nothing reads it" + (f"; did you mean {nearest}?" if nearest else "")
        for name, nearest in unknown.items()
    ]
    if as_json:
        print_json({"variables": [described_state(state) for state in found], "unknown": unknown, "problems": problems})
    else:
        width = max(len(state.variable.name) for state in found)
        for title, states_of_group in groupby(found, lambda state: state.variable.group):
            say(title)
            for state in states_of_group:
                origin = ", ".join(
                    filter(None, (state.source, "the variable is empty" if state.variable.is_empty else ""))
                )
                say(f"  {state.variable.name:{width}}  {state.value}{f' ({origin})' if origin else ''}")
        for problem in problems:
            say(f"wrong: {problem}")
    if problems:
        raise typer.Exit(Exit.FAILED)


def described_state(state: VariableState) -> dict[str, Any]:
    """A variable as JSON; `value` of a secret is `set` or `not set`."""
    one = state.variable
    return {
        "name": one.name,
        "set": one.is_set,
        "empty": one.is_empty,
        "value": state.value,
        "source": state.source,
        "problem": state.problem,
        "secret": one.secret,
        "default": one.default,
        "read_by": one.read_by,
        "meaning": one.text,
    }
