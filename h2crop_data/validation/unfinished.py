"""Files that belong to no release: strays, and what a build at work, or one that was interrupted, leaves."""

from __future__ import annotations

import re
from collections import Counter

from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.validation.findings import Findings, warning
from h2crop_data.validation.release import INDEX_FILE, Release

SEASON_FILE = re.compile(r"(?P<season>\d{4})/.+")


def check_strays(release: Release, older: set[str]) -> Findings:
    """Files that belong to no release. older: those of older releases."""
    if release.expected is None:
        release.cannot_check("files that do not belong to the store: the manifest is lost")
        return
    index = set(release.attributes["index"].values())
    known = {ROOT, *index, *release.expected, *older, *retracted_files(release)}
    unfinished: Counter[str] = Counter()
    for name in release.sizes:
        if name in known:
            continue
        place = part_of_later_release(release, name)
        if place is not None:
            unfinished[place] += 1
        else:
            told = "belongs to no release"
            yield warning("stray", name, told, "delete it, if nothing else needs it; readers do not look at it")
    for place, count in sorted(unfinished.items()):
        told = f"{count} file(s) of a release that is not finished"
        yield warning("unfinished", place, told, release.remedies.unfinished())


def retracted_files(release: Release) -> set[str]:
    """The files of retracted blocks: kept for older releases, or gone."""
    blocks = release.tables.get("blocks")
    if blocks is None:
        return set()
    retracted = blocks[blocks["retracted"] != ""]
    return {str(path) for paths in retracted["files"] for path in paths}


def part_of_later_release(release: Release, name: str) -> str | None:
    """The place in the store where a build adds such a file; None for one that no build adds."""
    if found := INDEX_FILE.fullmatch(name):
        return f"index/r{found['release']}/" if int(found["release"]) > release.number else None
    block = release.block_of(name)
    if block is not None and block[1] >= release.seasons.get(block[0], 0):
        return f"{block[0]}/ (blocks from {release.seasons.get(block[0], 0)} on)"
    season = SEASON_FILE.fullmatch(name)
    if season and int(season["season"]) not in release.seasons:
        return f"{season['season']}/"
    if season and int(season["season"]) in release.extended and re.search(r"/c\.\d+(\.0)*$", name):
        # The next chunk of a coordinate.
        return f"{season['season']}/ (blocks from {release.seasons[int(season['season'])]} on)"
    return None
