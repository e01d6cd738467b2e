"""Which step of a build each stopwatch belongs to, where the time of a run went, and in which state a build is."""

from __future__ import annotations

import ast
import io
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow.parquet as pq
import pytest
from source_trees import nodes_of, tree_of

import h2crop_data
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.build_state import SeasonState, StateFacts, rate_of
from h2crop_data.pipeline.engine import BlockOutcome, Workers, gaps_in, name_of_reading
from h2crop_data.pipeline.run_notes import Keeper, RunNotes, first_lines, kept_notes
from h2crop_data.pipeline.run_status import STATUS_FILE, RunStatus, read_status
from h2crop_data.pipeline.timings import ROWS_KEPT, TIMING_COLUMNS, TIMINGS, RunName, Spent, TimeTally, Timings
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.timing import BUILD_STEPS, OTHER, STEP_OF, step_of
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import Holder

PACKAGE = Path(h2crop_data.__file__).parent
NOON, LONG_AGO = datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)


def names_of_steps() -> set[str]:
    """What stopwatches and units of the package call their steps: texts, and constants that stand for texts."""
    paths = list(PACKAGE.rglob("*.py"))
    constants = {
        node.targets[0].id: node.value.value
        for path in paths
        for node in tree_of(path).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    found: set[str] = set()
    for node in (node for path in paths for node in nodes_of(path) if isinstance(node, ast.Call)):
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
    assert before.result().steps == {"composite": 6.0, "write": 1.0}
    found = tally.result()
    # Workers compute planning's units too: what planning takes by the clock is no worker's time.
    assert found.steps == {"composite": 6.0, "mask": 5.0, "write": 1.0}
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
    assert not late.is_new(block)
    assert late.is_new(spent("block", "2", composite=2.0))
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
    Timings(storage, tmp_path / "units", RunName("three", NOON), rows_kept=4).write([block], [])
    kept = pq.read_table(io.BytesIO(storage.read(TIMINGS)))
    assert kept.schema.names == TIMING_COLUMNS.names
    assert kept["run"].to_pylist() == ["", "two", "three", "three"]


def test_rows_that_were_dropped_do_not_come_back(tmp_path: Path) -> None:
    storage, units = LocalStorage(tmp_path), tmp_path / "units"
    blocks = [spent("block", str(hour), NOON + timedelta(hours=hour), hash=1.0) for hour in range(4)]
    Timings(storage, units, RunName("one", NOON), rows_kept=2).write(blocks, [])
    write_unit(units, "old", NOON)
    write_unit(units, "new", NOON + timedelta(hours=4))
    late = Timings(storage, units, RunName("two", NOON + timedelta(hours=5)))
    assert [late.is_new(block) for block in blocks] == [False] * 4
    # A run that was killed finished these since.
    assert late.is_new(spent("block", "4", NOON + timedelta(hours=4), hash=1.0))
    assert [one.name for one in late.earlier_units] == ["masks new"]
    # Where there is no table any more, markers tell all.
    (tmp_path / TIMINGS).unlink()
    assert Timings(storage, units, RunName("three", NOON)).is_new(blocks[0])


def write_unit(folder: Path, name: str, finished: datetime) -> Path:
    """The marker of a unit of work."""
    path = folder / "masks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"seconds": 1.0, "finished": finished.isoformat(), "worker": "node:1/a", "software": "0.1.0"}
    path.write_text(json.dumps({"step": "masks", "name": name, "spent": told}))
    os.utime(path, (finished.timestamp(), finished.timestamp()))
    return path


def test_units_whose_markers_are_deleted_keep_their_rows(tmp_path: Path) -> None:
    timings = Timings(LocalStorage(tmp_path), tmp_path / "units", RunName("one", NOON))
    marker = write_unit(tmp_path / "units", "a", NOON)
    assert [one.name for one in timings.own_units()] == ["masks a"]
    marker.unlink()
    write_unit(tmp_path / "units", "b", NOON)
    assert [one.name for one in timings.own_units()] == ["masks a", "masks b"]


def test_an_end_between_two_lines_of_the_keeper_is_not_missed(tmp_path: Path) -> None:
    class EndsAsItIsCleared(threading.Event):
        def clear(self) -> None:
            keeper._ended.set()
            self.set()
            super().clear()

    notes = RunNotes()
    notes.changed = EndsAsItIsCleared()
    keeper = Keeper(notes, LocalStorage(tmp_path), {})
    keeper.every = 30.0
    keeper.start()
    keeper._thread.join(10)
    assert not keeper._thread.is_alive()


def test_what_cannot_be_written_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hold_store(tmp_path / "store") as builder, kept_notes(builder, "build", Workers(1)):
        (tmp_path / "store" / TIMINGS / "in the way").mkdir(parents=True)
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in told] == ["the timings at the end of the build could not be written"]


@pytest.mark.slow
def test_a_storage_that_does_not_answer_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = threading.Event()

    class Hanging(LocalStorage):
        def replace(self, *arguments: Any) -> str:
            answers.wait(30)
            return super().replace(*arguments)

    fixed = {name: getattr(run(), name) for name in FIXED}
    keeper = Keeper(RunNotes(), Hanging(tmp_path), fixed, last_within=0.1)
    keeper.start()
    keeper.end()
    assert "the last status and timings of the build were not written within 0.1 s" in caplog.text
    answers.set()
    keeper._thread.join(10)


def test_gaps_are_known_as_blocks_come_and_of_blocks_of_before() -> None:
    notes = RunNotes()
    lost = {"block": 1, "provenance": [{"s2_gaps": ["b"]}, {"s2_gaps": []}, {"s2_gaps": None}, {}]}
    notes.note_earlier(2022, cast(Marker, lost), gaps_in(["sentinel2", "parcels"], cast(Any, lost["provenance"])))
    notes.note_block(BlockOutcome(2022, 2, 1, 1, {}, gaps=("a", "b")), 1, 2)
    assert (notes.facts()["gaps"], notes.facts()["gap_scenes"]) == (["a", "b"], 2)
    notes.note_release(1, [f"scene {i:02d}" for i in range(30)])
    assert (len(notes.facts()["gaps"]), notes.facts()["gap_scenes"]) == (20, 30)


def test_readings_of_one_scene_are_told_apart() -> None:
    names = {name_of_reading(Reading("enmap", name * 8, 2022, (), 0, None, "a scene")) for name in ("ab", "cd")}
    assert names == {"enmap a scene abababababab", "enmap a scene cdcdcdcdcdcd"}


def test_a_damaged_table_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = LocalStorage(tmp_path)
    storage.write(TIMINGS, [b"PAR1 but not really"])
    timings = Timings(storage, tmp_path / "units", RunName("one", NOON))
    assert "is damaged and is started again" in caplog.text
    timings.write([spent("block", "1", hash=1.0)], [])
    assert len(pd.read_parquet(tmp_path / TIMINGS)) == 1


def test_phases_within_others_count_once() -> None:
    second = [0.0]
    notes = RunNotes(clock=lambda: second[0])
    second[0] = 1.0
    with notes.phase("blocks"):
        second[0] = 3.0
        with notes.phase("units"):
            assert notes.facts()["phase"] == "units"
            second[0] = 6.0
        second[0] = 10.0
    assert notes.time_spent().phases == {"blocks": 2.0 + 4.0, "units": 3.0}


def test_errors_in_a_status_are_short_and_without_secrets() -> None:
    error = StoreError("cannot read https://archive/a.tif?X-Amz-Signature=abc: no\n" + "b\n" * 9)
    assert first_lines(error) == "cannot read https://archive/a.tif: no\nb\nb"
    assert len(first_lines("x" * 9999)) == 500
    assert first_lines(KeyboardInterrupt()) == "KeyboardInterrupt"


# The state of a build

#: What every status of a run says.
FIXED = ("version", "run", "hold", "command", "software", "host", "process", "begun", "workers")


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
        (None, None, None, None, "not begun", "nothing has been planned"),
        (ALIVE, None, None, None, "running", "has not reported anything yet"),
        (ALIVE, run(), None, 1, "running", "process 7 on node"),
        (OTHER_COMMAND, run(), 1, 3, "running", "process 8 on node, since .* without reports"),
        (ALIVE, run(written=EARLIER), None, 1, "stuck", "has reported nothing for 40 min"),
        (ALIVE, run(written=NOON - timedelta(seconds=59)), None, 1, "running", ""),
        (ALIVE, run(every=60.0, written=NOON - timedelta(seconds=200)), None, 1, "running", ""),
        (ALIVE, run(progressed=EARLIER), None, 1, "stuck", "is alive, but nothing was started or finished for 40 min"),
        (
            DEAD,
            run(written=EARLIER),
            None,
            1,
            "dead",
            "without a report, in the phase `blocks`; rerun the same command",
        ),
        (None, run(state="interrupted"), None, 1, "dead", "was interrupted while blocks; rerun the same command"),
        (None, None, None, 1, "dead", "the store is not finished; rerun the same command"),
        (DEAD, None, None, None, "dead", "no builder is working"),
        (
            None,
            run(state="failed", error="1 of 3 blocks failed:\nx"),
            None,
            2,
            "failed",
            "failed: 1 of 3 blocks failed:; ",
        ),
        (None, run(state="failed", error="no catalog"), None, None, "failed", "no catalog"),
        (None, run(state="finished"), 1, 3, "finished", "release 1 contains all"),
        (None, None, 1, 3, "finished", "release 1 contains all"),
        (None, run(state="failed", error="another recipe"), 1, 3, "finished", "contains all .* failed: another recipe"),
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


def facts_of(holder: Holder | None, last: RunStatus | None, **changes: Any) -> StateFacts:
    """Facts of a store of a season of three blocks, two of them built, unless changed."""
    facts: dict[str, Any] = {"release": None, "seasons": {2022: season(2)}, "sealing": False, "now": NOON}
    return StateFacts(holder, last, **(facts | {"stuck_minutes": 30.0} | changes))


def test_nobody_is_told_to_end_a_run_that_makes_a_release() -> None:
    state, words = facts_of(ALIVE, run(progressed=EARLIER, phase="sealing")).state()
    assert state == "stuck"
    assert "do not end it" in words
    assert "rerun the same command" not in words


def test_a_pause_is_no_standstill() -> None:
    ended = NOON - timedelta(minutes=5)
    assert facts_of(ALIVE, run(progressed=EARLIER, paused_until=ended)).state()[0] == "running"
    assert facts_of(ALIVE, run(progressed=EARLIER, paused_until=EARLIER)).state()[0] == "stuck"
    notes = RunNotes()
    notes.note_pause(3600.0, "pause, then plan is retried")
    facts = notes.facts()
    assert (facts["paused_until"] - facts["progressed"], facts["doing"]) == (
        timedelta(hours=1),
        "pause, then plan is retried",
    )


def test_a_lock_that_cannot_be_seen_from_here() -> None:
    state, words = facts_of(DEAD, run(), can_miss_lock=True).state()
    assert (state, words) == ("running", "`build`, process 7 on node; its lock cannot be seen from here")
    assert facts_of(DEAD, run(), can_miss_lock=True).last_run == "running"
    for changes in (
        {"can_miss_lock": False},
        {"can_miss_lock": True, "now": NOON + timedelta(seconds=61)},
    ):
        assert facts_of(DEAD, run(), **changes).state()[0] == "dead"
    assert facts_of(DEAD, run(hold="i"), can_miss_lock=True).state()[0] == "dead"


@pytest.mark.parametrize(
    ("holder", "last", "found"),
    [
        (None, None, None),
        (None, run(state="finished"), "finished"),
        (None, run(state="failed", error="no catalog"), "failed"),
        (None, run(state="interrupted"), "dead"),
        (DEAD, run(), "dead"),
        (ALIVE, run(), "running"),
        (OTHER_COMMAND, run(), "dead"),
    ],
)
def test_what_became_of_the_last_run(holder: Holder | None, last: RunStatus | None, found: str | None) -> None:
    facts = facts_of(holder, last, release=1, seasons={2022: season(3, released=True)})
    assert facts.last_run == found
    if holder is not OTHER_COMMAND and found == "dead":
        assert facts.state()[0] == "finished"
        assert "ended early, while blocks: rerun the same command" in facts.state()[1]


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
