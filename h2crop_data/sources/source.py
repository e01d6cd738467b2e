"""The protocol of a source: its settings, how it selects scenes, what a plan keeps of it, how it makes a block.

A build asks its sources in order. While a season is planned:

1. `observe`: a source whose scenes make samples (EnMAP) gives cells, each with the scene that saw it. Where no source
   of a recipe does, every cell of the area is a sample.
2. `describe`: before ground is split, a source may keep cells out and say what is on them (parcels).
3. `split`: a source whose content has a split of its own takes it from that of the ground (parcels).
4. `select`: a source picks what it needs over the cells that are left (Sentinel-2).

What is the same for several blocks is a unit of work (`units.py`): while a season is planned a source runs its units by
the request, before blocks are built the units of these are run, and `with_results` takes their results up. What is
read of files for many blocks at once is a reading (`readings.py`): it gives parts of cells, which blocks put together.

What a source has found it keeps as one object of its own, `pinned` below. The plan saves and loads it by `files`,
`facts` and `load`, `inputs` says what of it makes the arrays of a block, and `task` cuts out what one block needs,
which `assemble` turns into arrays in whichever process builds the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import geopandas as gpd
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.words import SourceWords
from h2crop_data.grid import Cell, CellRule, ProcessingTile
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Section, Split
from h2crop_data.sources.changes import InputChange
from h2crop_data.sources.readings import ReadCounts, Reading, ToRead
from h2crop_data.sources.scenes import SceneDecision
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.sources.units import Results, RunUnits, Unit
from h2crop_data.sources.work import Work, even_parts
from h2crop_data.splits.lists import ListedPatch
from h2crop_data.splits.squares import Square

#: Reads a file of a plan by name.
ReadFile = Callable[[str], bytes]
#: Tiles, and a moment near which they are to be shown.
GroundNear = tuple[Sequence[ProcessingTile], datetime]
#: For each of several pieces of ground the units of work whose results show its tiles near its moment.
Reference = Callable[[Sequence[GroundNear]], list[list[Unit]]]


class GroundSplits(Protocol):
    """The split of every piece of ground."""

    @property
    def method(self) -> str:
        """How it was decided: `hash`, `optimised` or `lists`."""

    @property
    def square_size(self) -> int:
        """Side of the split squares in metres, in EPSG:3035."""

    @property
    def cells(self) -> Mapping[Cell, str] | None:
        """Where the recipe gives the split as lists: the split of every listed cell."""

    def split_of(self, square: Square) -> str:
        """The split of a square (column, row)."""


@dataclass(frozen=True)
class Request:
    """What every source is given while a season is planned."""

    season: int
    #: The recipe's area in `crs`.
    area: BaseGeometry
    crs: str
    #: Side of a cell in metres, and the rule by which an area has cells (`area.cells`).
    cell_size: int
    cell_rule: CellRule
    #: How ground is divided into splits.
    split: Split
    #: A path of the recipe as an absolute one. Raises RecipeError.
    locate: Callable[[str], Path]
    #: A catalog's URL as it is, a local one as an absolute path. Raises RecipeError.
    locate_catalog: Callable[[str], str]
    #: Scenes that must not be used again, and why.
    retracted: Mapping[str, str]
    #: Runs units of work that a source needs to choose by.
    run_units: RunUnits
    #: Version of the crop classes.
    taxonomy: str
    #: The other seasons of the recipe.
    other_seasons: tuple[int, ...]
    #: Called with (done, total, text).
    progress: Progress


@dataclass(frozen=True)
class Scene:
    """The scene that makes a cell a sample."""

    id: str
    #: A cell is one sample for each datatake.
    datatake: str
    #: Its time in sample ids, `20220724T104526`.
    stamp: str


@dataclass(frozen=True)
class Candidate:
    """A cell that may become a sample, seen by a scene (None where no source of a recipe makes samples)."""

    cell: Cell
    scene: Scene | None = None
    #: Planned columns of the samples index.
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """The samples that a source's scenes make of an area."""

    candidates: list[Candidate]
    pinned: Any
    scenes: list[SceneDecision]


@dataclass(frozen=True)
class SurveyedGround:
    """The cells that may become samples."""

    #: Cell -> its split square.
    squares: dict[Cell, Square]
    #: Cells near each other: those of one zone in one split square.
    groups: list[list[Cell]]


@dataclass(frozen=True)
class Described:
    """The facts of a source about cells before the ground is split."""

    pinned: Any
    #: Cells that can be used; None: all.
    usable: frozenset[Cell] | None = None
    #: Planned column of the samples index -> cell -> value.
    columns: Mapping[str, Mapping[Cell, Any]] = field(default_factory=dict)
    #: Classes (tier, id) sure to occur in each square, where an optimised split asks for them.
    classes: Mapping[Square, set[tuple[int, int]]] = field(default_factory=dict)
    #: Squares that hold any of its content.
    touched: frozenset[Square] = frozenset()


@dataclass(frozen=True)
class Selected:
    """What a source picked over some cells."""

    pinned: Any
    scenes: list[SceneDecision] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedBlock:
    """A block as a plan has it."""

    number: int
    season: int
    split: str
    #: The scene that makes its samples; `none` where there is none.
    scene: str
    cells: list[Cell]
    #: Their outlines (longitude, latitude).
    outlines: list[BaseGeometry]
    #: Its row of the plan's blocks, with the columns that sources added.
    row: Mapping[str, Any]
    #: Hash of the classes.
    taxonomy_hash: str
    #: The readings that give parts of its cells, while it is built.
    readings: tuple[Reading, ...] = ()

    @cached_property
    def place(self) -> BaseGeometry:
        """Their ground together (longitude, latitude)."""
        return shapely.union_all(self.outlines)


@dataclass(frozen=True)
class BlockGround:
    """The ground and season a block is assembled for."""

    season: int
    split: str
    cells: list[Cell]
    cell_size: int
    #: Where parts of cells lie that readings gave; None where nothing was read before.
    scratch: Scratch | None = None


@dataclass(frozen=True)
class SourceBlock:
    """What a source makes of a block."""

    #: name -> (sample, ...), as the source's format tells.
    arrays: dict[str, NDArray[Any]]
    #: Derived columns of the index, a dictionary a sample.
    rows: list[dict[str, Any]]
    #: Values of its coordinates along `sample` and another axis: those of all samples of the block.
    coordinates: dict[str, list[float]] = field(default_factory=dict)
    #: Rows of the table of dates (`Source.dates`) that tell of its pixels, by their digests; None where it makes none.
    dates: list[str] | None = None


@dataclass(frozen=True)
class MatchedBands:
    """An array (sample, month, band, y, x) at 10 m in which borders of fields show, and the places of two bands."""

    array: str
    red: int
    infrared: int


@dataclass(frozen=True)
class BlockInputs:
    """Some blocks, and what a source pinned for them: as they were built, or as a plan of today would have them."""

    settings: Any
    pinned: Any
    blocks: Sequence[PlannedBlock]
    #: When they were planned, where their season was not complete then.
    planned: date | None = None


class Source(ABC):
    """One source. A recipe asks for it by a section of its name, whose content is `settings`."""

    #: The section of the recipe, and the sensor in the index of scenes.
    name: ClassVar[str]
    #: Its arrays share one input hash, `hash_<group>`.
    group: ClassVar[str]
    #: Raised whenever the numbers that the arrays get from the same inputs change; part of the input hash.
    algorithm: ClassVar[int]
    #: The model of its section.
    settings: ClassVar[type[Section]]
    #: Settings that change no pixel of a block once its inputs are chosen, `clouds.l1c` for one of a section in the
    #: source's section; every other one is part of the input hash.
    not_identity: ClassVar[frozenset[str]] = frozenset()
    #: What can be done about blocks whose inputs have changed; `{store}` stands for the store.
    remedy: ClassVar[str] = "`h2crop build RECIPE --extend --changed rebuild --out {store}` rebuilds their samples"
    #: What a datasheet says of it.
    words: ClassVar[SourceWords] = SourceWords()
    #: Whether others can be matched with it: `reference_units`.
    gives_reference: ClassVar[bool] = False
    #: Derived columns that name scenes at fault, or say what is, by the field of the build's report that lists them.
    faults: ClassVar[Mapping[Literal["gaps", "impossible", "differences"], str]] = {}

    @abstractmethod
    def format(self, settings: Any, cell_size: int) -> SourceFormat:
        """What a store holds of it."""

    def begin_build(self) -> None:  # noqa: B027 -- most sources keep nothing
        """A build begins: drop what this process kept of files that it read for another build."""

    @abstractmethod
    def task(self, settings: Any, pinned: Any, block: PlannedBlock) -> Any:
        """What one block needs, small enough to send to another process."""

    @abstractmethod
    def assemble(self, task: Any, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        """The arrays of a block. Raises ReadError or SceneError."""

    def observe(self, settings: Any, request: Request) -> Observed | None:
        """The samples its scenes make; None for a source that makes none. Raises PlanError where there are none."""
        return None

    def describe(
        self, settings: Any, request: Request, ground: SurveyedGround, known: Sequence[Any]
    ) -> Described | None:
        """What it knows of cells before they are split; None for a source that is asked later.

        known: what earlier parts of the season pinned, whose numbering goes on. Raises PlanError, ParcelError.
        """
        return None

    def split(self, settings: Any, pinned: Any, splits: GroundSplits, known: Sequence[Any]) -> Any:
        """What it pinned, in the splits of its ground.

        known: what earlier parts of the season pinned, whose content keeps its split.
        """
        return pinned

    def ground(self, settings: Any, cells: Sequence[Cell]) -> list[BaseGeometry]:
        """The ground (longitude, latitude) over which it picks what some cells need."""
        return [cell.outline for cell in cells]

    def select(self, settings: Any, request: Request, places: Sequence[BaseGeometry]) -> Selected | None:
        """What it picks over some places (longitude, latitude); None for a source that was asked before.

        Raises PlanError.
        """
        return None

    def nothing(self) -> Any:
        """What a plan keeps of it where the recipe does not use it."""
        return None

    def for_samples(self, pinned: Any, samples: gpd.GeoDataFrame, *, further: bool) -> Any:
        """What of it a plan of some samples keeps. further: the plan is a later part of a season."""
        return pinned

    def block_columns(self, pinned: Any, places: Sequence[BaseGeometry]) -> dict[str, list[Any]]:
        """Its columns of the plan's blocks. places: the ground of each block (longitude, latitude)."""
        return {}

    def inputs(self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock]) -> list[list[Any]]:
        """For each block what makes its arrays, as plain data: settings and content, wherever files lie."""
        return [[self.identity(settings)] for _ in blocks]

    def input_changes(self, before: BlockInputs, now: BlockInputs) -> list[list[InputChange]]:
        """For each block what of its scenes or content differs, beside its settings and its algorithm.

        before, now: the same blocks in the same order.
        """
        return [[] for _ in now.blocks]

    def unreadable(
        self,
        settings: Any,
        pinned: Any,
        asked: Sequence[tuple[Collection[str], BaseGeometry]],
        progress: Progress = silent,
    ) -> list[dict[str, str]]:
        """For scenes over places (longitude, latitude), place by place: why those it pinned cannot be read there now.

        Empty text for a scene whose files can be read.
        """
        return [{} for _ in asked]

    def missing_files(self, settings: Any, season: int, locate: Callable[[str], Path]) -> list[str]:
        """Files of a season's year that are not there yet, in words; those without a year in their path are none."""
        return []

    def units(self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock]) -> list[list[Unit]]:
        """For each block the units of work it uses. Their ids enter its input hash, but for those that are implied."""
        return [[] for _ in blocks]

    def reference_units(
        self, settings: Any, pinned: Any, wanted: Sequence[GroundNear], season: int
    ) -> list[list[Unit]]:
        """For each piece of ground the units of work that show its tiles near its moment, in the order of the tiles.

        Asked for where `gives_reference` says so.
        """
        raise NotImplementedError(f"{self.name} has no reference")

    def matching_units(
        self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock], reference: Reference | None
    ) -> list[list[Unit]]:
        """For each block further units of work, that compare its scenes with a reference; None where there is none."""
        return [[] for _ in blocks]

    def with_results(self, pinned: Any, units: Sequence[Unit], results: Results) -> Any:
        """What it pinned, with the results of its units that some blocks use, for `task`.

        A unit that failed has its error: it costs the blocks that use it, when they are assembled, and no others.
        """
        return pinned

    def readings(self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock]) -> list[Reading]:
        """What is read before some blocks, the blocks of a plan, can be assembled.

        A block is given to `task` with the readings of its cells. What one gives of a cell depends on that cell alone.
        """
        return []

    def read(self, reading: Reading, scratch: Scratch, watch: Stopwatch) -> ReadCounts:
        """Keep what a reading gives of its cells. Raises ReadError, SceneError or StoreError."""
        raise NotImplementedError(f"{self.name} states readings but does not implement reading them")

    def identity(self, settings: Any) -> dict[str, Any]:
        """Its settings that change pixels; empty without settings."""
        if settings is None:
            return {}
        written: dict[str, Any] = settings.model_dump(mode="json")
        for name in self.not_identity:
            *sections, key = name.split(".")
            inside = written
            for section in sections:
                inside = inside.get(section) or {}
            inside.pop(key, None)
        return written

    def files(self, pinned: Any) -> dict[str, bytes]:
        """What a plan keeps of it, as files by name."""
        return {}

    def facts(self, pinned: Any) -> dict[str, Any]:
        """What `plan.json` says of it."""
        return {}

    def load(self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool) -> Any:
        """What `files` and `facts` say. whole: false where its tables are not needed.

        Raises OSError, ValueError or KeyError for damaged files.
        """
        return None

    def with_moved_files(self, settings: Any, pinned: Any, locate: Callable[[str], str]) -> Any:
        """What an earlier run pinned, with files of this machine that are gone where the catalogs have them now.

        locate: a catalog's URL as it is, a local one as an absolute path.
        """
        return pinned

    def datatakes(self, pinned: Any) -> dict[str, str]:
        """Scene -> datatake, of the scenes that make samples."""
        return {}

    def patches(self, pinned: Any, lists: Mapping[str, str]) -> list[ListedPatch]:
        """The ground of published patches (id -> split) that were cut from its scenes."""
        return []

    def flag_masks(self, settings: Any) -> dict[str, int]:
        """Its quality array -> the bits of it that keep a pixel out of the statistics."""
        return {}

    def counts(self, pinned: Any) -> dict[str, int]:
        """What a plan counts of it."""
        return {}

    def seconds_to_read(self, settings: Any, pinned: Any, blocks: Collection[Mapping[str, Any]]) -> float:
        """About how long one worker reads for some blocks (rows of the plan)."""
        return 0.0

    def to_read(self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock]) -> ToRead:
        """What its readings for some blocks amount to."""
        return ToRead()

    def reading_work(self, settings: Any, pinned: Any, blocks: Sequence[PlannedBlock]) -> list[Work]:
        """What each of its readings for some blocks takes, in their order.

        By default what `seconds_to_read` and `to_read` say, in even parts.
        """
        read, count = self.to_read(settings, pinned, blocks), len(blocks)
        seconds = self.seconds_to_read(settings, pinned, [block.row for block in blocks]) + read.seconds
        if not (seconds or read.bytes or read.requests):
            return []
        # A source that counts requests and no more has its files on servers, and asks them one by one.
        remote = read.remote_bytes or (read.bytes if read.requests else 0)
        connections = max(1, round(read.requests / read.turns)) if read.turns else 1
        return [
            Work(
                cpu=seconds / count,
                bytes=size,
                remote_bytes=of_servers,
                requests=requests,
                at_once=connections,
                connections=connections,
            )
            for size, of_servers, requests in zip(
                even_parts(read.bytes, count),
                even_parts(remote, count),
                even_parts(read.requests, count),
                strict=True,
            )
        ]

    def dates(self, settings: Any, pinned: Any) -> dict[str, list[dict[str, Any]]]:
        """Rows of the table of dates by their digest, one entry for each unit of work whose result it was given."""
        return {}

    def months_without(self, pinned: Any, season: int) -> list[int]:
        """The months (1..12) of a season for which it has nothing."""
        return []

    def matched_bands(self, settings: Any) -> MatchedBands | None:
        """What of it is matched with parcels, to see whether it lies where they do; None where nothing is."""
        return None

    def parcels(self, pinned: Any) -> gpd.GeoDataFrame | None:
        """The parcels that its arrays number, with their classes, for the index; None where it numbers none."""
        return None

    def crop_tables(self, pinned: Any) -> dict[str, str] | None:
        """Country -> SHA-256 of the crop table that its labels are made with; None where a plan does not say."""
        return {}

    def what_was_read(self, pinned: Any) -> tuple[dict[str, Any], list[str]]:
        """Counts of what was read as plain data for `sources` of the index, and what needs a look in words."""
        return {}, []

    def explain(self, facts: Mapping[str, Any]) -> list[str]:
        """Lines for people on those facts."""
        return []
