"""Every remedy that `h2crop validate` gives is done to the letter on a damaged store, and the store is validated again.

A case damages a store, takes the remedy of the finding that this gives, does what it says (deletes and copies the files
that it names, runs the command that it quotes), and expects that nothing is found any more. `REMEDIES` lists all
remedies there are. They are read from the code of validation, so one that is not listed fails, and so does one that
nobody gives any more.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from changed_stores import (
    change_json,
    change_table,
    change_values,
    index_file,
    overwrite,
    root_of,
    shard_file,
    sign,
    sum_up,
    table_of,
    write_root,
)
from made_stores import SEASONS, checked_region, made_once
from published_files import make_published, scene_catalog
from two_sensors import make_region
from typer.testing import CliRunner

import h2crop_data.validation
from h2crop_data.cli.main import app
from h2crop_data.pipeline.build import build_store
from h2crop_data.published.importing import import_published
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.storage.storage import canonical_json
from h2crop_data.validation.findings import Finding, Origin, Remedies
from h2crop_data.validation.release import Release
from h2crop_data.validation.validate import Validation, validate_store

STORES = Path(__file__).parents[1] / "stores"
#: What is damaged: a block of the split val, of four samples.
SEASON, BLOCK = 2022, 2
#: A season that the store does not have yet.
NEXT = SEASONS[0]
#: Why a remedy need not be followed.
BY_HAND = "a person looks, and decides"
PUBLISHER = "it is reported to somebody else"
UPGRADE = "another version of h2crop is installed"
NOTHING = "nothing must be done"
NEVER = "no finding of such a store has it"


# The stores


@dataclass(frozen=True)
class Bench:
    """A store to damage, and what a user of it has beside it."""

    store: Path
    #: The same, undamaged.
    intact: Path
    #: What the words of commands stand for.
    words: dict[str, str]

    @property
    def location(self) -> str:
        return str(self.store)


@pytest.fixture(scope="module")
def made() -> Path:
    """A folder with a region, its recipes, and what they and others were built into; made once for all processes."""
    return made_once("remedies", make_stores)


def make_stores(folder: Path) -> None:
    """A store of one season, a copy of it, an imported store, and one of format 1.0."""
    document = checked_region(folder / "region").complete()
    build_store(written(folder / "region/recipe.yaml", {**document, "seasons": [SEASON]}), folder / "built", workers=1)
    written(folder / "region/grown.yaml", document)
    shutil.copytree(folder / "built", folder / "copied", ignore=shutil.ignore_patterns(".build"))
    make_published(folder / "published")
    import_published(folder / "published", folder / "imported")
    scenes = ("20230701T105812Z_001", "20230702T110001Z_012")
    make_published(folder / "vague files", {"train": [f"{scene}_x0_y0_T31TCJ" for scene in scenes]})
    import_published(folder / "vague files", folder / "vague")
    scene_catalog(folder / "items.json", *((scene, 330_015, 4_850_025) for scene in scenes))
    with zipfile.ZipFile(STORES / "format-1.0.zip") as archive:
        archive.extractall(folder / "first")
    region = made_once("two sensors", make_region)
    build_store(load_recipe(region / "plain.yaml"), folder / "compared", workers=1)


def written(path: Path, document: dict[str, Any]) -> Recipe:
    """A recipe of these contents."""
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_recipe(path)


def validated(store: Path) -> Validation:
    return validate_store(store, workers=1)


def facts(findings: Iterable[Finding]) -> set[tuple[str, str, str]]:
    """What is found, whatever the number of the release."""
    return {(one.check, re.sub(r"index/r\d+/", "index/", one.where), one.what) for one in findings}


# Doing what a remedy says


def follow(finding: Finding, bench: Bench) -> Path:
    """Do to the letter what a finding says is to be done; gives the store that comes out."""
    text = finding.remedy
    if text == "download this file again":
        shutil.copy(bench.intact / finding.where, bench.store / finding.where)
    elif text.startswith("delete it"):
        delete(bench.store / finding.where)
    elif copied := re.match(r"copy (\S+) over (\S+)", text):
        shutil.copy(copied[1], copied[2])
    elif text.startswith("fix the other findings and validate again"):
        for other in validated(bench.store).findings:
            if other.remedy != text:
                follow(other, bench)
    else:
        if deleted := re.match(r"delete (\S+), then", text):
            delete(Path(deleted[1]))
        commands = re.findall("`h2crop ([^`]+)`", text)
        assert commands, text
        sample = re.search(r"sample (\S+)", finding.where)
        words = {**bench.words, "SAMPLE": "" if sample is None else sample[1]}
        return [run(command, replace(bench, words=words)) for command in commands][-1]
    return bench.store


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def run(command: str, bench: Bench) -> Path:
    """Run a command of h2crop as a person would who was told it; gives the store that it writes."""
    arguments = [bench.words.get(word, word) for word in shlex.split(command)]
    if arguments[0] == "retract":
        # Somebody is asked, and says yes.
        arguments.append("--yes")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"h2crop {' '.join(arguments)}: {done.stderr} {done.exception!r}"
    if "PICTURE" in command:
        assert Path(bench.words["PICTURE"]).is_file()
    return Path(bench.words["NEW"]) if bench.words["NEW"] in arguments else bench.store


# Damage


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    overwrite(path, data)


def flip_file(name: str, place: int = 20) -> Callable[[Bench], None]:
    return lambda bench: flip(bench.store / name, place)


def lose(*names: str) -> Callable[[Bench], None]:
    def do(bench: Bench) -> None:
        for name in names:
            delete(bench.store / name)

    return do


def lose_first(pattern: str) -> Callable[[Bench], None]:
    return lambda bench: sorted(bench.store.glob(pattern))[0].unlink()


def flip_shard(array: str) -> Callable[[Bench], None]:
    return lambda bench: flip(shard_file(bench.store, SEASON, array, BLOCK), 20)


def set_day(bench: Bench) -> None:
    """A block that was built wrong: a day that is not of its month."""

    def change(values: Any) -> None:
        values[0, 6, 3, 4] = 180

    change_values(bench.store, SEASON, "s2_day", BLOCK, change)
    sign(bench.store)


def share_a_parcel(bench: Bench) -> None:
    """A block with labelled pixels of a parcel of another split."""
    parcels = table_of(bench.store, f"parcels-{SEASON}").set_index("number")
    number = int(parcels.index[parcels["split"] == "train"][0])
    classes = parcels.loc[number, [f"tier{tier}" for tier in range(1, 5)]].to_numpy(np.uint8)

    def number_it(values: Any) -> None:
        values[0, :2] = number

    def label_it(values: Any) -> None:
        values[0, :, :2] = classes[:, None, None]

    change_values(bench.store, SEASON, "parcel", BLOCK, number_it)
    change_values(bench.store, SEASON, "label", BLOCK, label_it)
    sum_up(bench.store)
    sign(bench.store)


def build_by_one_file(bench: Bench) -> None:
    """A store built from a region whose file of the year before is that of the season."""
    region = Path(bench.words["RECIPE"]).parent
    own = region / f"RPG_{NEXT}.gpkg"
    kept = own.read_bytes()
    delete(bench.store)
    try:
        shutil.copy(region / f"RPG_{SEASON}.gpkg", own)
        build_store(load_recipe(bench.words["RECIPE"]), bench.store, workers=1)
    finally:
        own.write_bytes(kept)


def state_a_share(bench: Bench) -> None:
    """An index that another version sealed wrong."""
    change_table(bench.store, f"samples-{SEASON}", lambda table: table.assign(flagged_share=1.5))
    root = root_of(bench.store)
    root["attributes"]["software"] = "h2crop-data of another version"
    write_root(bench.store, root)
    sign(bench.store)


def state_a_hash(bench: Bench) -> None:
    """A root and its copy with a hash of a season that is not that of its files."""
    root = root_of(bench.store)
    next(iter(root["attributes"]["seasons"].values()))["sha256"] = "0" * 64
    write_root(bench.store, root)


def change_both_roots(bench: Bench) -> None:
    """A root and a copy that differ, and agree each with the manifest."""
    root = root_of(bench.store)
    root["attributes"]["title"] = "another"
    (bench.store / "zarr.json").write_text(canonical_json(root), encoding="utf-8")


def damage_statistics(bench: Bench) -> None:
    change_json(index_file(bench.store, "statistics"), lambda document: document.pop("reflectance"))


def change_metadata(bench: Bench) -> None:
    change_json(bench.store / str(SEASON) / "s2/zarr.json", lambda document: document.update(fill_value=0))


class StillFoundError(AssertionError):
    """Something is found although its remedy was followed."""


class Interrupted(BaseException):
    """Control-C."""


def interrupted(begins: str) -> Callable[[int, int, str], None]:
    """Progress that ends a build or import at its last step that begins like this."""

    def watch(done: int, total: int, text: str) -> None:
        if text.startswith(begins) and done >= total - 1:
            raise Interrupted

    return watch


def interrupt_build(bench: Bench) -> None:
    """A build of another season that was interrupted while it sealed."""
    with pytest.raises(Interrupted):
        build_store(
            load_recipe(bench.words["RECIPE"]), bench.store, workers=1, progress=interrupted("release 2, index")
        )


def interrupt_import(bench: Bench) -> None:
    """An import that was interrupted before it sealed."""
    delete(bench.store)
    with pytest.raises(Interrupted):
        import_published(Path(bench.words["DIR"]), bench.store, progress=interrupted("blocks"))


def copy_release(bench: Bench) -> None:
    """A release that was never finished."""
    shutil.copytree(bench.store / "index/r1", bench.store / "index/r2")


def damage_older_release(bench: Bench) -> None:
    """A store of two releases, the older of which is damaged."""
    run(f"retract {bench.location} --block {SEASON}:{BLOCK} --reason clouds", bench)
    flip(bench.store / "index/r1/scenes-2022.parquet", 300)


def write_note(bench: Bench) -> None:
    (bench.store / str(SEASON) / "notes.txt").write_text("x", encoding="utf-8")


def turn_enmap(bench: Bench) -> None:
    """A block that was built with the rows of EnMAP from south to north."""
    for array in ("enmap", "enmap_quality"):
        change_values(
            bench.store, SEASON, array, BLOCK, lambda values: values.__setitem__(..., values[..., ::-1, :].copy())
        )
    sum_up(bench.store)
    sign(bench.store)


def fail_where_damaged(release: Release, *_: Any) -> Iterator[Finding]:
    """A check that other damage makes fail."""
    if release.damaged:
        raise ZeroDivisionError("a file is lost")
    return iter(())


def no_damage(bench: Bench) -> None:
    pass


# The cases


@dataclass(frozen=True)
class Case:
    """A damaged store, and the finding whose remedy is followed."""

    origin: str
    damage: Callable[[Bench], None]
    check: str
    #: Words of commands that stand for something else than in other cases.
    words: dict[str, str] = field(default_factory=dict)
    #: Whether a check fails where a file is damaged.
    fails: bool = False


CASES: dict[str, Case] = {
    "built, shard": Case("built", flip_shard("s2"), "checksum"),
    "built, block built wrong": Case("built", set_day, "range"),
    "built, parcel in two splits": Case("built", share_a_parcel, "leak", {"SEASON:BLOCK": f"{SEASON}:{BLOCK}"}),
    "built, prior": Case("built", build_by_one_file, "prior"),
    "built, two sensors": Case("compared", turn_enmap, "agreement"),
    "built, a check failed": Case("built", lose_first(f"{SEASON}/s2/c.*"), "unforeseen", fails=True),
    "built, root": Case("built", lose("zarr.json"), "root"),
    "built, copy of the root": Case("built", lose("index/r1/root.json"), "root"),
    "built, both roots": Case("built", change_both_roots, "root"),
    "built, no root": Case("built", lose("zarr.json", "index/r1/root.json"), "root"),
    "built, manifest": Case("built", lose("index/r1/manifest.parquet"), "missing"),
    "built, table": Case("built", lose("index/r1/scenes-2022.parquet"), "missing"),
    "built, statistics": Case("built", damage_statistics, "size"),
    "built, coordinate": Case("built", lose(f"{SEASON}/valid/c.0"), "missing"),
    "built, metadata": Case("built", change_metadata, "size"),
    "built, hash": Case("built", state_a_hash, "identity"),
    "built, index sealed wrong": Case("built", state_a_share, "samples"),
    "built, interrupted": Case("built", interrupt_build, "unfinished", {"RECIPE": "GROWN"}),
    "built, older release": Case("built", damage_older_release, "release"),
    "built, stray": Case("built", write_note, "stray"),
    "built, format": Case("first", no_damage, "format"),
    "imported, shard": Case("imported", lose_first(f"{SEASON}/s2/c.*"), "missing"),
    "imported, kept file": Case("imported", lose_first(f"{SEASON}/published/*"), "missing"),
    "imported, root": Case("imported", lose("zarr.json"), "root"),
    "imported, table": Case("imported", lose("index/r1/scenes-2022.parquet"), "missing"),
    "imported, hash": Case("imported", state_a_hash, "identity"),
    "imported, index sealed wrong": Case("imported", state_a_share, "samples"),
    "imported, interrupted": Case("imported", interrupt_import, "root"),
    "imported, somewhere": Case("vague", no_damage, "georeferencing", {"DIR": "VAGUE FILES"}),
    "copied, shard": Case("copied", flip_shard("s2"), "checksum"),
    "copied, table": Case("copied", flip_file("index/r1/scenes-2022.parquet", 300), "checksum"),
    "copied, coordinate": Case("copied", lose(f"{SEASON}/valid/c.0"), "missing"),
    "copied, root": Case("copied", lose("zarr.json"), "root"),
    "copied, no root": Case("copied", lose("zarr.json", "index/r1/root.json"), "root"),
    "copied, interrupted": Case("copied", copy_release, "unfinished"),
}


BUILD, IMPORT = "h2crop build RECIPE --out STORE", "h2crop import-h5 DIR STORE"
#: Every remedy, and the cases that follow it or why nobody can; `{}` is what differs from finding to finding.
REMEDIES: dict[str, tuple[str, ...] | str] = {
    f"delete STORE/.build/2022/000002.json, then `{BUILD.replace('RECIPE', 'RECIPE --season 2022')}` makes this block "
    "again": ("built, shard",),
    f"delete STORE/.build/2022/000002.json, then `{IMPORT}` makes this block again": (
        "imported, shard",
        "imported, kept file",
    ),
    "download this file again": (
        "copied, shard",
        "copied, table",
        "copied, coordinate",
        "copied, no root",
    ),
    "the file is as it was written, so the block was built wrong: `h2crop retract STORE --block 2022:2 --reason …` "
    "keeps it out of the next release": ("built, block built wrong",),
    "compare with the published file; leave these samples out if it says the same": BY_HAND,
    "the file is as it was published: report it to its publisher, and leave these samples out": PUBLISHER,
    f"`{BUILD}` again: it writes the files of a release that are not as they should be": (
        "built, both roots",
        "built, no root",
        "built, manifest",
        "built, table",
        "built, statistics",
        "built, coordinate",
        "built, metadata",
        "built, hash",
    ),
    f"`{IMPORT}` again: it writes the files of a release that are not as they should be": (
        "imported, table",
        "imported, hash",
        "imported, interrupted",
    ),
    f"the index was sealed like this: `{BUILD}` with the newest h2crop seals it again; report this": (
        "built, index sealed wrong",
    ),
    f"the index was sealed like this: `{IMPORT}` with the newest h2crop seals it again; report this": (
        "imported, index sealed wrong",
    ),
    "the index is as it was published: report it to its publisher": PUBLISHER,
    "retract the block of one of them with `h2crop retract STORE --block SEASON:BLOCK --reason …`, and report this as "
    "an error of h2crop": ("built, parcel in two splits",),
    "report it to the publisher, and leave one of them out of training or of testing": PUBLISHER,
    "if the parcels of 2022 were read for 2021 as well, give that year a file of its own in the recipe, or `prior: "
    "none`; `h2crop relabel STORE --recipe RECIPE --out NEW` follows it": ("built, prior",),
    "do not take the prior for the crop of the year before until its publisher says that nothing changed": BY_HAND,
    "copy STORE/index/r1/root.json over STORE/zarr.json": ("copied, root",),
    "`h2crop restore STORE` puts its copy in its place": ("built, root", "imported, root"),
    "copy STORE/zarr.json over STORE/index/r1/root.json": ("built, copy of the root", "copied, no root"),
    f"nothing while a build is at work; else `{BUILD}` again, which finishes it": ("built, interrupted",),
    f"nothing while a build is at work; else `{IMPORT}` again, which finishes it": NEVER,
    "delete it, or leave it: readers do not look at it": ("copied, interrupted",),
    "delete it, if nothing else needs it; readers do not look at it": ("built, stray",),
    "`h2crop prune {}` deletes older releases, if this one is not needed": ("built, older release",),
    "`h2crop migrate {}` makes a release of format {}; nothing must be done": ("built, format",),
    "nothing: it can be read as it is; `h2crop migrate` brings it to {} where it was built": NOTHING,
    "use the newest h2crop": UPGRADE,
    "`h2crop import-h5 DIR NEW --catalog ITEMS` places them in a new store, where ITEMS is a file of the EnMAP items "
    "of their scenes": ("imported, somewhere",),
    "the published lists are like this: evaluate on a split by ground if that matters": BY_HAND,
    "replace it by the file or folder that it points to": BY_HAND,
    "the files were used: look whether these are the scenes, and report it to the catalog": BY_HAND,
    "look at it: `h2crop inspect STORE --season 2022 --sample SAMPLE --plot PICTURE`; where the two do not show the "
    "same ground, `h2crop retract STORE --block 2022:2 --reason …` keeps its block out of the next release": (
        "built, two sensors",
    ),
    "look at it: `h2crop inspect STORE --season 2022 --sample SAMPLE --plot PICTURE`; where the two do not show the "
    "same ground, leave the sample out, and report it to its publisher": BY_HAND,
    "compare images and parcels in a picture; move the parcels in their file where these are off": BY_HAND,
    "fix the other findings and validate again; report this finding if it remains": ("built, a check failed",),
}


def remedies_by_origin() -> Iterator[str]:
    """What `Remedies` says of each kind of store."""
    for origin in get_args(Origin):
        for name, method in inspect.getmembers(Remedies, inspect.isfunction):
            if not name.startswith("_"):
                wanted = [word for word in inspect.signature(method).parameters if word != "self"]
                for copy in ("index/r1/root.json", None):
                    known = {"season": SEASON, "block": BLOCK, "copy": copy, "name": "index/r1/root.json"}
                    yield getattr(Remedies("STORE", origin), name)(*(known[word] for word in wanted))


def remedies_in_code() -> Iterator[str]:
    """The remedies that checks write themselves: the last argument of a finding, or what is kept for it by name."""
    for path in sorted(Path(h2crop_data.validation.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("error", "warning", "Finding"):
                yield from texts(node.args[4 if getattr(node.func, "id", "") == "Finding" else 3 :])
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                    pairs = zip(names, values, strict=False)
                    yield from texts([value for name, value in pairs if getattr(name, "id", "") in ("remedy", "prune")])


def texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    """Those of some expressions that are texts, `{}` for what is put into them."""
    for node in nodes:
        if isinstance(node, ast.Constant):
            yield str(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def test_every_remedy_is_listed_with_who_follows_it() -> None:
    assert {*remedies_by_origin(), *remedies_in_code()} == set(REMEDIES)
    followed = [name for names in REMEDIES.values() if not isinstance(names, str) for name in names]
    assert set(followed) == set(CASES)


@pytest.fixture
def bench(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """A copy of the store of a case."""
    case = CASES[request.param]
    shutil.copytree(made / case.origin, tmp_path / "store")
    words = {
        "RECIPE": str(made / "region/recipe.yaml"),
        "GROWN": str(made / "region/grown.yaml"),
        "DIR": str(made / "published"),
        "VAGUE FILES": str(made / "vague files"),
        "NEW": str(tmp_path / "new"),
        "ITEMS": str(made / "items.json"),
        "PICTURE": str(tmp_path / "sample.png"),
        "…": "it is wrong",
    }
    words |= {word: words.get(other, other) for word, other in case.words.items()}
    return Bench(tmp_path / "store", made / case.origin, words)


@pytest.mark.parametrize(("bench", "name"), [(name, name) for name in CASES], ids=list(CASES), indirect=["bench"])
def test_who_does_what_it_says_has_a_whole_store(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, store = CASES[name], bench.store
    if case.fails:
        monkeypatch.setattr("h2crop_data.validation.validate.check_provenance", fail_where_damaged)
    whole = validated(bench.intact).findings
    before = facts(finding for finding in whole if case.damage is not no_damage or finding.check != case.check)
    case.damage(bench)
    found = [finding for finding in validated(store).findings if finding.check == case.check]
    assert found
    followed = set()
    while found:
        # One remedy is followed once, however many findings have it.
        for finding in {finding.remedy: finding for finding in found}.values():
            store = follow(finding, bench)
            followed |= {text for text in REMEDIES if says(finding, text, bench)}
        left = [finding for finding in validated(store).findings if facts([finding]) - before]
        # What the damage had hidden may be found now, with a remedy of its own.
        if facts(left) & facts(found):
            raise StillFoundError(left[0])
        found = left
    assert followed >= {text for text, names in REMEDIES.items() if name in names}


def says(finding: Finding, text: str, bench: Bench) -> bool:
    """Whether the remedy of a finding is this one of the list."""
    said = re.sub(
        rf"\.build/{SEASON}/\d+", f".build/{SEASON}/{BLOCK:06d}", finding.remedy.replace(bench.location, "STORE")
    )
    return re.fullmatch(re.escape(text).replace(r"\{\}", ".+"), said) is not None
