"""Units of work: what is computed once for a scene or a tile, before blocks that share it are built.

A source states its units; `pipeline/units.py` runs them. A unit is named by what goes into it, so that the same name
always means the same result, and a result that is there is never computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from h2crop_data.errors import H2cropError
from h2crop_data.sources.work import Work

#: `scene`: one scene, whatever is built of it. `tile`: a processing tile (`grid.py`) with all its dates. `scene against
#: tiles`: a scene compared with what tiles under it gave.
Kind = Literal["scene", "tile", "scene against tiles"]


@dataclass(frozen=True)
class Unit:
    """A computation whose result several blocks use."""

    kind: Kind
    #: What is computed, with the source: `enmap cells`.
    step: str
    #: Of what: the id of a scene or tile.
    name: str
    #: Raised whenever the same inputs and settings give another result.
    algorithm: int
    #: What it is computed from, as plain data, wherever files lie.
    inputs: Any
    #: Settings that change its result, as plain data.
    settings: Any
    #: Given the files with the results of `needs`, in their order, gives the result. It need not say what `inputs`
    #: says: where files lie, for example. Raises H2cropError.
    compute: Callable[[Sequence[Path]], bytes] = field(compare=False, repr=False)
    #: The units whose results it takes.
    needs: tuple[Unit, ...] = ()
    #: Its result follows from what the input hash of its blocks has anyway: its id does not enter that.
    implied: bool = False
    #: What tells that its files were replaced although the inputs are called as before, as plain data; not in its id: a
    #: result that was kept with another stamp is computed again.
    stamp: Any = field(default=None, compare=False)
    #: What it takes, about, for estimates; None where nobody says.
    work: Callable[[], Work] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def id(self) -> str:
        """SHA-256 of everything that goes into its result; of the units it needs, their ids."""
        parts = [self.kind, self.step, self.name, self.algorithm, self.inputs, self.settings]
        text = json.dumps([*parts, [unit.id for unit in self.needs]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class ProvisionalResult(bytes):
    """A result for this build alone, because something could not be read; the next one computes it again."""


@dataclass(frozen=True)
class UnitResult:
    """What became of a unit: a file, or an error."""

    file: Path | None = None
    error: H2cropError | None = None
    #: Seconds it took; 0 where it was there.
    seconds: float = 0.0
    #: The same by step, with those of what was run for it alone or, where several need that, for the first of them.
    steps: Mapping[str, float] = field(default_factory=dict)

    def read(self) -> bytes:
        """The result. Raises the error of the unit, or of one it needs."""
        if self.error is not None:
            raise self.error
        assert self.file is not None, "a unit gives a file or an error"
        return self.file.read_bytes()


#: Unit id -> result.
Results = Mapping[str, UnitResult]


class RunUnits(Protocol):
    """Runs units, each once, and gives their results by id."""

    def __call__(self, units: Sequence[Unit], tolerated: type[H2cropError]) -> Results:
        """The results of units. Errors other than `tolerated` end the run and are raised."""


def hashed_ids(units: Sequence[Unit]) -> list[list[str]]:
    """What the units of a block add to its input hash: nothing where all of them are implied."""
    ids = sorted({unit.id for unit in units if not unit.implied})
    return [ids] if ids else []
