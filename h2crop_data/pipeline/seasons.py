"""Whether the year of a season is over, and which of its months had not happened when it was planned."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from h2crop_data.constants import MONTHS
from h2crop_data.errors import PlanError
from h2crop_data.recipe.model import Recipe

#: How long after its end a year counts as incomplete: archives need some days to list what was acquired last.
CATCH_UP = timedelta(days=14)


def today_utc() -> date:
    """The date of today in UTC."""
    return datetime.now(UTC).date()


def is_complete(season: int, today: date) -> bool:
    """Whether archives can be expected to list everything of a season's year."""
    return today >= date(season + 1, 1, 1) + CATCH_UP


def why_not_yet(recipe: Recipe, season: int, today: date) -> str:
    """Why a season cannot be built yet, and what to do; empty if it can."""
    if is_complete(season, today):
        return ""
    if today.year < season:
        return f"{season} has not begun on {today}"
    if recipe.in_season:
        return ""
    complete = date(season + 1, 1, 1) + CATCH_UP
    return (
        f"{season} is complete on {complete} ({CATCH_UP.days} days after its end, for archives to catch up), today "
        f"is {today}; wait until then, or set `in_season: true` in the recipe to build the months so far"
    )


def check_season(recipe: Recipe, season: int, today: date) -> None:
    """Refuse a season that cannot be built yet. Raises PlanError, which states what to do."""
    reason = why_not_yet(recipe, season, today)
    if reason:
        raise PlanError(f"season {season} cannot be built yet: {reason}")


def planning_date(season: int, today: date) -> date | None:
    """The date that a plan keeps: of a season that is not complete; None for others."""
    return None if is_complete(season, today) else today


def missing_months(season: int, planned: date) -> str:
    """In words, which months of a season had not happened when it was planned, before it was complete."""
    if planned.year > season:
        return f"{season} had only just ended on {planned}: archives may lack its last days"
    ended = f"month {planned.month} of {season} had not ended on {planned}"
    left = MONTHS - planned.month
    if not left:
        return ended
    span = f"month {MONTHS}" if left == 1 else f"months {planned.month + 1}-{MONTHS}"
    return f"{span} of {season} had not happened on {planned}, and month {planned.month} had not ended"
