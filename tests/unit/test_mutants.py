"""The sweep of mutants: which changes it makes, and that it sees which of them tests notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from house_words import banned_in_page
from script_modules import CHECKOUT, script_module

SOURCE = '''
"""A module."""
from __future__ import annotations

LIMIT: int = 3


class Box:
    size: int = 2

    def fits(self, n: int, *others: int) -> bool:
        """Whether it does."""
        if n < 0:
            raise ValueError(f"{n + 1} things")
        total = n + sum(others)
        self.total = total
        room = self.size * LIMIT
        return not self.full and total <= room
'''
CHANGES = {
    ("", "constant", "`LIMIT: int = 3` → `LIMIT: int = 4`"),
    ("", "constant", "`LIMIT: int = 3` → `LIMIT: int = 2`"),
    ("", "constant", "`size: int = 2` → `size: int = 3`"),
    ("", "constant", "`size: int = 2` → `size: int = 1`"),
    ("Box.fits", "boundary", "`n < 0` → `n <= 0`"),
    ("Box.fits", "comparison", "`n < 0` → `n >= 0`"),
    ("Box.fits", "constant", "`n < 0` → `n < 1`"),
    ("Box.fits", "constant", "`n < 0` → `n < -1`"),
    ("Box.fits", "dropped statement", "without `raise ValueError(f'{n + 1} things')`"),
    ("Box.fits", "arithmetic", "`total = n + sum(others)` → `total = n - sum(others)`"),
    ("Box.fits", "dropped statement", "without `self.total = total`"),
    ("Box.fits", "arithmetic", "`room = self.size * LIMIT` → `room = self.size / LIMIT`"),
    ("Box.fits", "boolean", "`return not self.full and total <= room` → `return not self.full or total <= room`"),
    ("Box.fits", "boolean", "`not self.full and total <= room` → `self.full and total <= room`"),
    ("Box.fits", "boundary", "`not self.full and total <= room` → `not self.full and total < room`"),
    ("Box.fits", "comparison", "`not self.full and total <= room` → `not self.full and total > room`"),
}


@pytest.fixture(scope="module")
def mutations() -> ModuleType:
    """What makes mutants."""
    return script_module("tests/sweeps/mutations.py")


def test_every_small_change_of_a_module_is_made_and_its_errors_stay(mutations: ModuleType) -> None:
    found = mutations.mutants_of("box.py", SOURCE)
    assert {(mutant.function, mutant.kind, mutant.change) for mutant in found} == CHANGES
    assert len(found) == len(CHANGES)
    longer = mutations.mutants_of("box.py", "import os\n" + SOURCE.replace("A module.", "A module\n\nof boxes."))
    assert [mutant.key for mutant in longer] == [mutant.key for mutant in found], "a key depends on other lines"


def test_words_do_not_change_what_a_function_does(mutations: ModuleType) -> None:
    before = mutations.function_states(SOURCE)
    assert set(before) == {"", "Box.fits"}
    assert mutations.function_states(SOURCE.replace("Whether it does.", "Whether all\n\nof it does.")) == before
    assert mutations.function_states(SOURCE.replace("n < 0", "n < 1"))[""] == before[""]
    assert mutations.function_states(SOURCE.replace("n < 0", "n < 1"))["Box.fits"] != before["Box.fits"]
    assert mutations.function_states(SOURCE.replace("size: int = 2", "size: int = 3"))[""] != before[""]


def test_a_changed_module_does_what_is_said(mutations: ModuleType) -> None:
    def run(place: int) -> Any:
        names: dict[str, Any] = {}
        exec(mutations.mutated(SOURCE, place, "box.py"), names)
        box = names["Box"]()
        box.full = False
        return box

    places = {mutant.change: mutant.place for mutant in mutations.mutants_of("box.py", SOURCE)}
    assert not run(places["`room = self.size * LIMIT` → `room = self.size / LIMIT`"]).fits(6)
    assert run(places["`LIMIT: int = 3` → `LIMIT: int = 4`"]).fits(8)
    assert run(places["`n < 0` → `n <= 0`"]).fits(6)
    with pytest.raises(ValueError, match="1 things"):
        run(places["`n < 0` → `n <= 0`"]).fits(0)
    assert not hasattr(run(places["without `self.total = total`"]), "total")


#: Tries mutants of the modules and changes in its arguments with the tests of where the sun stands.
SWEEP = """
import json, sys, time
from pathlib import Path
import mutants

kept = mutants.Kept(Path(sys.argv[1]))
tries = mutants.Tries(mutants.recorded(kept, ["tests/unit/test_sun.py"]), kept, 10.0)
wanted = dict(json.loads(sys.argv[2]))
tries.run([m for m in mutants.all_mutants() if wanted.get(m.change) == m.module], time.monotonic() + 300)
"""
SUN, NEIGHBOURS = "h2crop_data/sentinel2/sun.py", "h2crop_data/sentinel2/neighbours.py"
FOUND = {
    (SUN, "`mean_longitude = 280.46 + 0.9856474 * days` → `mean_longitude = 280.46 - 0.9856474 * days`"): "killed",
    # Some 0.005 degrees in our years: below what the tests ask for.
    (SUN, "`math.radians(23.439 - 4e-07 * days)` → `math.radians(23.439 + 4e-07 * days)`"): "survived",
    # Code that runs when the module is imported.
    (SUN, "`datetime(2000, 1, 1, 12, tzinfo=UTC)` → `datetime(2000, 1, 2, 12, tzinfo=UTC)`"): "killed",
    (NEIGHBOURS, "`len(values) - 1` → `len(values) - 2`"): "not run",
}


def test_a_page_counts_every_result_and_has_no_banned_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "tests/sweeps"))
    sweep = script_module("tests/sweeps/mutants.py")
    of_sun = sweep.mutants_of(SUN, (CHECKOUT / SUN).read_text(encoding="utf-8"))
    kinds = ["killed", "timed out", "survived", "survived", "not run", "failed"]
    results = {
        mutant.key: {"result": kind, "left_out": 3, "function": sweep.function_digest(mutant)}
        for mutant, kind in zip(of_sun, kinds, strict=False)
    }
    page = sweep.page(of_sun, results, 1)
    assert "6 of 64 possible changes were tried; tests noticed 2, 3 were not noticed, 1 cannot run." in page
    assert "| `sentinel2/sun.py` | 64 | 6 | 1 | 1 | 2 | 1 | 1 |" in page
    assert banned_in_page(page) == []
    reasons = sweep.reasons_by_key()
    assert len(reasons) > 50
    assert banned_in_page("\n\n".join(reasons.values())) == []
    assert all(": " in key for key in reasons), "a reason for all changes of a function"


@pytest.mark.slow
def test_a_sweep_tells_what_tests_notice_from_what_they_do_not(tmp_path: Path) -> None:
    wanted = json.dumps([[change, module] for module, change in FOUND])
    subprocess.run(
        [sys.executable, "-c", SWEEP, str(tmp_path), wanted],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests/sweeps'}"},
        check=True,
        timeout=300,
    )
    results = json.loads((tmp_path / "mutant-results.json").read_text(encoding="utf-8"))
    found = {(key.partition(" ")[0], key.partition(": ")[2]): result["result"] for key, result in results.items()}
    assert found == FOUND
    assert {result["by"].partition("::")[0] for result in results.values()} == {"", "tests/unit/test_sun.py"}
