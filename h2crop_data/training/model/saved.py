"""A model in a folder: config.json, which describes the model and its inputs, and its weights in the safetensors
format.

The name of the weights' file contains the beginning of its checksum. config.json names the file and is replaced last,
so a folder that is overwritten holds the old model or the new one whenever the writer stops.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from h2crop_data.errors import ModelError
from h2crop_data.storage.local import sync
from h2crop_data.training.model.config import REFUSED, ModelConfig

CONFIG_FILE = "config.json"
FORMAT = "h2crop model"
MODEL_FORMAT_VERSION = 1


class StoredConfig(BaseModel):
    """A configuration as JSON has it: lists become tuples, unknown members are refused at every level."""

    model_config = ConfigDict(extra="forbid")

    config: ModelConfig


def write_model(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a model. weights: state dict of the model. Raises ModelError where the folder cannot be written."""
    partial = folder / f".weights.{os.getpid()}.partial"
    partial_config = folder / f".config.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.detach().contiguous() for key, tensor in weights.items()}, partial)
        sha256 = weights_checksum(partial)
        target = folder / f"model-{sha256[:16]}.safetensors"
        document = {
            "format": FORMAT,
            "format_version": MODEL_FORMAT_VERSION,
            "inputs": config.inputs,
            "outputs": {f"tier {tier}": config.classes[tier] + 1 for tier in config.tiers},
            "taxonomy": config.taxonomy,
            "weights": {"file": target.name, "bytes": partial.stat().st_size, "sha256": sha256},
            "config": asdict(config),
        }
        partial_config.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync(partial)
        sync(partial_config)
        partial.replace(target)
        partial_config.replace(folder / CONFIG_FILE)
        sync(folder)
        for older in folder.glob("model-*.safetensors"):
            if older != target:
                older.unlink()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write the model into {folder}: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
            partial_config.unlink(missing_ok=True)


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights of a folder. Raises ModelError, which states what is wrong."""
    document = read_config(folder)
    try:
        config = StoredConfig(config=document["config"]).config
        facts = document["weights"]
        path, size, sha256 = folder / str(facts["file"]), int(facts["bytes"]), str(facts["sha256"])
    except ValidationError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {validation_in_words(error)}; save the model again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG_FILE} is damaged: {error!r}; save the model again") from error
    check_file(path, size, sha256)
    try:
        return config, load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}; copy or save the model again") from error


def check_file(path: Path, size: int, sha256: str) -> None:
    """Raises ModelError if a file is not the one that config.json states."""
    try:
        found = path.stat().st_size
        same = found == size and weights_checksum(path) == sha256
    except FileNotFoundError as error:
        raise ModelError(f"{path}, named in {CONFIG_FILE}, does not exist; copy the whole folder") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if found != size:
        raise ModelError(f"{path} has {found} bytes, {CONFIG_FILE} states {size}; copy or save the model again")
    if not same:
        raise ModelError(f"{path}: its checksum differs from the one in {CONFIG_FILE}; copy or save the model again")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises ModelError if it is missing or of another format."""
    path = folder / CONFIG_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} contains no model: {CONFIG_FILE} does not exist there") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}; save the model again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{path} was not written by save_pretrained; give the folder of a saved model")
    if document.get("format_version") != MODEL_FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {document.get('format_version')!r}, this h2crop reads {MODEL_FORMAT_VERSION}; "
            "load it with the version that saved it"
        )
    return document


def weights_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def validation_in_words(error: ValidationError) -> str:
    """What does not fit, in one line: `field: reason; field: reason`."""
    reasons = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"]))
        reason = problem["msg"].removeprefix("Value error, ").removeprefix(REFUSED)
        reasons.append(f"{place}: {reason}" if place else reason)
    return "; ".join(reasons)
