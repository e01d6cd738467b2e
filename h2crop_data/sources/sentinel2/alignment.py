"""The decision which shifts of dates are corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, isnan
from typing import Any, Literal

from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.date_shifts import DateShifts
from h2crop_data.shift import APPLIED, NO_SHIFT, Shift, what_becomes_of

#: Column of the table of dates that says what became of a shift, and its word for one that would have been applied.
DECISION = "alignment"
ONLY_REPORTED = "reported"


@dataclass(frozen=True)
class Alignment:
    """What a recipe does with shifts."""

    mode: Literal["none", "report", "apply"]
    #: Metres up to which a date is used as it lies.
    limit: float

    def decided(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the table of dates with what becomes of its shift.

        Before it is decided `alignment` is empty, or says why there is no shift that could be trusted.
        """
        if row.get(DECISION) != "":
            return dict(row)
        found = what_becomes_of("", hypot(row["shift_east"], row["shift_north"]), self.limit)
        return {**row, DECISION: ONLY_REPORTED if found == APPLIED and self.mode == "report" else found}


def alignment_of(settings: Sentinel2Settings) -> Alignment:
    """What a recipe does with shifts."""
    return Alignment(settings.alignment, settings.alignment_limit)


def rows_of_shifts(shifts: DateShifts) -> list[dict[str, Any]]:
    """The columns of the table of dates that tell the shifts, a dictionary a date; nothing is decided yet.

    Metres in whole centimetres, by which images are read: libraries differ from machine to machine in last digits.
    """
    columns = {
        "shift_east": (shifts.east, 2),
        "shift_north": (shifts.north, 2),
        "shift_sd": (shifts.uncertainty, 2),
        "shift_spread": (shifts.spread, 2),
        "shift_check": (shifts.check, 2),
        "shift_correlation": (shifts.correlation, 2),
        # Counted, and held against a limit.
        "shift_clear": (shifts.clear, 4),
    }
    return [
        {
            name: None if isnan(values[place]) else round(float(values[place]), digits)
            for name, (values, digits) in columns.items()
        }
        | {DECISION: reason}
        for place, reason in enumerate(shifts.reason)
    ]


def applied_shift(row: Mapping[str, Any]) -> Shift:
    """The shift of a row of the table of dates that is corrected."""
    return Shift(row["shift_east"], row["shift_north"]) if row.get(DECISION) == APPLIED else NO_SHIFT
