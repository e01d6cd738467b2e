"""Readers of a store that somebody writes: all they read in one pass must be one release, whole.

`Witness.look()` reads a store by every way of reading there is and compares each with the truth of the release that it
read; `Witness.validate()` expects that `h2crop validate --quick` finds no error. `after_each_step` calls something
after every file that a command writes or deletes: what a reader can meet at any moment, and what a command leaves that
dies there.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

import h2crop_data
from h2crop_data.cube.reading import load_root, read_index
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import Storage
from h2crop_data.training.dataset import CropSamples
from h2crop_data.validation.validate import validate_store

#: What readers of one release must find, as JSON.
Truth = dict[str, Any]


def truth_of(store: Path, release: int | None = None) -> Truth:
    """What the readers of a release find in a store at rest."""
    root = load_root(store, release)
    number = int(root["attributes"]["release"])
    found: Truth = {}
    for season in root["attributes"]["seasons"]:
        opened = h2crop_data.open(store, int(season), release=number)
        found[season] = {
            "ids": opened["sample"].values.tolist(),
            "places": digest(np.stack([opened["x0"].values, opened["y0"].values])),
            "pixels": digest(opened["label"].isel(sample=[0, -1]).values) if opened.sizes["sample"] else "",
            "dates": [str(day)[:10] for day in opened["time"].values],
        }
    found["blocks"] = rows_of(store, number)
    return found


def rows_of(store: Path, release: int) -> list[list[Any]]:
    """Season, number and state of every block of a release."""
    blocks = read_index(store, "blocks", release)
    # Format 1.0 knows no retracted blocks.
    names = [name for name in ("season", "block", "retracted") if name in blocks]
    return blocks[names].to_numpy().tolist()


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


class Witness:
    """Somebody who reads a store while it is written. truths: release -> what its readers must find."""

    def __init__(self, store: Path, truths: dict[int, Truth]) -> None:
        self.store = store
        self.truths = truths
        #: Releases that were read, in order, each once.
        self.seen: list[int] = []

    @property
    def has_release(self) -> bool:
        """Whether there is anything to read."""
        return (self.store / "zarr.json").exists()

    def look(self) -> None:
        """Read the store by every way, each against the truth of the release that it says it is."""
        number = int(load_root(self.store)["attributes"]["release"])
        assert number in self.truths, f"release {number} was read, which nobody makes"
        self.seen += [] if self.seen[-1:] == [number] else [number]
        truth = self.truths[number]
        assert truth_of(self.store, number) == truth, f"release {number} reads otherwise than at rest"
        for season, expected in truth.items():
            if season == "blocks":
                continue
            opened = h2crop_data.open(self.store, int(season))
            of_opened = self.truths[int(opened.attrs["release"])].get(season, {})
            assert opened["sample"].values.tolist() == of_opened.get("ids"), f"open() mixes releases in {season}"
            samples = CropSamples(self.store, seasons=[int(season)], arrays=["label"], release=number)
            assert list(samples.ids) == expected["ids"], f"CropSamples differs from open() in {season}"
            if len(samples):
                ends = np.stack([samples[0]["label"].numpy(), samples[len(samples) - 1]["label"].numpy()])
                assert digest(ends) == expected["pixels"], f"CropSamples reads other pixels in {season}"

    def validate(self) -> None:
        """`h2crop validate --quick` finds no error, whatever is being written."""
        result = validate_store(self.store, mode="quick", workers=1)
        errors = [finding for finding in result.findings if finding.severity == "error"]
        assert errors == [], f"release {result.release}: {errors[:3]}"


@contextmanager
def after_each_step(store: Path, look: Callable[[str], None]) -> Iterator[list[str]]:
    """Call `look` with its name after every file that is written to, shared with or deleted from a store in a folder,
    by any thread of this process; gives the list of these names."""
    steps: list[str] = []
    busy = threading.RLock()
    write, delete, share = LocalStorage.write_file, LocalStorage.delete, LocalStorage.share

    def note(storage: LocalStorage, step: str) -> None:
        if Path(storage.location) == store:
            with busy:
                steps.append(step)
                look(step)

    def write_file(self: LocalStorage, name: str, parts: Iterable[bytes], *, read_only: bool) -> None:
        write(self, name, parts, read_only=read_only)
        note(self, f"write {name}")

    def delete_file(self: LocalStorage, name: str) -> None:
        delete(self, name)
        note(self, f"delete {name}")

    def share_file(self: LocalStorage, name: str, source: Storage) -> None:
        share(self, name, source)
        note(self, f"write {name}")

    patched = {"write_file": write_file, "delete": delete_file, "share": share_file}
    for name, method in patched.items():
        setattr(LocalStorage, name, method)
    try:
        yield steps
    finally:
        for name, method in (("write_file", write), ("delete", delete), ("share", share)):
            setattr(LocalStorage, name, method)


class WitnessProcess:
    """A process that reads and validates a store in a loop, from `with` to its end; raises what it saw as errors."""

    def __init__(self, store: Path, truths: dict[int, Truth]) -> None:
        context = multiprocessing.get_context("spawn")
        self.stop, self.results = context.Event(), context.Queue()
        self.process = context.Process(target=witness_in_a_loop, args=(store, truths, self.stop, self.results))

    def __enter__(self) -> WitnessProcess:
        self.process.start()
        assert self.results.get(timeout=120) == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.errors, self.passes, self.seen = self.results.get(timeout=300)
        self.process.join(60)


def witness_in_a_loop(store: Path, truths: dict[int, Truth], stop: Event, results: Any) -> None:
    """Look and validate until told to stop; gives errors, the number of passes, and the releases that were read."""
    witness, errors, passes = Witness(store, truths), list[str](), 0
    results.put("ready")
    while not stop.is_set():
        for what in (witness.look, witness.validate):
            if not witness.has_release:
                continue
            try:
                what()
            except Exception as error:  # noqa: BLE001 -- whatever a reader meets is told at the end
                errors.append(f"{what.__name__}: {type(error).__name__}: {error}")
            passes += 1
    results.put((errors[:5], passes, witness.seen))
