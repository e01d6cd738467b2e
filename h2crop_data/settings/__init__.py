"""Settings by environment: each variable that h2crop or a library under it reads, declared once and checked when read.

docs/configuration.md is written from these declarations, `h2crop config` shows what is set. Variables are read at the
time of use, a group at a time, so that a wrong one stops only what needs it.
"""

from h2crop_data.settings.acting import (
    ACCOUNT_HOST,
    SCRATCH_BYTES,
    WORK_BYTES,
    ArchiveAccount,
    Archives,
    Buckets,
    Builders,
    Estimates,
    Folders,
    Keys,
    Logs,
    Processes,
    forget_empty_keys,
    scheduler_address,
    session_cookies,
)
from h2crop_data.settings.environment import (
    GROUPS,
    VariableState,
    declared_variables,
    states,
    unknown_variables,
    variable_of_recipe,
)
from h2crop_data.settings.variables import Variable, shown_default, text_of

__all__ = [
    "ACCOUNT_HOST",
    "GROUPS",
    "SCRATCH_BYTES",
    "WORK_BYTES",
    "ArchiveAccount",
    "Archives",
    "Buckets",
    "Builders",
    "Estimates",
    "Folders",
    "Keys",
    "Logs",
    "Processes",
    "Variable",
    "VariableState",
    "declared_variables",
    "forget_empty_keys",
    "scheduler_address",
    "session_cookies",
    "shown_default",
    "states",
    "text_of",
    "unknown_variables",
    "variable_of_recipe",
]
