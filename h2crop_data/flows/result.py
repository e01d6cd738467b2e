"""What a run of a flow gives, and the state it ends in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from h2crop_data.errors import CatalogError, H2cropError, HeldStoreError, ReadError
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.redaction import without_secrets
from h2crop_data.validation.findings import Finding

Outcome = Literal["built", "nothing new", "skipped"]


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    outcome: `built` a release (or found the newest to be complete), found `nothing new`, or was `skipped`, because
    another builder has the store. store: as it was given. build: None where the store was held, or has no plan yet.
    waiting: seasons that cannot be built yet, and why. changes: inputs that are not those any more that finished
    blocks were built from. findings: of validating the release.
    """

    outcome: Outcome
    store: str
    build: BuildReport | None = None
    waiting: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class TimeoutHoursError(H2cropError, TimeoutError):
    """A run took longer than it may; what is finished is kept."""


class InvalidReleaseError(H2cropError, RuntimeError):
    """A release was made, and validating it found errors."""


def may_recover(error: BaseException | None) -> bool:
    """Whether it may help to try again: catalogs and archives recover, a failed block may have met a passing fault.

    A wrong recipe, an account that is missing, a plan that does not fit and a full disk stay as they are.
    """
    return isinstance(error, CatalogError | ReadError | BuildError)


def completed_state(result: RunResult) -> State[RunResult]:
    """The state of a run that has done what there was to do: Completed, Gaps, Nothing new or Skipped."""
    report, store = result.build, without_secrets(result.store)
    rest = "".join(f"; waiting: {line}" for line in result.waiting) + "".join(
        f"; changed: {line}" for line in result.changes
    )
    if report is None or result.outcome == "nothing new":
        release = f": release {report.release} is as it was" if report else ""
        return Completed(name="Nothing new", message=f"nothing new for {store}{release}{rest}", data=result)
    text = (
        f"{store}: release {report.release}, {report.built} block(s) built, "
        f"{report.already_done} done before, {report.samples} samples{rest}"
    )
    if report.gaps:
        text += f"; {len(report.gaps)} scene(s) could not be read and were left out: the artifact about gaps lists them"
        return Completed(name="Gaps", message=text, data=result)
    return Completed(message=text, data=result)


def skipped_state(store: str, error: HeldStoreError) -> State[RunResult]:
    """The state of a run that found the store held: the builder that has it goes on, the next run looks again."""
    return Completed(
        name="Skipped", message=f"skipped: {without_secrets(str(error))}", data=RunResult("skipped", store)
    )


def failed_state(error: Exception) -> State[RunResult]:
    """The state of a run that failed; its message begins with what kind of failure it is, and says what may help.

    The names are Prefect's own, Failed and TimedOut: automations that look for these must not miss any.
    """
    kinds: dict[type[Exception], str] = {
        CatalogError: "outage: ",
        ReadError: "outage: ",
        BuildError: "blocks failed: ",
        InvalidReleaseError: "invalid release: ",
    }
    kind = next((words for of_kind, words in kinds.items() if isinstance(error, of_kind)), "")
    after = "; what is finished is kept, the next run goes on" if kind == "outage: " else ""
    name = "TimedOut" if isinstance(error, TimeoutHoursError) else "Failed"
    return Failed(name=name, message=f"{kind}{without_secrets(str(error))}{after}", data=error)
