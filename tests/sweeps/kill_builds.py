"""Kill a hundred builds at random moments, restart each, and write the result to docs/killed-builds.md.

    python tests/sweeps/kill_builds.py [--builds 100] [--seed 1] [--out FILE]

The exit code is 1 if any store differs from the store of an undisturbed build.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "makers"))

from killed_builds import Killed, Sweep  # noqa: E402 -- found beside the tests alone


def main() -> int:
    """Sweep, write, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TESTS.parent / "docs" / "killed-builds.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-builds-"))
    start = time.monotonic()
    try:
        result = Sweep(folder, arguments.seed).run(arguments.builds)
    finally:
        shutil.rmtree(folder)
    arguments.out.write_text(report(result, arguments.seed, time.monotonic() - start), encoding="utf-8")
    print(f"wrote {arguments.out}; {len(result.failures)} difference(s)")
    return 1 if result.failures else 0


def report(result: Killed, seed: int, seconds: float) -> str:
    """The result as a page."""
    builds = sum(result.builds.values())
    lines = [
        "# Builds that were killed",
        "",
        f"Written by `make kill-sweep` on {datetime.now(UTC):%Y-%m-%d} (seed {seed}, {seconds:.0f} s); do not edit.",
        "",
        "Each build was ended by SIGKILL at a random moment and rerun with the same command. Then every file of the",
        "store, including the files of the builder, was compared with the store of an undisturbed build: names and",
        "bytes are the same (of a block's marker without the times in it).",
        "",
        f"**{builds} builds, {result.kills} kills, {len(result.failures)} differences.**",
        "",
        "| killed | builds |",
        "|---|---:|",
        *(f"| {WAYS_IN_WORDS[way]} | {count} |" for way, count in result.builds.items()),
        "",
        "| state when the build died | times |",
        "|---|---:|",
        *(f"| {state} | {count} |" for state, count in result.found.most_common()),
        "",
        *(f"- {failure}" for failure in result.failures),
    ]
    return "\n".join(lines).rstrip() + "\n"


WAYS_IN_WORDS = {
    "once": "once, anywhere from planning to sealing",
    "twice": "twice",
    "sealing": "while sealing",
    "growing": "while a finished store grew by cells and a season",
}

if __name__ == "__main__":
    sys.exit(main())
