"""What to simulate: one tree of settings with defaults, as arguments or YAML, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from h2crop_data.errors import RecipeError, UsageError
from h2crop_data.grid import CELL_STEP
from h2crop_data.recipe.model import Year
from h2crop_data.recipe.problems import explain, read_mapping
from h2crop_data.recipe.section import Share
from h2crop_data.simulate.land.crops import load_crops

Archive = Literal["sentinel-2-c1-l2a", "sentinel-2-l2a", "planetary-computer", "copernicus"]
Baseline = Annotated[str, Field(pattern=r"^\d\d\.\d\d$")]
MonthNumber = Annotated[int, Field(ge=1, le=12, strict=True)]
Metres = Annotated[float, Field(ge=-500, le=500)]
Offset = Annotated[float, Field(ge=-100, le=100)]


class Part(BaseModel):
    """A part of the settings: unknown keys are errors, and the text under each field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PlaceSettings(Part):
    """Where the region lies. The default is farmland of the Paris basin in which two Sentinel-2 tiles overlap."""

    epsg: int = Field(default=32631, strict=True)
    """EPSG code of the UTM zone, 326zz north and 327zz south of the equator."""
    west: int = Field(default=493440, ge=166_000, le=834_000, strict=True)
    """Western edge of the region in metres of the zone; it is moved west to the next line of the lattice."""
    south: int = Field(default=5376000, ge=0, le=9_990_000, strict=True)
    """Southern edge of the region in metres of the zone; it is moved south to the next line of the lattice."""


class SkySettings(Part):
    """Clouds, haze, snow. Every date draws its own sky."""

    cloudiness: Share = 0.35
    """Mean share of the ground under cloud; single dates reach from clear to overcast."""
    cirrus: Share = 0.25
    """Share of dates with cirrus somewhere."""
    haze: Share = 0.2
    """Share of dates with haze somewhere."""
    snow: Share = 0.15
    """Share of dates from December to February with snow on part of the ground."""


class GeometrySettings(Part):
    """How far Sentinel-2's images lie off the ground: by datatake and tile, and all of them alike."""

    sd: float = Field(default=2.0, ge=0, le=20)
    """Standard deviation in metres, east and north, of the shift of a datatake whose geometry was refined."""
    not_refined: Share = 0.3
    """Share of datatakes whose geometry was not refined."""
    far: float = Field(default=15.0, ge=0, le=60)
    """Maximum shift of those in metres; lengths and directions are distributed uniformly."""
    between_tiles: float = Field(default=0.3, ge=0, le=10)
    """Standard deviation in metres, east and north, of the shift that each tile adds to that of its datatake."""
    absolute: tuple[Offset, Offset] = (0.0, 0.0)
    """Shift in metres, east and north, that is added to all images of the region."""


class Sentinel2Archive(Part):
    """Sentinel-2 scenes."""

    archives: list[Archive] = Field(default=["sentinel-2-c1-l2a"], min_length=1)
    """Catalogs to write, each with its own files: Earth Search's collection 1 and its older one (offset mostly
    removed), Planetary Computer, Copernicus Data Space."""
    l1c: bool = False
    """Also write L1C (13 bands at the top of the atmosphere) of the same dates."""
    dates_per_month: int = Field(default=3, ge=0, le=12, strict=True)
    """Days of acquisition in each month."""
    months: list[MonthNumber] = list(range(1, 13))
    """Months with acquisitions."""
    baselines: Annotated[list[Baseline], Field(min_length=1)] | Literal["by_date"] = "by_date"
    """Processing baselines of successive dates, repeated from the first after the last; `by_date`: as in the archive,
    03.01 before 2022-01-25, 04.00 to 05.09 after."""
    duplicates: Share = 0.05
    """Share of granules that are listed twice: processed again with a newer baseline."""
    removed_offset: Share = 0.8
    """Older Earth Search collection: share of granules from baseline 04.00 on whose offset the archive removed."""
    wrong_flags: Share = 0.0
    """Older Earth Search collection: share of granules whose flag contradicts their values."""
    swath_edges: Share = 0.15
    """Share of dates on which the edge of the orbit's swath crosses the region."""
    scl_errors: Share = 0.02
    """Share of ground where the scene classification confuses cloud and clear."""
    noise: float = Field(default=1.0, ge=0, le=20)
    """Factor on the noise of the instrument."""
    zone_border: bool = False
    """Also write granules of a tile of the neighbouring UTM zone over the same ground."""
    sky: SkySettings = SkySettings()
    """Weather."""
    geometry: GeometrySettings | None = None
    """Shifts of dates against the ground and against one another (default: no shifts)."""

    @model_serializer(mode="wrap")
    def without_exact_geometry(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data; `geometry` is left out where it is None, as older versions wrote settings."""
        written: dict[str, Any] = serialize(self)
        return {name: value for name, value in written.items() if name != "geometry" or value is not None}


class LayerErrors(Part):
    """How DLR's layers of cloud and cloud shadow go wrong: always in the same way, as users of the archive report."""

    thin_cloud: Share = 0.45
    """Opacity up to which cloud is missed (varying in space by a tenth): thin clouds and edges."""
    small_cloud: float = Field(default=150, ge=0, le=1000)
    """Width in metres; parts of clouds that are narrower than a disk of this width are missed."""
    missed_shadow: Share = 0.4
    """Share of cloud shadow that is missed, in pieces of some hundred metres."""


class EnmapArchive(Part):
    """EnMAP scenes."""

    scenes: int = Field(default=2, ge=0, le=40, strict=True)
    """Passes over the region in a season."""
    months: list[MonthNumber] = Field(default=[5, 6, 7], min_length=1)
    """Months of successive passes."""
    shifts: Annotated[list[tuple[Metres, Metres]], Field(min_length=1)] | Literal["drawn"] = "drawn"
    """Shift of the image against the ground in metres, east and north, of successive passes, repeated from the first
    after the last; `drawn`: a random shift for each pass, with a standard deviation of `shift_sd` in each direction."""
    shift_sd: float = Field(default=8, ge=0, le=100)
    """Standard deviation of drawn shifts in metres."""
    distortion: float = Field(default=0, ge=0, le=60)
    """Amplitude in metres of a slow change of the shift across a scene."""
    coverage: list[Annotated[float, Field(ge=0.05, le=1)]] = Field(default=[1.0], min_length=1)
    """Share of the region's width that the swath covers, of successive passes; below 1 its edge crosses the region."""
    tile_size: int = Field(default=30_000, ge=1000, le=30_000, strict=True)
    """Side of a tile in metres; a pass over a larger region gives several tiles, which overlap."""
    overlap: int = Field(default=1500, ge=0, le=5000, strict=True)
    """Overlap of neighbouring tiles in metres."""
    tilt: float = Field(default=12.5, ge=-45, le=45)
    """Degrees from north of the flight direction."""
    defective_columns: int = Field(default=6, ge=0, le=200, strict=True)
    """Pairs of band and detector column that are dead: interpolated in the image, 1 in the pixel mask."""
    noise: float = Field(default=1.0, ge=0, le=20)
    """Factor on the noise of the instrument."""
    sky: SkySettings = SkySettings(cloudiness=0.05, cirrus=0.5, haze=0.3)
    """Weather of the passes, which are on fair days."""
    layer_errors: LayerErrors | None = None
    """Errors of the quality layers (default: none, the truth by thresholds)."""
    parallax: bool = False
    """Whether oblique views displace clouds against the ground below them, which also moves their shadows relative to
    them; the truth of clouds is where they are seen."""

    @model_serializer(mode="wrap")
    def without_what_came_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data; what came later is left out where it changes nothing, as older versions wrote settings."""
        later = {"layer_errors", "parallax"}
        written: dict[str, Any] = serialize(self)
        return {name: value for name, value in written.items() if name not in later or value not in (None, False)}

    @model_validator(mode="after")
    def tiles_go_on(self) -> Self:
        """Tiles longer than two overlaps."""
        if self.tile_size <= 2 * self.overlap:
            raise ValueError(f"tile_size {self.tile_size} must be more than twice the overlap, {self.overlap}")
        return self


class ParcelSettings(Part):
    """What farmers declare, and what is wrong with it. Shares are of fields."""

    invalid: Share = 0.01
    """Share of parcels whose ring crosses itself."""
    duplicates: Share = 0.005
    """Share of parcels listed twice."""
    overlaps: Share = 0.01
    """Share of parcels drawn some metres into their neighbour."""
    slivers: Share = 0.003
    """Share of parcels with a sliver beside them as a separate parcel."""
    null_geometry: Share = 0.002
    """Share of records without geometry."""
    three_dimensional: Share = 0.01
    """Share of parcels with heights."""
    unmapped: Share = 0.01
    """Share of parcels with a code that is in no crop table."""
    wrong: Share = 0.01
    """Share of parcels with another crop than the one that grows."""
    undeclared: Share = 0.03
    """Share of fields that are not declared."""
    tail: float = Field(default=0.5, ge=0, le=1)
    """Exponent of the frequencies of crops: 1 as in France, 0 all equally frequent; below 1 small regions contain rare
    crops as well."""


class PairSettings(Part):
    """Pairs of crop codes made alike, so that what one source adds can be tested."""

    narrow: list[tuple[str, str]] = []
    """The second differs from the first only in narrow bands of EnMAP that no Sentinel-2 band sees."""
    late: list[tuple[str, str]] = []
    """The second differs from the first only from August on; for crops that are harvested after that."""

    @model_validator(mode="after")
    def alike(self) -> Self:
        """Pairs of crops that the simulator grows, and in the same way."""
        growth = dict(zip(load_crops()["code"], load_crops()["growth"], strict=True))
        for first, second in (*self.narrow, *self.late):
            unknown = [code for code in (first, second) if code not in growth]
            if unknown:
                raise ValueError(
                    f"unknown crop {', '.join(unknown)}; simulate/land/crops.csv lists those of the simulator"
                )
            if first == second or growth[first] != growth[second]:
                raise ValueError(f"{first} and {second}: two codes that grow alike ({growth[first]}, {growth[second]})")
        return self


class ClassificationErrors(Part):
    """How the scene classification of Sentinel-2 goes wrong: always in the same way, as the real one does."""

    thin_cloud: Share = 0.38
    """Opacity up to which cloud is missed (varying in space by a tenth)."""
    thin_cirrus: Share = 0.22
    """Opacity up to which cirrus is missed (varying in space by a twentieth)."""
    missed_shadow: Share = 0.33
    """Share of cloud shadow that is missed, in pieces of some hundred metres."""
    bright_ground: Share = 0.01
    """Share of the ground, the brightest of the day, that is called cloud."""
    unclassified_ground: Share = 0.08
    """Share of the ground, the next brightest, that is called unclassified (7)."""
    unclassified_width: float = Field(default=120, ge=0, le=500)
    """Width in metres around detected clouds that is classified as 7, unclassified."""
    cirrus_width: float = Field(default=200, ge=0, le=500)
    """Width in metres around detected cirrus that is classified as 10, cirrus."""
    widened: Share = 0.4
    """Share of these surroundings that is classified so, in pieces of some hundred metres."""


class NaturalSettings(Part):
    """What makes images as hard to mask and to align as real ones: opaque bluish overcast, small cumulus, thin edges,
    blurred shadows of cirrus, shadows of woods and houses, dark woods, bright ground; and what is set here."""

    aerosol: float = Field(default=0.009, ge=0, le=0.05)
    """Standard deviation in the blue, from date to date, of the error of Sentinel-2's aerosol correction; slowly
    varying in space, smaller towards longer wavelengths."""
    classification: ClassificationErrors = ClassificationErrors()
    """Errors of the scene classification; `sentinel2.scl_errors` (default: none) are added."""


class Simulation(Part):
    """A synthetic region."""

    seed: int = Field(default=0, ge=0, strict=True)
    """Seed of the region."""
    seasons: list[Year] = Field(default=[2022], min_length=1)
    """Calendar years of Sentinel-2, EnMAP and parcels; parcels of the year before are written too."""
    cells: int = Field(default=16, ge=1, le=10_000, strict=True)
    """Number of cells of the lattice; they fill a region that is as square as they allow."""
    cell_size: int = Field(default=1920, ge=CELL_STEP, le=19200, multiple_of=CELL_STEP, strict=True)
    """Side of a cell in metres, a multiple of 60."""
    place: PlaceSettings = PlaceSettings()
    """Where."""
    sentinel2: Sentinel2Archive = Sentinel2Archive()
    """Sentinel-2 scenes."""
    enmap: EnmapArchive = EnmapArchive()
    """EnMAP scenes."""
    parcels: ParcelSettings = ParcelSettings()
    """Declared parcels."""
    pairs: PairSettings = PairSettings()
    """Pairs of similar crops."""
    natural: NaturalSettings | None = None
    """Clouds and ground as hard to mask as in real images (default: plain ones, as in regions of older versions)."""
    split_square: int = Field(default=5120, ge=1000, le=1_000_000, strict=True)
    """Side of the split squares in metres, in the recipe that is written with the region; for real regions use 10-20
    km."""
    truth_reflectance: bool = True
    """Also write the reflectance of the ground without clouds and noise, which doubles the size of the region."""

    @model_validator(mode="before")
    @classmethod
    def one_kind_of_errors(cls, data: Any) -> Any:
        """Errors of the scene classification in random patches are none where natural ones are drawn."""
        if isinstance(data, dict) and data.get("natural") is not None and isinstance(data.get("sentinel2", {}), dict):
            data = {**data, "sentinel2": {"scl_errors": 0.0, **data.get("sentinel2", {})}}
        return data

    @model_serializer(mode="wrap")
    def without_what_is_plain(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data; `natural` is left out where it is None, as older versions wrote settings."""
        written: dict[str, Any] = serialize(self)
        return {name: value for name, value in written.items() if name != "natural" or value is not None}

    @model_validator(mode="after")
    def each_once(self) -> Self:
        """Seasons and archives once each."""
        if len(set(self.seasons)) != len(self.seasons):
            raise ValueError("seasons: each year once")
        if len(set(self.sentinel2.archives)) != len(self.sentinel2.archives):
            raise ValueError("sentinel2.archives: each once")
        return self


def load_settings(path: Path | None, changes: dict[str, Any]) -> Simulation:
    """Settings of a YAML file (None: the defaults), with `changes` (`sentinel2.dates_per_month`: value) on top.

    Raises UsageError that lists everything wrong: YAML path, value, what is allowed.
    """
    document = {} if path is None else read_settings(path)
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UsageError(f"{path}: {section} is a mapping of keys, not {place!r}")
        place[key] = value
    try:
        return Simulation.model_validate(document)
    except ValidationError as error:
        raise UsageError(explain(error, str(path or "arguments"), document, Simulation, "the settings are")) from error


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML file of settings. Raises UsageError where it cannot be read or is not a mapping."""
    try:
        return read_mapping(path, "settings")
    except RecipeError as error:
        # Read as a recipe is, but none.
        raise UsageError(str(error)) from error
