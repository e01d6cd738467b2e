"""What the published H2Crop dataset looks like: names, shapes, ids, lists, and a fast check of a folder of it.

One HDF5 file a sample, `h5_data/<id>.h5`, and the splits as lists of ids, one a line, `data_lists/<split>.txt`. What is
not stated by its makers but inferred from their ids is marked in docs/published-layout.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from h2crop_data.constants import COARSE, FINE, MONTHS, SENTINEL2_BANDS, SPLITS, TIERS
from h2crop_data.errors import H2cropError
from h2crop_data.progress import Progress, silent
from h2crop_data.published_ids import PublishedId

CELL_SIZE = 1920
ENMAP_BANDS = 218
DATA_FOLDER, LIST_FOLDER = "h5_data", "data_lists"
#: Its configurations and its README call the folder of the lists differently.
LIST_FOLDERS = (LIST_FOLDER, "data_list")
#: Numbers of pixels nobody measured; the published code does not tell them from others.
NO_DATA = 0
#: Problems an error message lists; the exception has all of them.
NAMED = 100

Unlisted = Literal["refuse", "skip", "train"]


@dataclass(frozen=True)
class ArrayForm:
    """Shape and dtype of one of the four datasets every file must have."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


_FINE, _COARSE = CELL_SIZE // FINE, CELL_SIZE // COARSE
#: The four datasets the published code reads, by name.
ARRAYS = {
    "S2_data": ArrayForm((MONTHS, len(SENTINEL2_BANDS), _FINE, _FINE), np.dtype(np.int16)),
    "EnMAP_data": ArrayForm((ENMAP_BANDS, _COARSE, _COARSE), np.dtype(np.int16)),
    "label": ArrayForm((TIERS, _FINE, _FINE), np.dtype(np.uint8)),
    "priors": ArrayForm((TIERS, _FINE, _FINE), np.dtype(np.uint8)),
}


class PublishedError(H2cropError, ValueError):
    """A folder cannot be imported as it is, or a store does not fit the published layout. Has all `problems`."""

    def __init__(self, summary: str, problems: Sequence[str]) -> None:
        told = list(problems[:NAMED])
        if len(problems) > NAMED:
            told.append(f"and {len(problems) - NAMED} more")
        super().__init__("\n  ".join([summary, *told]))
        self.problems = list(problems)


@dataclass(frozen=True)
class PublishedSample:
    """A sample of a published folder."""

    id: PublishedId
    path: Path
    split: str
    #: Its place in the list of its split, from 0.
    position: int


def find_samples(folder: Path, lists: Path | None = None, unlisted: Unlisted = "refuse") -> list[PublishedSample]:
    """The samples of a published folder, in order of split and list.

    folder: has the files in `h5_data/` or in itself, and the lists in `data_lists/` unless `lists` says where else.
    unlisted: what to do with files in no list; `train` puts them behind the training list, in order of name.
    Raises PublishedError with everything that is wrong.
    """
    files = sample_files(folder)
    splits = read_lists(folder, lists)
    problems = [f"{name} is in the lists more than once" for name in listed_twice(splits)]
    listed = {name for names in splits.values() for name in names}
    loose = sorted(files.keys() - listed)
    if loose and unlisted == "refuse":
        problems += [f"{files[name]} is in no list (use --unlisted skip or --unlisted train)" for name in loose]
    if unlisted == "train":
        splits["train"] = [*splits["train"], *loose]
    samples = []
    for split, names in splits.items():
        for position, name in enumerate(names):
            if name not in files:
                problems.append(f"{name} of the list {split} has no file {name}.h5")
                continue
            try:
                samples.append(PublishedSample(PublishedId.parse(name), files[name], split, position))
            except ValueError as error:
                problems.append(f"{files[name]}: {error}")
    if not samples and not problems:
        problems.append("the lists are empty")
    if problems:
        raise PublishedError(f"{folder} cannot be imported:", problems)
    return samples


def sample_files(folder: Path) -> dict[str, Path]:
    """The HDF5 files of a published folder, by name without ending. Raises PublishedError where there are none."""
    inside = folder / DATA_FOLDER
    place = inside if inside.is_dir() else folder
    try:
        files = {path.stem: path for path in sorted(place.iterdir()) if path.suffix == ".h5"}
    except OSError as error:
        raise PublishedError(f"cannot read {place}:", [error.strerror or str(error)]) from error
    if not files:
        raise PublishedError(f"{folder} is not a published dataset:", [f"no .h5 file in {inside} or in {folder}"])
    return files


def read_lists(folder: Path, lists: Path | None) -> dict[str, list[str]]:
    """The ids of each split in the order of its list; a list that is not there is empty.

    Raises PublishedError without any list.
    """
    places = [lists] if lists is not None else [folder / name for name in LIST_FOLDERS]
    for place in places:
        paths = {split: place / f"{split}.txt" for split in SPLITS}
        if any(path.exists() for path in paths.values()):
            return {split: list(ids_of(path)) if path.exists() else [] for split, path in paths.items()}
    looked = " or ".join(map(str, places))
    raise PublishedError(f"{folder} has no lists:", [f"no train.txt, val.txt or test.txt in {looked}; give --lists"])


def ids_of(path: Path) -> Iterator[str]:
    """The ids of a list, one a line; empty lines are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PublishedError("cannot read a list:", [f"{path}: {error}"]) from error
    yield from filter(None, map(str.strip, text.splitlines()))


def listed_twice(splits: dict[str, list[str]]) -> list[str]:
    """The ids that stand in the lists more than once."""
    counts = Counter(name for names in splits.values() for name in names)
    return sorted(name for name, count in counts.items() if count > 1)


def check_files(samples: Sequence[PublishedSample], progress: Progress = silent) -> None:
    """Look at the header of every file; no values are read.

    Raises PublishedError naming every file that is missing something, has another shape or dtype, or does not open.
    """
    problems: list[str] = []
    for done, sample in enumerate(samples):
        progress(done, len(samples), "checking files")
        problems += [f"{sample.path}: {problem}" for problem in file_problems(sample.path)]
    if problems:
        raise PublishedError(f"{len(problems)} problem(s) in the files, nothing was written:", problems)


def file_problems(path: Path) -> list[str]:
    """What is wrong with a file of a sample."""
    try:
        with h5py.File(path, "r") as file:
            problems = [wrong_array(file.get(name), name, form) for name, form in ARRAYS.items()]
            return [problem for problem in problems if problem] + lost_references(file)
    except (OSError, RuntimeError, KeyError) as error:
        return [f"is not a complete HDF5 file ({error})"]


def wrong_array(dataset: Any, name: str, form: ArrayForm) -> str | None:
    """What is wrong with one of the four datasets."""
    if not isinstance(dataset, h5py.Dataset):
        return f"has no dataset {name}"
    found = dataset.dtype.newbyteorder("=")
    if dataset.shape != form.shape or found != form.dtype:
        return f"{name}: expected {form.dtype} {form.shape}, got {found} {dataset.shape}"
    return None


def lost_references(file: h5py.File) -> list[str]:
    """The datasets and attributes that point to other objects of the file: a copy would point nowhere."""
    found: list[str] = []

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and is_reference(item.dtype):
            found.append(f"{name} contains references, which cannot be copied")
        pointing = [key for key in item.attrs if is_reference(item.attrs.get_id(key).dtype)]
        found.extend(f"attribute {key} of {name} is a reference, which cannot be copied" for key in pointing)

    look("/", file)
    file.visititems(look)
    return found


def is_reference(dtype: np.dtype[Any]) -> bool:
    """Whether a type of HDF5 points to objects, also one of lists or records of such."""
    inner = h5py.check_vlen_dtype(dtype)
    if isinstance(inner, np.dtype):
        return is_reference(inner)
    if dtype.fields:
        return any(is_reference(field[0]) for field in dtype.fields.values())
    return h5py.check_ref_dtype(dtype) is not None
