"""The value of every declared variable in the environment, and names that are probably typing errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from h2crop_data.redaction import without_secrets
from h2crop_data.settings.acting import (
    ArchiveAccount,
    Archives,
    Buckets,
    Builders,
    Estimates,
    Folders,
    Keys,
    Logs,
    Processes,
)
from h2crop_data.settings.others import Deployment, Development, Libraries, PrefectService
from h2crop_data.settings.variables import Settings, Variable

#: Variables that begin so are h2crop's own: one that is not declared is a typing error.
PREFIX = "H2CROP_"
#: Names that are less alike (0 to 1, of difflib, without the prefix) are not suggested.
LIKENESS = 0.6

#: In the order of the table.
GROUPS: tuple[type[Settings], ...] = (
    Folders,
    Builders,
    Logs,
    Estimates,
    Archives,
    ArchiveAccount,
    Keys,
    Buckets,
    Deployment,
    Libraries,
    PrefectService,
    Processes,
    Development,
)


def declared_variables() -> list[Variable]:
    """Every declared variable, in the order of the table."""
    return [one for group in GROUPS for one in group.variables()]


def variable_of_recipe(name: str) -> str | None:
    """The variable that a recipe names as `${NAME}`; None where it is not set."""
    return os.environ.get(name)


@dataclass(frozen=True)
class VariableState:
    """What the environment says of a variable.

    value: as it is in force, without the secrets in addresses, or `not set`; of a secret that is set `set`. source:
    `environment`, `default`, or empty for what is not set and has no default. problem: what is wrong with it, or empty.
    """

    variable: Variable
    value: str
    source: str
    problem: str


def states() -> list[VariableState]:
    """What the environment says of every declared variable."""
    found = []
    for group in GROUPS:
        _, problems = group.examined()
        for name, other in group.pairs:
            problems |= lone_variable(name, other)
        found += [state_of(one, problems) for one in group.variables()]
    return found


def lone_variable(*names: str) -> Mapping[str, str]:
    """What is wrong where one variable of two is set: by the one that is missing."""
    missing = [name for name in names if not os.environ.get(name)]
    if len(missing) != 1:
        return {}
    [there] = set(names) - set(missing)
    return {missing[0]: f"{there} is set without {missing[0]}: set both or neither"}


def state_of(one: Variable, problems: Mapping[str, str]) -> VariableState:
    """What the environment says of one variable."""
    value = one.text_set or one.default
    shown = "set" if one.secret and one.is_set else without_secrets(value) or "not set"
    source = "environment" if one.is_set else "default" if one.default else ""
    return VariableState(one, shown, source, problems.get(one.name, ""))


def unknown_variables() -> dict[str, str]:
    """Variables that look like h2crop's and are not declared: name -> the declared one that is near, empty for none."""
    known = [one.name.removeprefix(PREFIX) for one in declared_variables() if one.name.startswith(PREFIX)]
    typed = sorted(name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    meant = {name: get_close_matches(name, known, 1, LIKENESS) for name in typed if name not in known}
    return {PREFIX + name: PREFIX + near[0] if near else "" for name, near in meant.items()}
