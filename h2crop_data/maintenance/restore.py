"""Restoring the root of a store from its copy in the index of a release."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from h2crop_data.cube.release_numbers import ROOT, copied_releases, copy_of_root, current_attributes, problem_of_copy
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestoreReport:
    """The report of restoring a root.

    store: as it was given. release: number of the release whose root is in place now. before: number that the root
    stated; None where it was lost or damaged. restored: whether the root was written; False where it was in place.
    """

    store: str
    release: int
    before: int | None
    restored: bool


def restore_root(store: str | Path, release: int | None = None) -> RestoreReport:
    """Put the copy of the newest root, or that of a release, in the place of a lost, damaged or older root.

    The copy must be whole: its manifest has the bytes and SHA-256 that it states, and all files of its index exist.
    Raises PlanError for a release without a copy of its root, StoreError where the copy is not whole, a newer release
    exists, or the store has no builder's files.
    """
    storage = open_storage(store)
    if next(storage.names(f"{BUILD_FOLDER}/"), None) is None:
        raise StoreError(
            f"{store} has no {BUILD_FOLDER}/: it is a copy, or not a store; copy {ROOT} again from its origin"
        )
    with storage.hold():
        copies = copied_releases(storage)
        if not copies:
            raise StoreError(f"{store} has no copy of a root in index/; restore {storage.where(ROOT)} from a backup")
        chosen = max(copies) if release is None else release
        if chosen not in copies:
            raise PlanError(f"{store} has no root of release {chosen}; it has those of {', '.join(map(str, copies))}")
        whole = [number for number in copies if number > chosen and not problem_of_copy(storage, number)]
        if whole:
            raise StoreError(
                f"{store} has release {whole[-1]}, which is newer than {chosen}, and its root can be restored: run "
                f"`h2crop restore {store}`. Older releases are opened by their number (release={chosen})"
            )
        refuse_damaged_copy(storage, chosen, copies)
        before = stated_release(storage)
        if before is not None and before > chosen:
            raise StoreError(f"the root of {store} is that of release {before}, which is newer than {chosen}")
        data = storage.read(copy_of_root(chosen))
        restored = not storage.exists(ROOT) or storage.read(ROOT) != data
        if restored:
            storage.replace(ROOT, [data])
            log.info("%s: the root is that of release %d; before: %s", store, chosen, before)
        return RestoreReport(str(store), chosen, before, restored)


def refuse_damaged_copy(storage: Storage, release: int, copies: list[int]) -> None:
    """Refuse a copy of a root that cannot take the place of the root. Raises StoreError, which names one that can."""
    problem = problem_of_copy(storage, release)
    if not problem:
        return
    others = [number for number in copies if number < release and not problem_of_copy(storage, number)]
    remedy = f", or restore the one before with --release {others[-1]}" if others else ""
    raise StoreError(
        f"the root of release {release} of {storage.location} cannot be restored: {problem}. Restore that file from a "
        f"backup{remedy}"
    )


def stated_release(storage: Storage) -> int | None:
    """The release that the root states; None where it is lost or damaged."""
    try:
        attributes = current_attributes(storage)
        return None if attributes is None else int(attributes["release"])
    except (StoreError, ValueError):
        return None
