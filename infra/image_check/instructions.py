"""What a Dockerfile says: its stages, and the instructions of each, in order."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

#: What is understood; anything else is an error, never passed over.
KNOWN = {"ENV", "RUN", "COPY", "WORKDIR", "USER", "LABEL", "HEALTHCHECK", "CMD"}
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DockerfileError(Exception):
    """A Dockerfile that cannot be run here."""


@dataclass
class Stage:
    """A stage: what it is made from (an image or another stage) and its instructions, (name, value)."""

    name: str
    source: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """The values of all instructions of a name."""
        return [value for known, value in self.instructions if known == name]


def read_stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in order. Raises DockerfileError for what is not understood."""
    with path.open("rb") as file:
        parser = DockerfileParser(fileobj=file)
        lines: list[dict[str, Any]] = parser.structure
    stages: dict[str, Stage] = {}
    for line in lines:
        name, value = line["instruction"].upper(), line["value"]
        if name == "COMMENT":
            continue
        if name == "FROM":
            match = re.fullmatch(r"(\S+)\s+AS\s+(\S+)", value, flags=re.IGNORECASE)
            if match is None:
                raise DockerfileError(f"FROM {value}: expected `FROM image AS name`")
            stages[match[2]] = Stage(match[2], match[1])
        elif name not in KNOWN or not stages:
            raise DockerfileError(f"line {line['startline'] + 1}: {name} is not understood here")
        else:
            list(stages.values())[-1].instructions.append((name, value))
    return stages


def needed_for(target: str, stages: Mapping[str, Stage]) -> list[Stage]:
    """The stages that one is made of, itself last, each after what it needs."""
    stage, needed = stages[target], []
    others = [stage.source, *(source for value in stage.values("COPY") if (source := copied(value)[0]))]
    for other in others:
        needed += needed_for(other, stages) if other in stages else []
    return list({found.name: found for found in [*needed, stage]}.values())


def expanded(value: str, environment: Mapping[str, str]) -> str:
    """A value with its variables replaced."""
    return VARIABLE.sub(lambda match: environment.get(match[1] or match[2], ""), value)


def variables(value: str) -> dict[str, str]:
    """The variables of an ENV or the labels of a LABEL."""
    return dict(part.split("=", 1) for part in shlex.split(value))


def copied(value: str) -> tuple[str, list[str], str]:
    """Of a COPY: the stage that is copied from ("" for the context), the sources, the target."""
    words = shlex.split(value)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    if words[0].startswith("--"):
        raise DockerfileError(f"COPY {value}: {words[0]} is not understood here")
    return stage, words[:-1], words[-1]


def command_of(value: str) -> list[str]:
    """The words of a CMD or of a HEALTHCHECK in their JSON form. Raises DockerfileError for another form."""
    text = value[value.index("[") :] if "[" in value else ""
    try:
        words = json.loads(text)
    except ValueError as error:
        raise DockerfileError(f'{value}: expected the form ["program", "argument"]') from error
    return [str(word) for word in words]


class Context:
    """The files that a build is sent: those of a folder that its ignore file lets through."""

    def __init__(self, folder: Path, ignore_file: Path) -> None:
        self.folder = folder
        lines = (line.strip() for line in ignore_file.read_text(encoding="utf-8").splitlines())
        self.patterns = [line for line in lines if line and not line.startswith("#")]

    def holds(self, name: str) -> bool:
        """Whether a file is sent; the last pattern that fits it or a folder it is in decides."""
        parts = name.split("/")
        paths = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ignored = False
        for pattern in self.patterns:
            wanted = pattern.removeprefix("!")
            if any(fits(path, wanted) for path in paths):
                ignored = not pattern.startswith("!")
        return not ignored

    def files(self, source: str) -> list[Path]:
        """The files of a source that are sent. Raises DockerfileError where there are none, as a build would."""
        start = self.folder / source
        found = sorted(start.rglob("*")) if start.is_dir() else [start]
        files = [path for path in found if path.is_file() and self.holds(path.relative_to(self.folder).as_posix())]
        if not files:
            raise DockerfileError(f"COPY {source}: not in the context; look at {self.folder} and its ignore file")
        return files


def fits(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern of an ignore file; `**/` stands for any folders, none too."""
    if pattern.startswith("**/"):
        return any(fits(path.split("/", i)[-1], pattern[3:]) for i in range(path.count("/") + 1))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
