"""A whole training: which epoch is the best, what is kept of it, and what an interruption leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_stores import MadeStore, make_training_store

from h2crop_data.errors import ModelError
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.epochs import evaluate
from h2crop_data.training.evaluation import EvaluationReport
from h2crop_data.training.model import CropModel
from h2crop_data.training.run import JUDGED_ARRAYS, TrainingReport, train
from h2crop_data.training.settings import TrainingSettings
from h2crop_data.training.transforms import BatchTransforms

#: They share what takes seconds to make.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store of patches of 24 pixels in three splits; not to be changed."""
    return make_training_store(tmp_path_factory.mktemp("made") / "store")


#: At this rate a new model gets worse now and then.
SETTINGS = TrainingSettings.small(batch_size=1, epochs=5, learning_rate=0.03)


def judged(made: MadeStore, folder: Path, split: str = "val") -> EvaluationReport:
    """Metrics of the model of a folder."""
    dataset = CropSamples(made.folder, split=split, until="07-31", arrays=[*JUDGED_ARRAYS, "enmap"])
    return evaluate(CropModel.from_pretrained(folder), dataset, BatchTransforms.for_store(made.folder), batch_size=1)


@pytest.fixture(scope="module")
def trained(made: MadeStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    """The folder of a training, and its report; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(made.folder, SETTINGS, "small", until="07-31", out=folder)


def test_the_weights_of_the_best_epoch_are_kept(made: MadeStore, trained: tuple[Path, TrainingReport]) -> None:
    folder, report = trained
    assert report.split == "val"
    assert [result.epoch for result in report.epochs] == [1, 2, 3, 4, 5]
    f1 = [result.published_mean_f1 for result in report.epochs]
    assert report.epoch == 1 + f1.index(max(f1))
    assert report.epoch < 5, "the last epoch is the best one: the test would not tell them apart"
    assert judged(made, folder / "best") == report.metrics
    last = judged(made, folder / "model")
    assert last.published_mean_f1 == f1[-1] < report.metrics.published_mean_f1
    assert TrainingReport.model_validate_json((folder / "metrics.json").read_bytes()) == report
    losses = [result.loss for result in report.epochs]
    assert losses[-1] < losses[0]


def test_a_training_that_has_ended_says_what_it_said(made: MadeStore, trained: tuple[Path, TrainingReport]) -> None:
    folder, report = trained
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parent.name != "model"
    }
    said: list[str] = []
    assert train(made.folder, SETTINGS, "small", until="07-31", out=folder, say=said.append) == report
    assert any("resuming after" in line for line in said)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_epoch_that_was_trained_and_not_judged_is_judged(made: MadeStore, tmp_path: Path) -> None:
    class EndedError(Exception):
        """Stands for a process that ends."""

    def end(done: int, total: int, text: str) -> None:
        evaluations.append(text == "evaluating")
        if sum(evaluations) == 4:  # three batches an evaluation
            raise EndedError

    evaluations: list[bool] = []
    settings = SETTINGS.model_copy(update={"epochs": 3})
    with pytest.raises(EndedError):
        train(made.folder, settings, "small", until="07-31", out=tmp_path / "ended", progress=end)
    assert len(TrainingReport.model_validate_json((tmp_path / "ended/metrics.json").read_bytes()).epochs) == 1
    again = train(made.folder, settings, "small", until="07-31", out=tmp_path / "ended")
    assert again == train(made.folder, settings, "small", until="07-31", out=tmp_path / "whole")
    weights = [CropModel.from_pretrained(tmp_path / name / "best").state_dict() for name in ("ended", "whole")]
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


def test_metrics_that_are_lost_or_damaged_are_not_guessed(made: MadeStore, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 2})
    train(made.folder, settings, "small", until="07-31", out=tmp_path)
    (tmp_path / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"(?s)cannot read .*metrics.json: .*remove it to compare later epochs only"):
        train(made.folder, settings, "small", until="07-31", out=tmp_path)
    (tmp_path / "metrics.json").unlink()
    said: list[str] = []
    report = train(made.folder, settings, "small", until="07-31", out=tmp_path, say=said.append)
    assert any("lacks the epochs before" in line for line in said)
    assert [result.epoch for result in report.epochs] == [2]


def test_samples_are_augmented_unless_that_is_refused(made: MadeStore, tmp_path: Path) -> None:
    weights = {}
    for name, augment in (("default", True), ("again", True), ("plain", False)):
        settings = TrainingSettings.small(batch_size=1, augment=augment)
        train(made.folder, settings, "small", until="07-31", out=tmp_path / name)
        weights[name] = CropModel.from_pretrained(tmp_path / name / "model").heads.tiers["1"][0].weight
    assert torch.equal(weights["default"], weights["again"])
    assert not torch.equal(weights["default"], weights["plain"])


def test_without_a_split_to_judge_by_the_last_weights_are_judged_on_the_training_samples(tmp_path: Path) -> None:
    made = make_training_store(tmp_path / "store", blocks=1)
    said: list[str] = []
    settings = SETTINGS.model_copy(update={"epochs": 2})
    report = train(made.folder, settings, "small", until="07-31", out=tmp_path / "out", say=said.append)
    assert any("has no split val" in line for line in said)
    assert (report.split, report.epoch, [result.epoch for result in report.epochs]) == ("train", 2, [2])
    assert judged(made, tmp_path / "out" / "model", "train") == report.metrics


def test_a_model_for_samples_without_enmap_can_be_trained(made: MadeStore, tmp_path: Path) -> None:
    train(made.folder, TrainingSettings.small(), "small", until="07-31", enmap_optional=True, out=tmp_path)
    model = CropModel.from_pretrained(tmp_path / "model")
    assert model.config.enmap is not None
    assert model.config.enmap.optional
    assert model.absent_enmap is not None
