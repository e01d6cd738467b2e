"""The status of a run while it works: `.build/status.json`, for readers outside the run.

No release has it. The run that has locked the store replaces it as a whole, and it has nothing about other runs.
Markers show which blocks are done, the lock shows the builder; this file has everything else.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

STATUS_FILE = f"{BUILD_FOLDER}/status.json"
#: Raised where what is there already gets another meaning; what is added does not raise it.
STATUS_VERSION = 1
#: Entries of each list in a status.
LISTED = 20


class StatusPart(BaseModel):
    """Keys that a later h2crop adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class AtWork(StatusPart):
    """A block or reading that was given to workers, and when (UTC)."""

    what: str
    since: datetime


class FailingBlock(StatusPart):
    """A block that this run could not build, and the first lines of why."""

    season: int
    block: int
    error: str


class DonePoint(StatusPart):
    """How many blocks and samples this run had built at a time (UTC)."""

    time: datetime
    blocks: int
    samples: int


class RunStatus(StatusPart):
    """What a run says of itself; times in UTC by the clock of its machine."""

    version: Literal[1]
    #: What no other run has.
    run: str
    #: Of the lock of the store.
    hold: str
    command: str
    software: str
    host: str
    process: int
    begun: datetime
    #: When this was written, and after how many seconds it is written again while the run lives.
    written: datetime
    every: float
    #: When work went on last: something was finished, begun, or told.
    progressed: datetime
    #: `working` until the run ends, in whichever way it can tell.
    state: Literal["working", "finished", "failed", "interrupted"]
    #: Why it failed.
    error: str = ""
    #: The release it made, or found to be up to date.
    release: int | None = None
    #: `starting`, `planning`, `units`, `blocks`, `sealing`, `ended`; of a run that failed the one in which it did.
    phase: str
    phase_begun: datetime
    #: How far the phase is, and with what.
    done: int = 0
    total: int = 0
    doing: str = ""
    workers: str = ""
    #: Of this run.
    blocks_built: int = 0
    samples_built: int = 0
    bytes_built: int = 0
    readings: int = 0
    failed_readings: int = 0
    tiles_read: int = 0
    bytes_read: int = 0
    #: The first ones of those, and how many there are.
    failing: list[FailingBlock] = Field(default_factory=list)
    failing_blocks: int = 0
    #: What workers were given first and have not ended.
    at_work: list[AtWork] = Field(default_factory=list)
    #: Of the last hour, about one a minute.
    recent: list[DonePoint] = Field(default_factory=list)
    #: Seconds of workers by step (`sources.timing.BUILD_STEPS`), but for units of work that are not gathered yet.
    steps: dict[str, float] = Field(default_factory=dict)
    #: Scenes that could not be read and were left out: of the release that was made, until then of the blocks that are
    #: done. The first ones, and how many there are.
    gaps: list[str] = Field(default_factory=list)
    gap_scenes: int = 0
    #: Until when the run waits before it tries something again.
    paused_until: datetime | None = None


def read_status(storage: Storage) -> RunStatus | None:
    """What the last run said; None where none said anything.

    Raises StoreError where the file cannot be read, is damaged or of another version.
    """
    try:
        document = storage.read_json(STATUS_FILE)
    except MissingFileError:
        return None
    version = document.get("version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > STATUS_VERSION:
        raise StoreError(
            f"{storage.where(STATUS_FILE)} is of version {version}, written by a newer h2crop; this one reads "
            f"version {STATUS_VERSION}: use the h2crop that builds"
        )
    try:
        return RunStatus.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{storage.where(STATUS_FILE)} is damaged ({place}: {first['msg']}); delete it, the next run writes it "
            "again"
        ) from error
