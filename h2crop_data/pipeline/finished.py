"""Which plans of a store are finished, so that the next release has them, and which blocks are never built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby, takewhile

from h2crop_data.cube.marker import block_path
from h2crop_data.cube.release_numbers import current_attributes
from h2crop_data.cube.retraction import Retractions
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, rebuilt_as
from h2crop_data.storage.storage import BUILD_FOLDER, Storage


def unfinished_blocks(files: Storage, plans: Sequence[SeasonPlan]) -> set[int]:
    """The blocks of a season's plans that have no marker."""
    if not plans:
        return set()
    season = plans[0].season
    names = {name for name, _ in files.names(f"{BUILD_FOLDER}/{season}/")}
    numbers = (block for plan in plans for block in plan.blocks["block"].tolist())
    return {block for block in numbers if f"{block_path(season, block)}.json" not in names}


def finished_parts(files: Storage, parts: Iterable[SeasonPlan], retractions: Retractions) -> list[SeasonPlan]:
    """The plans of one season, in order, up to the first with a block that is neither done nor left unbuilt.

    What the others add or replace is not in the next release. None where no block at all is done.
    """

    def is_finished(plan: SeasonPlan) -> bool:
        return unfinished_blocks(files, [plan]) <= retractions.never_built(plan.season)

    finished = list(takewhile(is_finished, parts))
    blocks = sum(len(plan.blocks) for plan in finished)
    return finished if len(unfinished_blocks(files, finished)) < blocks else []


def finished_plans(files: Storage, plans: Sequence[SeasonPlan], retractions: Retractions) -> list[SeasonPlan]:
    """The same for the plans of several seasons, in order of season and block."""
    return [
        plan
        for _, of_season in groupby(plans, key=lambda plan: plan.season)
        for plan in finished_parts(files, of_season, retractions)
    ]


def refuse_lost_plans(files: Storage, planned: Collection[int]) -> None:
    """Refuse to continue where the newest release has a season whose plan is missing in the store. Raises StoreError.

    The season would drop out of the next release, or be planned again and built over the files of this one.
    planned: the seasons with a plan.
    """
    attributes = current_attributes(files)
    lost = sorted(set() if attributes is None else {int(season) for season in attributes["seasons"]} - set(planned))
    if lost:
        raise StoreError(
            f"{files.location} has lost the plan of {', '.join(map(str, lost))} ({files.where(PLAN_FOLDER)}): "
            "without it the next release would lack released samples or overwrite their files. Restore the folder "
            "from a backup, or build into a new store; this one can be read as it is"
        )


def left_with(plans: Sequence[SeasonPlan], unbuilt: Mapping[int, set[int]]) -> dict[int, set[int]]:
    """By season, the blocks that have to be left out with some that are not built.

    A block that has samples of one that a plan replaces is left out with all others that have some: the old block stays
    in the releases, and a sample must not be there twice. So is what replaces a block that is left out.
    """
    left = {season: set(blocks) for season, blocks in unbuilt.items()}
    for season, blocks in left.items():
        edges = [
            (old, rebuilt_as(reason))
            for plan in plans
            if plan.season == season
            for old, reason in plan.replaces.items()
        ]
        before = -1
        while len(blocks) != before:
            before = len(blocks)
            for old, new in edges:
                if old in blocks or new & blocks:
                    blocks |= new
    return left
