"""Kill every command that changes a store at random moments, with a reader and a validation running all the while.

    python tests/sweeps/kill_commands.py [--kills 5] [--seed 1] [--out FILE]

Each command is started on a copy of a store, ended by SIGKILL at a random moment, and rerun, several times; the last
run ends by itself. All the while another process reads the store by every way there is, against the truth of the
release that it reads, and validates it. What comes out must be what an undisturbed run makes. The exit code is 1
otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "makers"))

from killed_builds import small_region  # noqa: E402 -- found beside the tests alone
from published_files import make_published  # noqa: E402
from witnesses import WitnessProcess, truth_of  # noqa: E402

from h2crop_data.cube.reading import store_attributes  # noqa: E402
from h2crop_data.maintenance.migrate import migrate_store  # noqa: E402
from h2crop_data.maintenance.relabel import relabel_store  # noqa: E402
from h2crop_data.maintenance.retract import prune_store, retract_from_store  # noqa: E402
from h2crop_data.pipeline.build import build_store  # noqa: E402
from h2crop_data.published.importing import import_published  # noqa: E402
from h2crop_data.recipe.model import load_recipe  # noqa: E402

Command = Callable[[Path, Path], object]
#: Seconds that witnesses go on after the last run.
REST_SECONDS = 1.0


def build(folder: Path, store: Path) -> None:
    build_store(load_recipe(folder / "region/recipe.yaml"), store, extend=(store / "zarr.json").exists(), workers=2)


def retract(folder: Path, store: Path) -> None:
    retract_from_store(store, {2022: [1]}, [], "haze")


def prune(folder: Path, store: Path) -> None:
    prune_store(store, [])


def migrate(folder: Path, store: Path) -> None:
    migrate_store(store)


def relabel(folder: Path, store: Path) -> None:
    relabel_store(folder / "grown", store, tables={"fr": folder / "fr.csv"})


def import_files(folder: Path, store: Path) -> None:
    import_published(folder / "published", store, workers=2)


@dataclass
class Row:
    """What became of a command."""

    name: str
    kills: int
    passes: int
    problems: list[str]


def main() -> int:
    """Sweep, write, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TESTS.parent / "docs" / "killed-commands.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-commands-"))
    try:
        rows = swept(folder, arguments.kills, random.Random(arguments.seed))
    finally:
        shutil.rmtree(folder)
    arguments.out.write_text(page(rows, arguments.kills, arguments.seed), encoding="utf-8")
    print(f"wrote {arguments.out}; {sum(len(row.problems) for row in rows)} problem(s)")
    return 1 if any(row.problems for row in rows) else 0


def swept(folder: Path, kills: int, chance: random.Random) -> list[Row]:
    """Every command in turn."""
    prepare(folder)
    nothing = folder / "nothing"
    rows = [
        sweep(folder, "build", build, nothing, kills, chance),
        sweep(folder, "build --extend", build, folder / "half", kills, chance),
        sweep(folder, "retract", retract, folder / "grown", kills, chance),
        sweep(folder, "prune", prune, folder / "retracted", kills, chance),
        sweep(folder, "migrate", migrate, folder / "old", kills, chance),
        sweep(folder, "relabel", relabel, nothing, kills, chance),
        sweep(folder, "import-h5", import_files, nothing, kills, chance),
    ]
    return rows


def prepare(folder: Path) -> None:
    """The stores that commands begin with."""
    small_region(folder / "region")
    build_store(load_recipe(folder / "region/half.yaml"), folder / "half", workers=2)
    shutil.copytree(folder / "half", folder / "grown")
    build(folder, folder / "grown")
    shutil.copytree(folder / "grown", folder / "retracted")
    retract(folder, folder / "retracted")
    with zipfile.ZipFile(TESTS / "stores/format-1.1-grown.zip") as archive:
        archive.extractall(folder / "old")
    (folder / "fr.csv").write_text("code,hcat3\nBTH,3301010101\nMIS,3301010600\n", encoding="utf-8")
    make_published(folder / "published")


def sweep(folder: Path, name: str, command: Command, before: Path, kills: int, chance: random.Random) -> Row:
    """Kill a command so many times on one store, with witnesses."""
    rest, store = folder / "rest", folder / "store"
    for copy in (rest, store):
        shutil.rmtree(copy, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, copy)
    truths = {number: truth_of(before, number) for number in releases_of(before)}
    start = time.monotonic()
    run(folder, command, rest).join()
    usual = time.monotonic() - start
    truths |= {number: truth_of(rest, number) for number in releases_of(rest)}
    killed, failed = 0, list[str]()
    with WitnessProcess(store, truths) as witness:
        for _ in range(kills):
            process = run(folder, command, store)
            process.join(chance.uniform(0.3 * usual, usual))
            process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            if process.exitcode not in (0, -signal.SIGKILL):
                failed.append(f"a run ended by itself with {process.exitcode}")
        last = run(folder, command, store)
        last.join()
        # What it left is read a few times more.
        time.sleep(REST_SECONDS)
    problems = [*witness.errors, *failed]
    if last.exitcode != 0:
        problems.append(f"the last run ended with {last.exitcode}")
    elif truth_of(store) != truth_of(rest):
        problems.append("it ended with another store than an undisturbed run")
    return Row(name, killed, witness.passes, problems)


def run(folder: Path, command: Command, store: Path) -> multiprocessing.process.BaseProcess:
    """Start a command in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=command, args=(folder, store))
    process.start()
    return process


def releases_of(store: Path) -> list[int]:
    """The releases that can be read."""
    if not (store / "zarr.json").exists():
        return []
    copies = [int(path.parent.name[1:]) for path in store.glob("index/r*/root.json")]
    return sorted({int(store_attributes(store)["release"]), *copies})


def page(rows: list[Row], kills: int, seed: int) -> str:
    """The result as a page."""
    lines = [
        "# Commands that were killed",
        "",
        f"Written by `tests/sweeps/kill_commands.py --kills {kills} --seed {seed}` on {datetime.now(UTC):%Y-%m-%d}; do",
        "not edit.",
        "",
        "Each command was ended by SIGKILL at random moments and rerun. All the while another process read the store",
        "(`open`, `CropSamples`, the index) against the truth of the release that it read, and ran `validate --quick`.",
        "A pass is one reading or one validation.",
        "",
        "| command | kills | passes of the witness | problems |",
        "|---|---:|---:|---:|",
        *(f"| `{row.name}` | {row.kills} | {row.passes} | {len(row.problems)} |" for row in rows),
        "",
        *(f"- `{row.name}`: {problem}" for row in rows for problem in row.problems),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
