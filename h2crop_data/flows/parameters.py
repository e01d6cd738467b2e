"""Parameters of the flows, checked by pydantic before a run begins: a wrong one ends the run at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from h2crop_data.pipeline.engine import Workers
from h2crop_data.recipe.model import load_recipe
from h2crop_data.settings import scheduler_address
from h2crop_data.storage.location import open_storage

#: Seconds before what failed for a reason that may pass is tried again: once for each.
RETRY_SECONDS: list[float] = [60.0, 300.0, 900.0]
#: Blocks of a batch, where the run is not so large that a fiftieth of it is more.
BATCH_BLOCKS, BATCHES = 64, 50


def known_recipe(name: str) -> str:
    """A recipe's name, if it can be read. Raises RecipeError, which lists everything wrong with it."""
    load_recipe(name)
    return name


def known_place(location: str) -> str:
    """The place of a store, if a store can lie there. Raises ValueError."""
    if not location.strip():
        raise ValueError("the location of the store is empty; give a folder or s3://bucket/prefix")
    if "{{" in location:
        raise ValueError(
            f"invalid location of the store {location!r}: its variable was not set when this was deployed; set it "
            "and deploy again"
        )
    try:
        open_storage(location)
    except OSError as error:
        raise ValueError(str(error)) from error
    return location


RecipeName = Annotated[str, AfterValidator(known_recipe)]
StorePlace = Annotated[str, AfterValidator(known_place)]
SchedulerAddress = Annotated[str, AfterValidator(scheduler_address)]
Seasons = Annotated[list[Annotated[int, Field(ge=1900, le=2200)]], Field(min_length=1)]
WorkerCount = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=1)]
#: Prefect takes no more than fifty.
RetrySeconds = Annotated[list[Annotated[float, Field(ge=0)]], Field(max_length=50)]
Hours = Annotated[float, Field(gt=0)]
ReleaseCheck = Literal["none", "quick", "full"]


class RunSettings(BaseModel):
    """Parameters common to all flows.

    out: folder or `s3://` URL of the store. workers: blocks built at the same time, by default H2CROP_WORKERS, else one
    per core. processes: workers are processes instead of threads. dask: address of a Dask scheduler whose workers build
    instead, by default H2CROP_DASK. batch: blocks handed to the engine at a time, by default 64 or a fiftieth of all,
    whichever is more. retry_seconds: seconds to wait before each retry of errors that may be temporary. timeout_hours:
    after this time no work is started and the run ends; the next run continues. check: how the release is validated.
    """

    model_config = ConfigDict(frozen=True)

    out: StorePlace
    workers: WorkerCount | None = None
    processes: bool = False
    dask: SchedulerAddress = ""
    batch: BatchSize | None = None
    retry_seconds: RetrySeconds = RETRY_SECONDS
    timeout_hours: Hours | None = None
    check: ReleaseCheck = "quick"

    @property
    def engine_workers(self) -> Workers:
        """The engine's workers. Raises UsageError for a cluster with workers of this machine."""
        return Workers.chosen(self.workers, self.processes, self.dask)

    def batch_size(self, blocks: int) -> int:
        """How many of some blocks to hand to the engine at a time."""
        return self.batch or max(BATCH_BLOCKS, -(-blocks // BATCHES))
