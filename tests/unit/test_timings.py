"""Which step of a build each stopwatch belongs to, where the time of a run went, and in which state a build is."""

from __future__ import annotations

import ast
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import h2crop_data
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.build_state import SeasonState, StateFacts, rate_of
from h2crop_data.pipeline.run_notes import RunNotes, first_lines
from h2crop_data.pipeline.run_status import STATUS_FILE, RunStatus, read_status
from h2crop_data.pipeline.timings import ROWS_KEPT, TIMING_COLUMNS, TIMINGS, RunName, Spent, TimeTally, Timings
from h2crop_data.sources.timing import BUILD_STEPS, OTHER, STEP_OF, step_of
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import Holder

PACKAGE = Path(h2crop_data.__file__).parent
NOON, LONG_AGO = datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)


def names_of_steps() -> set[str]:
    """What stopwatches and units of the package call their steps: texts, and constants that stand for texts."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    constants = {
        node.targets[0].id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given: list[ast.expr] = []
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "step"
            and "watch" in ast.unparse(node.func.value)
        ):
            given = node.args[:1]
        elif isinstance(node.func, ast.Name) and node.func.id == "Unit":
            given = [word.value for word in node.keywords if word.arg == "step"]
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "phase":
            given = node.args[:1]
        for value in given:
            found.add(value.value if isinstance(value, ast.Constant) else constants[ast.unparse(value)])
    return found


def test_every_stopwatch_unit_and_phase_belongs_to_a_step() -> None:
    found = names_of_steps()
    assert {"composite", "rasterize parcels", "sentinel2 masks", "enmap match", "planning", "sealing"} <= found
    # What the engine measures without a stopwatch.
    found |= {"compress and write", "hash", "failed"}
    assert found == STEP_OF.keys()
    assert set(STEP_OF.values()) == set(BUILD_STEPS)


def test_steps_of_other_packages_belong_to_the_one_they_begin_with() -> None:
    assert [step_of(name) for name in ("read terrain", "composite", "whiten")] == ["read", "composite", OTHER]


def spent(kind: Any, name: str, finished: datetime = NOON, **seconds: float) -> Spent:
    return Spent(kind, name, {step.replace("_", " "): value for step, value in seconds.items()}, finished, 2022)


def test_where_the_time_went() -> None:
    tally = TimeTally()
    for one in (
        spent("phase", "planning", planning=3.0),
        spent("phase", "blocks", blocks=9.0),
        spent("block", "1", composite=2.0, hash=1.0),
        spent("block", "2", composite=4.0),
    ):
        tally.add(one)
    before = tally.copy()
    tally.add(spent("unit", "masks of a tile", sentinel2_masks=5.0))
    assert before.result().steps == {"composite": 6.0, "search": 3.0, "write": 1.0}
    found = tally.result()
    assert found.steps == {"composite": 6.0, "mask": 5.0, "search": 3.0, "write": 1.0}
    assert found.phases == {"planning": 3.0, "blocks": 9.0}
    assert [one["what"] for one in found.slowest] == [
        "season 2022 unit masks of a tile",
        "season 2022 block 2",
        "season 2022 block 1",
    ]
    assert found.slowest[2] == {"what": "season 2022 block 1", "seconds": 3.0, "step": "composite"}


def test_the_table_grows_by_runs_knows_what_it_has_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    first, second = RunName("one", NOON), RunName("two", NOON + timedelta(hours=1))
    block = spent("block", "1", composite=2.0, hash=1.0)
    # What is written again in one run takes the place of what it wrote before.
    timings = Timings(storage, tmp_path / "units", first)
    timings.write([block], [])
    timings.add([block])
    timings.write([spent("reading", "a", composite=1.0)], [])
    late = Timings(storage, tmp_path / "units", second, first)
    assert late.knows(block)
    assert not late.knows(spent("block", "2", composite=2.0))
    late.write(
        [spent("block", "3", second.begun or NOON, composite=1.0)],
        [
            spent("block", "2", NOON + timedelta(minutes=1), hash=1.0),
            spent("block", "0", NOON - timedelta(days=1), hash=1.0),
        ],
    )
    table = pd.read_parquet(io.BytesIO(storage.read(TIMINGS)))
    assert [(row["run"], row["name"], row["detail"]) for row in table.to_dict("records")] == [
        ("one", "1", "composite"),
        ("one", "1", "hash"),
        ("one", "a", "composite"),
        ("one", "2", "hash"),
        ("", "0", "hash"),
        ("two", "3", "composite"),
    ]
    assert table["step"].tolist() == ["composite", "write", "composite", "write", "write", "composite"]
    assert ROWS_KEPT > 10_000
    monkeypatch.setattr("h2crop_data.pipeline.timings.ROWS_KEPT", 4)
    Timings(storage, tmp_path / "units", RunName("three", NOON)).write([block], [])
    kept = pq.read_table(io.BytesIO(storage.read(TIMINGS)))
    assert kept.schema.names == TIMING_COLUMNS.names
    assert kept["run"].to_pylist() == ["", "two", "three", "three"]


def test_a_damaged_table_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = LocalStorage(tmp_path)
    storage.write(TIMINGS, [b"PAR1 but not really"])
    timings = Timings(storage, tmp_path / "units", RunName("one", NOON))
    assert "is damaged and begun anew" in caplog.text
    timings.write([spent("block", "1", hash=1.0)], [])
    assert len(pd.read_parquet(tmp_path / TIMINGS)) == 1


def test_phases_within_others_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 10.0])
    monkeypatch.setattr("h2crop_data.pipeline.run_notes.time.perf_counter", lambda: next(clock))
    notes = RunNotes()
    with notes.phase("blocks"), notes.phase("units"):
        assert notes.facts()["phase"] == "units"
    assert notes.time_spent().phases == {"blocks": 2.0 + 4.0, "units": 3.0}


def test_errors_in_a_status_are_short_and_without_secrets() -> None:
    error = StoreError("cannot read https://archive/a.tif?X-Amz-Signature=abc: no\n" + "b\n" * 9)
    assert first_lines(error) == "cannot read https://archive/a.tif: no\nb\nb"
    assert len(first_lines("x" * 9999)) == 500
    assert first_lines(KeyboardInterrupt()) == "KeyboardInterrupt"


# The state of a build


def run(**changes: Any) -> RunStatus:
    """What a run says that writes a status every five seconds."""
    facts: dict[str, Any] = {
        "version": 1,
        "run": "one",
        "hold": "h",
        "command": "build",
        "software": "0.1.0",
        "host": "node",
        "process": 7,
        "begun": NOON - timedelta(hours=2),
        "written": NOON,
        "every": 5.0,
        "progressed": NOON,
        "state": "working",
        "phase": "blocks",
        "phase_begun": NOON - timedelta(hours=1),
    }
    return RunStatus.model_validate(facts | changes)


def season(done: int, *, released: bool = False) -> SeasonState:
    return SeasonState(
        blocks=3,
        blocks_done=done,
        samples=6,
        samples_done=2 * done,
        released=released,
        scenes_left_out={},
        empty_months=[],
    )


ALIVE, DEAD = (Holder("node", 7, "2026-11-30T10:00:00Z", "h", alive) for alive in (True, False))
OTHER_COMMAND = Holder("node", 8, "2026-11-30T11:59:00Z", "i", True)
EARLIER = NOON - timedelta(minutes=40)


@pytest.mark.parametrize(
    ("holder", "last", "release", "done", "state", "words"),
    [
        (None, None, None, None, "not begun", "nothing was planned"),
        (ALIVE, None, None, None, "running", "has not said anything yet"),
        (ALIVE, run(), None, 1, "running", "process 7 on node"),
        (OTHER_COMMAND, run(), 1, 3, "running", "process 8 on node, since .* says nothing"),
        (ALIVE, run(written=EARLIER), None, 1, "stuck", "no sign of life for 40 min"),
        (ALIVE, run(written=NOON - timedelta(seconds=59)), None, 1, "running", ""),
        (ALIVE, run(every=60.0, written=NOON - timedelta(seconds=200)), None, 1, "running", ""),
        (ALIVE, run(progressed=EARLIER), None, 1, "stuck", "lives, but nothing was finished or begun for 40 min"),
        (
            DEAD,
            run(written=EARLIER),
            None,
            1,
            "dead",
            "without a word, in the phase `blocks`; run the same command again",
        ),
        (None, run(state="interrupted"), None, 1, "dead", "was interrupted while blocks; run the same command again"),
        (None, None, None, 1, "dead", "the store is not finished; run the same command again"),
        (DEAD, None, None, None, "dead", "nobody builds"),
        (
            None,
            run(state="failed", error="1 of 3 blocks failed:\nx"),
            None,
            2,
            "failed",
            "failed: 1 of 3 blocks failed:; ",
        ),
        (None, run(state="failed", error="no catalog"), None, None, "failed", "no catalog"),
        (None, run(state="finished"), 1, 3, "finished", "release 1 has all"),
        (None, None, 1, 3, "finished", "release 1 has all"),
        (None, run(state="failed", error="another recipe"), 1, 3, "finished", "has all .* failed: another recipe"),
        (None, run(state="finished"), None, None, "finished", "nothing to build"),
        (None, None, 1, None, "finished", "release 1"),
        # Blocks were added to a released season, and the builder died.
        (DEAD, run(), 1, 2, "dead", ""),
    ],
)
def test_the_state_of_a_build(
    holder: Holder | None, last: RunStatus | None, release: int | None, done: int | None, state: str, words: str
) -> None:
    seasons = {} if done is None else {2022: season(done, released=release is not None and done == 3)}
    facts = StateFacts(holder, last, release, seasons, sealing=False, now=NOON, stuck_minutes=30.0)
    found, explanation = facts.state()
    assert found == state
    assert pd.Series([explanation]).str.contains(words).all(), explanation


def test_a_store_whose_last_sealing_was_broken_off_is_not_finished() -> None:
    facts = StateFacts(None, None, 1, {2022: season(3, released=True)}, sealing=True, now=NOON, stuck_minutes=30.0)
    assert facts.state()[0] == "dead"
    grown = StateFacts(None, None, 1, {2022: season(3, released=False)}, sealing=False, now=NOON, stuck_minutes=30.0)
    assert grown.state()[0] == "dead"


def test_the_rate_is_that_of_the_last_half_hour() -> None:
    points = [
        {"time": NOON - timedelta(minutes=ago), "blocks": blocks, "samples": 10 * blocks}
        for ago, blocks in ((60, 0), (20, 100), (10, 104))
    ]
    found = rate_of(run(recent=points, blocks_built=110, samples_built=1100))
    assert found is not None
    assert (found.minutes, found.blocks_per_hour, found.samples_per_hour) == (20.0, 30.0, 300.0)
    assert rate_of(run()) is None
    assert rate_of(run(recent=points[:1])) is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b'{"version": 2}', "is of version 2, written by a newer h2crop"),
        (b'{"version": 1, "run": "one"}', "is damaged .hold: Field required.; delete it"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
    ],
)
def test_what_is_no_status_is_told(tmp_path: Path, written: bytes, words: str) -> None:
    storage = LocalStorage(tmp_path)
    assert read_status(storage) is None
    storage.write(STATUS_FILE, [written])
    with pytest.raises(StoreError, match=words):
        read_status(storage)


def test_keys_that_a_later_version_adds_are_ignored(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write(STATUS_FILE, [run().model_dump_json().replace("{", '{"more": 1, ', 1).encode()])
    assert read_status(storage) == run()
