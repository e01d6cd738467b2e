"""The result of a flow run, and its final state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from h2crop_data.errors import (
    ArchiveOutageError,
    CatalogOutageError,
    H2cropError,
    HeldStoreError,
    IncompleteSearchError,
    ReadError,
    StoreOutageError,
)
from h2crop_data.flows.deadline import TimeoutHoursError
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BuildError, WorkerDiedError
from h2crop_data.redaction import without_secrets
from h2crop_data.validation.findings import Finding

Outcome = Literal["built", "nothing new", "skipped"]
#: A catalog, an archive or a bucket did not answer.
OUTAGES = (CatalogOutageError, ArchiveOutageError, StoreOutageError)
#: What may be otherwise a moment later: of an archive also a file that was refused or came damaged, of a catalog also
#: pages that do not fit together, as it was written to meanwhile; of a block any fault that nobody foresaw.
PASSING = (CatalogOutageError, IncompleteSearchError, ReadError, BuildError)


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    outcome: `built` a release (or found the newest to be complete), found `nothing new`, or was `skipped`, because
    another builder has the store. store: as it was given. build: None where the store was locked, or has no plan yet.
    new_samples: by season, samples that this run planned and the store did not have. rebuilt: by season, blocks whose
    samples it planned again. waiting: seasons that cannot be built yet, and why. failed_seasons: seasons that could not
    be planned, with the error. changes: inputs of finished blocks that have changed. findings: of validating the
    release.
    """

    outcome: Outcome
    store: str
    build: BuildReport | None = None
    new_samples: dict[int, int] = field(default_factory=dict)
    rebuilt: dict[int, list[int]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    failed_seasons: dict[int, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class InvalidReleaseError(H2cropError, RuntimeError):
    """A release was made, and validating it found errors."""


class UnplannedSeasonsError(H2cropError, RuntimeError):
    """Seasons could not be planned; all others were built and released."""


class UnforeseenError(H2cropError, RuntimeError):
    """An unexpected error of a library or of this package, without secrets."""


def may_recover(error: BaseException | None) -> bool:
    """Whether it may help to try again in the same run.

    A wrong recipe or catalog, an account that is missing, a plan that does not fit and a full disk stay as they are; a
    bucket was asked for minutes before it was given up.
    """
    return isinstance(error, PASSING)


def means_outage(error: BaseException | None) -> bool:
    """Whether the only cause is that something did not answer; of failed blocks: for each of them."""
    if isinstance(error, BuildError) and error.failed:
        return all(isinstance(outcome.error, OUTAGES) for outcome in error.failed)
    return isinstance(error, OUTAGES)


def completed_state(result: RunResult) -> State[RunResult]:
    """The state of a run that has done what there was to do: Completed, Gaps, Nothing new or Skipped."""
    report, store = result.build, without_secrets(result.store)
    rest = "".join(f"; waiting: {line}" for line in result.waiting) + "".join(
        f"; changed: {line}" for line in result.changes
    )
    if report is None or result.outcome == "nothing new":
        release = f": release {report.release} is unchanged" if report else ""
        return Completed(name="Nothing new", message=f"nothing new for {store}{release}{rest}", data=result)
    text = (
        f"{store}: release {report.release}, {report.built} block(s) built, {report.already_done} already built, "
        f"{report.samples} samples{new_in_words(result)}{rest}"
    )
    if report.gaps:
        text += f"; {len(report.gaps)} scene(s) could not be read and were left out: see the artifact about gaps"
        return Completed(name="Gaps", message=text, data=result)
    return Completed(message=text, data=result)


def new_in_words(result: RunResult) -> str:
    """What a run planned that is new."""
    new, again = sum(result.new_samples.values()), sum(map(len, result.rebuilt.values()))
    return (f", {new} of them new" if new else "") + (f"; {again} block(s) rebuilt" if again else "")


def skipped_state(store: str, error: HeldStoreError) -> State[RunResult]:
    """The state of a run that found the store locked: the other builder continues, the next run tries again."""
    return Completed(
        name="Skipped", message=f"skipped: {without_secrets(str(error))}", data=RunResult("skipped", store)
    )


def failed_state(error: Exception) -> State[RunResult]:
    """The state of a run that failed; its message begins with what kind of failure it is, and says what may help.

    The names are Prefect's own, Failed and TimedOut: automations that look for these must not miss any.
    """
    kinds: dict[type[Exception], str] = {
        WorkerDiedError: "worker died: ",
        BuildError: "blocks failed: ",
        InvalidReleaseError: "invalid release: ",
        UnplannedSeasonsError: "seasons failed: ",
        UnforeseenError: "unforeseen: ",
    }
    kind = next((words for of_kind, words in kinds.items() if isinstance(error, of_kind)), "")
    after = ""
    if means_outage(error):
        kind, after = "outage: ", "; finished work is kept, the next run continues"
    name = "TimedOut" if isinstance(error, TimeoutHoursError) else "Failed"
    return Failed(name=name, message=f"{kind}{without_secrets(str(error))}{after}", data=error)
