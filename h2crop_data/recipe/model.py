"""The recipe: one YAML file that says what to build, checked before any work begins."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import shapely
import shapely.errors
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pyproj import CRS
from pyproj.exceptions import CRSError

from h2crop_data.catalog.registry import api_of
from h2crop_data.constants import SENTINEL2_BANDS, Sentinel2Band
from h2crop_data.errors import PluginError, RecipeError
from h2crop_data.grid import CELL_STEP, LONLAT, CellRule, geojson_polygons, split_of_square
from h2crop_data.plugins import installed_sources, load_installed
from h2crop_data.recipe.catalogs import Catalog
from h2crop_data.recipe.enmap import EnmapBands as EnmapBands
from h2crop_data.recipe.enmap import EnmapSettings as EnmapSettings
from h2crop_data.recipe.problems import check_years, explain, read_mapping
from h2crop_data.recipe.section import COMPLETE, Percent, Share
from h2crop_data.recipe.section import Neutral as Neutral
from h2crop_data.recipe.section import Section as Section
from h2crop_data.settings import variable_of_recipe

SplitName = Literal["train", "val", "test"]
Year = Annotated[int, Field(ge=1950, le=2100, strict=True)]


def none_word(value: Any) -> Any:
    """`none` in YAML is a word, not a null: take both."""
    return None if value == "none" else value


def offer_none_word(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a field that may be null take the word as well."""
    schema["anyOf"].append({"const": "none"})


NoneWord = BeforeValidator(none_word)
NoneInSchema = Field(json_schema_extra=offer_none_word)


def known_crs(value: str) -> str:
    """A CRS that exists, as it was written."""
    try:
        CRS(value)
    except CRSError as error:
        raise ValueError(f"invalid CRS {value!r}; expected one like EPSG:25832") from error
    return value


CrsName = Annotated[str, AfterValidator(known_crs)]


class Area(Section):
    """Where to build: exactly one of bbox, geojson, file."""

    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    """Bounding box in `crs`: west, south, east, north."""
    geojson: dict[str, Any] | None = None
    """A GeoJSON Polygon, MultiPolygon, Feature or FeatureCollection in `crs`."""
    file: str | None = None
    """A vector file (GeoJSON, GeoPackage ...) whose polygons are the area, in the CRS of the file."""
    crs: CrsName = LONLAT
    """CRS of bbox and geojson, for instance `EPSG:25832` (default: longitude and latitude)."""
    cells: CellRule = "centre"
    """Which cells belong to the area: `centre`, those whose centre lies in it; `inside`, those that lie completely in
    it; `touching`, those that touch it."""

    @model_validator(mode="after")
    def one_source(self) -> Self:
        """Exactly one area, and a box that is not empty."""
        given = [name for name in ("bbox", "geojson", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of bbox, geojson, file (given: {', '.join(given) or 'none'})")
        if self.bbox and not (self.bbox[0] < self.bbox[2] and self.bbox[1] < self.bbox[3]):
            raise ValueError("bbox must be west, south, east, north with west < east and south < north")
        if self.geojson:
            try:
                polygons = geojson_polygons(self.geojson)
            except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
                raise ValueError(f"geojson is not a valid GeoJSON polygon ({error})") from error
            if polygons.is_empty:
                raise ValueError("geojson contains no polygon")
            if not polygons.is_valid:
                raise ValueError(f"geojson is not a valid polygon: {shapely.is_valid_reason(polygons)}")
        return self


MissingCount = Annotated[int, Field(ge=0, strict=True)]


class L1cSource(Section):
    """Where Sentinel-2 L1C scenes come from, for methods that find clouds at the top of the atmosphere."""

    catalog: Catalog
    """Where scenes are searched: name of a provider (`h2crop providers`), URL of a STAC API, or path of a static
    catalog, an ItemCollection (JSON) or a stac-geoparquet file. Several catalogs as a list, each with its own
    `collection` if needed: scenes missing in one are taken from the next. See docs/catalogs.md."""
    collection: str = "sentinel-2-l1c"
    """Collection to search."""
    offset: Literal["auto", 0, -1000] = "auto"
    """Number to add to the values of the files, as `sentinel2.offset`; pixels are not used to decide it."""


#: Metres by which what is masked grows, by default: where s2cloudless takes part, and elsewhere.
DILATION_L1C, DILATION = 60.0, 30.0


class Clouds(Section):
    """How clear Sentinel-2 pixels are identified. docs/clouds.md compares the methods."""

    method: str = Field(default="scl", pattern=r"^[a-z][a-z0-9_-]*(\+[a-z][a-z0-9_-]*)*$")
    """Cloud methods joined by `+`; pixels that any of them calls cloud or shadow are masked. `scl`: the scene
    classification of L2A. `s2cloudless`: clouds on L1C of the same datatakes (requires `l1c`). `ukis`: clouds and
    shadows on L2A (requires the extra `clouds`). Packages can add methods."""
    clear: list[Annotated[int, Field(ge=0, le=11, strict=True)]] = Field(default=[4, 5, 6])
    """SCL classes that count as clear: 4 vegetation, 5 bare, 6 water (7, unclassified, can be added)."""
    dilation: Annotated[
        Literal["default", 0] | Annotated[float, Field(ge=20, le=500, allow_inf_nan=False)], Neutral(0)
    ] = "default"
    """Width in metres of the margin around clouds and shadows that is also masked: 0, or at least 20 (one pixel);
    default: 60 with `s2cloudless`, else 30."""
    cast_shadows: Annotated[bool, Neutral(False)] = True
    """Whether to mask dark ground where the sun can cast the shadow of a cloud."""
    second_look: Annotated[bool, Neutral(False)] = True
    """Whether to mask pixels of a date that are brighter or darker than on the clear dates before and after it."""
    l1c: Annotated[L1cSource | None, NoneWord, NoneInSchema, Neutral(None)] = None
    """Catalog of L1C scenes; `s2cloudless` requires it."""
    missing: Annotated[Literal["fail", "skip"], Neutral("fail")] = "fail"
    """What to do with a date without the L1C that a method requires: fail the plan, or skip the date and record it."""

    @model_validator(mode="after")
    def consistent(self) -> Self:
        """Each method once, and L1C where it is needed."""
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("method: each method once")
        if "s2cloudless" in self.methods and self.l1c is None:
            raise ValueError("s2cloudless finds clouds on L1C scenes: set their catalog in l1c (catalog, collection)")
        return self

    @property
    def methods(self) -> list[str]:
        """The methods one by one."""
        return self.method.split("+")

    @property
    def dilation_metres(self) -> float:
        """The dilation in force in metres."""
        if self.dilation != "default":
            return float(self.dilation)
        return DILATION_L1C if "s2cloudless" in self.methods else DILATION

    @property
    def is_classification_alone(self) -> bool:
        """Whether only the scene classification of a pixel counts, as in stores built before masks existed."""
        return self.method == "scl" and not (self.dilation_metres or self.cast_shadows or self.second_look)


class Sentinel2Settings(Section):
    """Where Sentinel-2 scenes come from and how they become monthly composites."""

    catalog: Catalog
    """Where scenes are searched: name of a provider (`h2crop providers`), URL of a STAC API, or path of a static
    catalog, an ItemCollection (JSON) or a stac-geoparquet file. Several catalogs as a list, each with its own
    `collection` if needed: scenes missing in one are taken from the next. See docs/catalogs.md."""
    collection: str = "sentinel-2-l2a"
    """Collection to search."""
    bands: list[Sentinel2Band] = Field(default=list(SENTINEL2_BANDS), min_length=1)
    """Bands to store, in the order of the store."""
    offset: Literal["auto", 0, -1000] = "auto"
    """Number to add to the values of the files: `auto` decides it for each scene by its item, else by its pixels, and
    refuses scenes that cannot be decided; 0 or -1000 sets it for the whole source. See docs/offsets.md."""
    max_cloud_cover: Percent = 100
    """Maximum `eo:cloud_cover` of a scene in percent."""
    clouds: Clouds = Clouds()
    """Cloud mask."""
    alignment: Annotated[Literal["none", "report", "apply"], Neutral("none")] = "apply"
    """Shift of every date against the other dates: `report` measures it, `apply` also corrects dates that are shifted
    by more than `alignment_limit`. See docs/alignment.md."""
    alignment_limit: Annotated[float, Neutral(4.0), Field(ge=1, le=30, allow_inf_nan=False)] = 4.0
    """Maximum shift in metres that is not corrected; such dates are not resampled."""
    composite: Literal["median"] = "median"
    """How to combine the clear observations of a month into one value."""
    resampling: Literal["nearest", "bilinear", "cubic"] = "nearest"
    """Resampling of bands that are not on the 10 m grid; `nearest` repeats 20 m pixels 2 x 2, exactly as measured."""
    gaps: Literal["fail", "record"] = "fail"
    """What to do with a scene that cannot be read after all retries: `fail` the block, or leave the scene out and
    `record` it with the sample."""
    memory: Annotated[float, Neutral(1.5), Field(ge=0.25)] = 1.5
    """Memory limit of a worker for reading scenes, in GiB. Scenes that would need more are read in pieces, which reads
    tiles of 20 m bands several times."""
    max_missing_acquisitions: Annotated[MissingCount | None, NoneWord, NoneInSchema, Neutral(None)] = None
    """Maximum number of acquisitions, by the ten-day cycle of the satellites, that the catalog may lack in a month of a
    tile; if it lacks more, the plan fails and lists the tiles. `none`: gaps are only reported. See docs/catalogs.md."""
    connections: Annotated[int, Neutral(24), Field(ge=1, le=256)] = 24
    """Maximum number of simultaneous connections to one archive, of all workers together."""

    @property
    def looks_at_tiles(self) -> bool:
        """Whether all dates of a processing tile are looked at together before blocks are read: for masks or shifts."""
        return not self.clouds.is_classification_alone or self.alignment != "none"

    @model_validator(mode="after")
    def each_band_once(self) -> Self:
        """No band twice."""
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("bands: each band once")
        return self


class CropTable(Section):
    """Your own table from crop codes to HCAT3 (CSV)."""

    path: str
    """Path of the CSV file."""
    code_column: str = "code"
    """Column of the country's crop code."""
    hcat3_column: str = "hcat3"
    """Column of the ten-digit HCAT3 code; empty for codes without one."""


class ParcelSource(Section):
    """One file of declared parcels for each year."""

    path: str
    """Path of the vector file; `{year}` in it is replaced by the year of the declarations (without it the
    file is of one year)."""
    country: str = Field(pattern=r"^[a-z]{2}(-[a-z0-9]+)?$")
    """Country (and region) in lower case, for instance `fr` or `be-vlg`."""
    code_field: str
    """Field of the crop code; case is ignored if only one field matches."""
    use_field: str | None = None
    """Field of the use of the crop, for files with HCAT4 codes (`table: hcat4`)."""
    id_field: str | None = None
    """Field of the parcel's own id, which is kept in the index."""
    layer: str | None = None
    """Layer of the file (default: its only layer)."""
    crs: CrsName | None = None
    """CRS of the file, if the file has none or a wrong one."""
    table: str | CropTable | None = None
    """Crop table: a name in taxonomy/countries (default: that of the country), `hcat3` or `hcat4` for files with such
    codes, or your own CSV file."""
    years: list[Year] | None = None
    """Years this source has declarations for (default: all). Pixels of other years are unknown, not background."""
    coverage: str | None = None
    """Vector file of the ground that these declarations cover; pixels outside any coverage are unknown."""

    @model_validator(mode="after")
    def use_needs_hcat4(self) -> Self:
        """The use is a part of HCAT4 codes only."""
        if self.use_field is not None and self.table != "hcat4":
            raise ValueError("use_field: requires `table: hcat4`; other tables have codes without a use")
        return self


class Parcels(Section):
    """The declarations that labels come from."""

    season: list[ParcelSource] = Field(min_length=1)
    """Declarations of the season itself, for the labels."""
    prior: Annotated[Literal["same"] | list[ParcelSource] | None, NoneWord, NoneInSchema] = "same"
    """Declarations of the year before, for `prior`: the same sources a year earlier, other sources, or none."""
    min_labelled_share: Share = 0.0
    """Minimum share of a cell's pixels in declared parcels whose crop has a class (at tier 1)."""


def number_as_text(value: object) -> object:
    """A whole number as text: YAML reads `2` as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TaxonomySettings(Section):
    """The classes of the four tiers."""

    version: Annotated[str, BeforeValidator(number_as_text)] = "1"
    """Version of the classes and crop tables: `1` as published, `2` with more classes and corrected tables
    (docs/classes.md)."""


class Split(Section):
    """The split of the ground into train, val and test."""

    square_size: int = Field(default=15360, ge=1000, le=1_000_000, strict=True)
    """Side of the split squares in metres, in EPSG:3035; it should be larger than the texture of the land (10-20
    km)."""
    shares: dict[SplitName, Share] = Field(default={"train": 0.735, "val": 0.129, "test": 0.136})
    """Share of the squares in each split; the shares must add up to 1."""
    seed: int = Field(default=0, strict=True)
    """Seed of the split."""
    method: Literal["hash", "optimised"] = "hash"
    """`hash`: each square is assigned by a hash of its position, independently of all others. `optimised`: squares are
    then moved until the shares of samples are met and every class that occurs in three squares occurs in every split;
    squares of an existing store are not moved."""
    buffer: float = Field(default=0.0, ge=0, le=100_000)
    """Minimum distance in metres between samples of different splits; cells closer to another split are left out."""
    lists: str | None = None
    """Folder of train.txt, val.txt and test.txt to use instead of squares, with one id per line (of a cell, a sample,
    or a patch of the published dataset); cells in no list are left out."""

    @model_validator(mode="after")
    def whole(self) -> Self:
        """Shares that add up."""
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"expected shares that add up to 1, got {sum(self.shares.values()):g}")
        if self.lists is not None and (self.buffer or self.method != "hash"):
            raise ValueError(
                "lists cannot be combined with method and buffer: they assign the ground to the splits themselves"
            )
        return self

    def split_of(self, square: tuple[int, int]) -> str:
        """The split of a square (column, row)."""
        return split_of_square(
            square, self.square_size, {str(name): share for name, share in self.shares.items()}, self.seed
        )


class StoreOptions(Section):
    """The layout of the store; it cannot be changed once the store exists."""

    block_capacity: int = Field(default=16, ge=1, le=1024, strict=True)
    """Maximum number of samples in a block, which is one shard of each array."""
    codec: Literal["lz4", "zstd"] = "lz4"
    """Blosc codec, with bit shuffle: `lz4` is read fastest, `zstd` is about a tenth smaller."""
    level: int = Field(default=5, ge=1, le=9, strict=True)
    """Compression level."""


class Recipe(Section):
    """What to build: area, seasons, sources, taxonomy, split and the layout of the store."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """Short name in lower case."""
    description: str = ""
    """Purpose of the recipe, in one or two sentences."""
    area: Area
    """Where."""
    seasons: list[Year] = Field(min_length=1)
    """Calendar years of the Sentinel-2 series and of the parcels."""
    in_season: Annotated[bool, Neutral(False)] = False
    """Whether to build a season before its year is over, with empty months for the rest of the year; otherwise `build`
    refuses it and `refresh` waits for it."""
    cell_size: int = Field(default=1920, ge=CELL_STEP, le=19200, multiple_of=CELL_STEP, strict=True)
    """Side of a cell in metres, a multiple of 60."""
    enmap: Annotated[EnmapSettings | None, NoneWord, NoneInSchema] = None
    """EnMAP scenes; omit to build without."""
    sentinel2: Annotated[Sentinel2Settings | None, NoneWord, NoneInSchema] = None
    """Sentinel-2 scenes; omit to build without."""
    parcels: Annotated[Parcels | None, NoneWord, NoneInSchema] = None
    """Declared parcels; omit to build without."""
    taxonomy: TaxonomySettings = TaxonomySettings()
    """Crop classes."""
    split: Split = Split()
    """Train, val, test."""
    store: StoreOptions = StoreOptions()
    """Layout of the store."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    #: The sections of sources that other packages bring.
    _others: dict[str, Section] = PrivateAttr(default_factory=dict)
    #: The text of a recipe that was kept in a plan, as it was written then.
    _kept: dict[str, Any] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def something_to_build(self, info: ValidationInfo) -> Self:
        """At least one source, and each season once."""
        others = (info.context or {}).get("others")
        if self.enmap is None and self.sentinel2 is None and self.parcels is None and not others:
            raise ValueError("expected at least one of enmap, sentinel2, parcels")
        if len(set(self.seasons)) != len(self.seasons):
            raise ValueError("seasons: each year once")
        return self

    @model_validator(mode="after")
    def one_year_a_file(self, info: ValidationInfo) -> Self:
        """No file of parcels for several years; but for recipes that a store was planned with before this was asked."""
        if self.parcels and not (info.context or {}).get("stored"):
            asked = {*self.seasons, *(info.context or {}).get("other_seasons", ())}
            check_years(self.parcels.season, self.parcels.prior, asked)
        return self

    def for_seasons(self, seasons: list[int]) -> Recipe:
        """The same recipe for other seasons. Raises RecipeError for a year out of range."""
        document = {**self.complete(), "seasons": seasons}
        return parse_recipe(document, self._folder, "--season", other_seasons=self.seasons)

    def locate(self, path: str) -> Path:
        """A path of the recipe as an absolute one: `${NAME}` from the environment, relative to the recipe's folder.

        Raises RecipeError for a variable that is not set.
        """

        def variable(match: re.Match[str]) -> str:
            value = variable_of_recipe(match[1])
            if value is None:
                raise RecipeError(f"{path!r}: the environment variable {match[1]} is not set")
            return value

        return (self._folder / Path(re.sub(r"\$\{(\w+)\}", variable, path)).expanduser()).resolve()

    def locate_catalog(self, catalog: str) -> str:
        """The URL of a catalog that is named or given, or the absolute path of a local one."""
        place = api_of(catalog)
        return place if re.match(r"https?://", place) else str(self.locate(place))

    @property
    def other_sources(self) -> list[str]:
        """The sources it uses that other packages bring."""
        return sorted(self._others)

    def settings_of(self, source: str) -> Any:
        """The section of a source; None where the recipe does not use it."""
        return self._others.get(source) or getattr(self, source, None)

    def changed(self, folder: Recipe, **sections: Any) -> Recipe:
        """The same recipe with other sections. folder: the recipe whose paths these are relative to."""
        recipe = self.model_copy(update=sections)
        recipe._folder, recipe._kept = folder._folder, None
        return recipe

    def in_force(self) -> dict[str, Any]:
        """Every setting with its value, those at their neutral value left out."""
        others = {name: section.model_dump(mode="json") for name, section in sorted(self._others.items())}
        return {**self.model_dump(mode="json"), **others}

    def complete(self) -> dict[str, Any]:
        """Every setting with its value, to be read again as a recipe that means the same."""
        sections = [(name, section.model_dump(mode="json", context=COMPLETE)) for name, section in self._others.items()]
        return {**self.model_dump(mode="json", context=COMPLETE), **dict(sorted(sections))}

    def as_written(self) -> dict[str, Any]:
        """The recipe as plain data, with every default filled in and paths as they stand in the file.

        One that was kept in a plan stays as it was written then.
        """
        return self.in_force() if self._kept is None else copy.deepcopy(self._kept)

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's content without its seasons; the same wherever its files lie."""
        document = {key: value for key, value in self.as_written().items() if key != "seasons"}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with h2crop, by file name."""
    folder = resources.files("h2crop_data.recipe") / "shipped"
    return {entry.name: Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file; the bare name of a shipped recipe works too.

    Raises RecipeError that lists everything wrong with it: YAML path, value, what is allowed.
    """
    file = Path(path)
    if not file.exists() and str(path) in shipped_recipes():
        file = shipped_recipes()[str(path)]
    if not file.exists():
        known = ", ".join(sorted(shipped_recipes()))
        raise RecipeError(f"no recipe file {path} (names of shipped recipes: {known})")
    return parse_recipe(read_mapping(file, "recipe"), file.resolve().parent, str(path))


def parse_recipe(document: dict[str, Any], folder: Path, name: str, **context: Any) -> Recipe:
    """Check a recipe given as plain data; `folder` is what its relative paths start from.

    context: `stored=True` for the recipe of a plan, `other_seasons` that its files are read for as well.
    Raises PluginError where the package of a source is not installed or cannot be loaded.
    """
    unknown = [key for key in document if key not in Recipe.model_fields]
    names = [key for key in unknown if key in installed_sources()]
    if context.get("stored") and len(names) < len(unknown):
        missing = ", ".join(key for key in unknown if key not in names)
        raise PluginError(f"{name} requires the source {missing}, which is not installed; install its package")
    others = {key: document[key] for key in names if document[key] not in (None, "none")}
    own = {key: value for key, value in document.items() if key not in names}
    try:
        sections = {key: section_of(key, content, name, context) for key, content in others.items()}
        recipe = Recipe.model_validate(own, context={**context, "others": list(sections)})
    except ValidationError as error:
        raise RecipeError(explain(error, name, own, Recipe)) from error
    recipe._folder = folder
    recipe._others = sections
    if context.get("stored"):
        recipe._kept = copy.deepcopy(document)
    return recipe


def section_of(source: str, content: Any, name: str, context: dict[str, Any]) -> Section:
    """The section of a source that another package brings. Raises RecipeError that lists everything wrong with it."""
    model: type[Section] = load_installed(source).settings
    try:
        return model.model_validate(content, context=context)
    except ValidationError as error:
        raise RecipeError(explain(error, f"{name}, section {source}", content, model)) from error
