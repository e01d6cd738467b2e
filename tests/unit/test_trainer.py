"""A step of training, epochs of them, and going on after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_stores import MadeStore, make_store, make_training_store
from pydantic import ValidationError
from torch.utils.data import default_collate

from h2crop_data.errors import ModelError, StoreError, UsageError
from h2crop_data.training.augmentation import Augmentation
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.epochs import batches_of_epoch, evaluate, generator_of, train_epoch, updates_of
from h2crop_data.training.fitting import config_for_store
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel
from h2crop_data.training.settings import TrainingSettings
from h2crop_data.training.trainer import Trainer
from h2crop_data.training.transforms import BatchTransforms

#: They share what takes seconds to make.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store of patches of 24 pixels in three splits; not to be changed."""
    return make_training_store(tmp_path_factory.mktemp("made") / "store")


def model_of(made: MadeStore, seed: int = 0, **chosen: object) -> CropModel:
    """A small model for a store, with the start values of a seed."""
    torch.manual_seed(seed)
    return CropModel(config_for_store(made.folder, months=6, **chosen))


def batch_of(made: MadeStore, samples: list[int]) -> dict[str, object]:
    """Some samples of a store as a model takes them."""
    dataset = CropSamples(made.folder, months=6, later_scenes=True)
    return BatchTransforms.for_store(made.folder)(default_collate([dataset[i] for i in samples]))


# The published schedule


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine() -> None:
    settings = TrainingSettings()
    assert settings.learning_rate_at(0, 100_000) == pytest.approx(6e-7)
    assert settings.learning_rate_at(500, 100_000) == pytest.approx(6e-7 + (6e-5 - 6e-7) / 2)
    assert settings.learning_rate_at(1000, 100_000) == pytest.approx(6e-5)
    # Half way between 1,000 and 100,000, and at the end.
    assert settings.learning_rate_at(50_500, 100_000) == pytest.approx((6e-5 + 6e-6) / 2)
    assert settings.learning_rate_at(100_000, 100_000) == pytest.approx(6e-6)


def test_a_short_training_warms_up_for_half_of_it() -> None:
    rates = [TrainingSettings().learning_rate_at(update, 10) for update in range(10)]
    assert max(rates) == rates[5] == pytest.approx(6e-5)
    assert rates == [*sorted(rates[:6]), *sorted(rates[6:], reverse=True)]


# A step


def test_gradients_of_several_batches_are_averaged(made: MadeStore) -> None:
    batches = [batch_of(made, [0, 1]), batch_of(made, [2, 3])]
    settings = TrainingSettings.small(accumulation=2, seed=3)
    model = model_of(made)
    trainer = Trainer(model, settings, updates=10)
    losses = [trainer.step(batch) for batch in batches]
    assert (trainer.batches, trainer.done) == (2, 1)
    # The same by hand; stochastic depth draws the same random numbers.
    other = model_of(made).train()
    optimiser = torch.optim.AdamW(other.parameters(), lr=1e-3 * 0.01, weight_decay=5e-4)
    torch.manual_seed(3)
    expected = [
        hierarchical_loss(other(batch["s2"], batch["enmap"], batch["prior"]), batch["label"]) for batch in batches
    ]
    (sum(expected) / 2).backward()
    optimiser.step()
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected).detach())
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, other.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)


def test_fewer_batches_than_an_update_takes_are_used_when_asked_for(made: MadeStore, tmp_path: Path) -> None:
    trainer = Trainer(model_of(made), TrainingSettings.small(accumulation=3), updates=10)
    before = {name: values.clone() for name, values in trainer.model.named_parameters()}
    trainer.step(batch_of(made, [0, 1]))
    assert all(torch.equal(values, before[name]) for name, values in trainer.model.named_parameters())
    with pytest.raises(UsageError, match="call update"):
        trainer.save(tmp_path / "state.pt")
    one = trainer.model.heads.tiers["1"][0].weight.grad.clone()
    trainer.update()
    # The mean of one gradient, not a third of it: seen in the first moment of AdamW, a tenth of the gradient.
    moment = trainer.optimiser.state[trainer.model.heads.tiers["1"][0].weight]["exp_avg"]
    torch.testing.assert_close(moment, 0.1 * 3 * one)
    assert not all(torch.equal(values, before[name]) for name, values in trainer.model.named_parameters())
    done = trainer.done
    trainer.update()
    assert trainer.done == done == 1


def test_a_loss_that_is_not_finite_names_its_samples_and_ends_the_training(made: MadeStore, tmp_path: Path) -> None:
    trainer = Trainer(model_of(made), TrainingSettings.small(), updates=10)
    weights = {name: values.clone() for name, values in trainer.model.named_parameters()}
    batch = batch_of(made, [0, 1])
    batch["s2"][0, 0, 0, 0, 0] = torch.inf  # type: ignore[index]
    with pytest.raises(ModelError, match=f"batch 1 is nan .*{batch['id'][0]}"):  # type: ignore[index]
        trainer.step(batch)
    assert all(torch.equal(values, weights[name]) for name, values in trainer.model.named_parameters())
    # Batch normalisation has seen it: the state that was saved before is the one to use.
    with pytest.raises(ModelError, match="cannot be saved"):
        trainer.save(tmp_path / "state.pt")
    with pytest.raises(ModelError, match="load the last saved state"):
        trainer.step(batch_of(made, [0, 1]))


def test_a_training_ends_after_its_last_update(made: MadeStore) -> None:
    trainer = Trainer(model_of(made), TrainingSettings.small(), updates=1)
    trainer.step(batch_of(made, [0, 1]))
    with pytest.raises(UsageError, match="ended after its 1 updates"):
        trainer.step(batch_of(made, [0, 1]))


def test_a_label_without_a_class_is_refused(made: MadeStore) -> None:
    trainer = Trainer(model_of(made), TrainingSettings.small(), updates=10)
    batch = batch_of(made, [0, 1])
    batch["label"][0, 0, 0, 0] = 7  # type: ignore[index]
    with pytest.raises(UsageError, match=r"no class in the model \(.*7.*\); check that both have the same taxonomy"):
        trainer.step(batch)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="last_learning_rate 6e-06 is above learning_rate 1e-06"):
        TrainingSettings(learning_rate=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_and_checkpoints_train_nearly_the_same(made: MadeStore, precision: str) -> None:
    batch = batch_of(made, [0, 1])
    exact = Trainer(model_of(made), TrainingSettings.small(), updates=10).step(batch)
    trainer = Trainer(model_of(made), TrainingSettings.small(precision=precision, checkpointing=True), updates=10)
    assert trainer.model.checkpointing
    assert float(trainer.step(batch)) == pytest.approx(float(exact), rel=0.02)
    assert all(values.dtype == torch.float32 for values in trainer.model.parameters())


def test_the_scale_of_float16_gradients_is_resumed(made: MadeStore, tmp_path: Path) -> None:
    settings = TrainingSettings.small(precision="float16")
    trainer, again = (Trainer(model_of(made), settings, updates=10) for _ in range(2))
    trainer.scaler.scale(torch.ones(1))
    trainer.scaler.update(8.0)
    trainer.save(tmp_path / "state.pt")
    again.load(tmp_path / "state.pt")
    assert again.scaler.get_scale() == 8.0


def test_a_model_is_compiled_when_asked_for(made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, compiled, compile_model = batch_of(made, [0, 1]), [], torch.compile

    def quickly(model: CropModel) -> object:
        """The graph without generated code, which takes minutes."""
        compiled.append(model)
        return compile_model(model, backend="eager")

    monkeypatch.setattr(torch, "compile", quickly)
    losses = [
        float(Trainer(model_of(made), TrainingSettings.small(compile=chosen), updates=10).step(batch))
        for chosen in (False, True)
    ]
    assert len(compiled) == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# Epochs


def test_every_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    settings = TrainingSettings(batch_size=4, accumulation=2, epochs=3)
    epochs = [batches_of_epoch(10, settings, epoch) for epoch in range(3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(place for batch in batches for place in batch) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches_of_epoch(10, settings, 1) == epochs[1]
    assert batches_of_epoch(10, settings.model_copy(update={"seed": 1}), 1) != epochs[1]
    assert updates_of(10, settings) == 6


def test_random_numbers_depend_on_all_that_is_given() -> None:
    keys = [(0,), (0, 0), (0, 0, 0), (0, 1), (1, 0), (0, 0)]
    drawn = {tuple(torch.rand(3, generator=generator_of(*key)).tolist()) for key in keys}
    assert len(drawn) == len(set(keys)) == 5


def trained(
    made: MadeStore, seed: int, stop: int | None = None, folder: Path | None = None
) -> tuple[CropModel, list[float]]:
    """A model after two epochs, and their losses; stopped after so many batches, saved, gone on with by another."""
    settings = TrainingSettings.small(batch_size=2, epochs=2, seed=seed, accumulation=3)
    dataset = CropSamples(made.folder, months=6, later_scenes=True)
    transforms = BatchTransforms.for_store(made.folder, augmentation=Augmentation())
    trainer = Trainer(model_of(made, seed), settings, updates_of(len(dataset), settings))
    if stop is not None and folder is not None:
        for place, chosen in enumerate(batches_of_epoch(len(dataset), settings, 0)[:stop]):
            trainer.step(transforms(default_collate([dataset[i] for i in chosen]), generator_of(seed, 0, place)))
        trainer.save(folder / "state.pt")
        torch.rand(7)
        trainer = Trainer(model_of(made, seed + 1), settings, updates_of(len(dataset), settings))
        trainer.load(folder / "state.pt")
    losses = []
    while trainer.done < trainer.updates:
        losses.append(train_epoch(trainer, dataset, transforms))
    # Four batches an epoch: three and one.
    assert (trainer.batches, trainer.done, trainer.pending) == (8, 4, 0)
    assert trainer.optimiser.param_groups[0]["lr"] == settings.learning_rate_at(3, 4)
    assert trainer.optimiser.param_groups[0]["weight_decay"] == 5e-4
    return trainer.model, losses


def test_the_same_seed_gives_the_same_weights_interrupted_or_not(made: MadeStore, tmp_path: Path) -> None:
    model, losses = trained(made, 0)
    weights = model.state_dict()
    for again, same in (trained(made, 0), trained(made, 0, 3, tmp_path)):
        assert all(torch.equal(values, again.state_dict()[name]) for name, values in weights.items())
        assert same == losses
    other = trained(made, 1)[0].state_dict()
    assert not all(torch.equal(values, other[name]) for name, values in weights.items())


def test_a_state_of_another_training_or_a_damaged_one_is_refused(made: MadeStore, tmp_path: Path) -> None:
    settings = TrainingSettings.small()
    Trainer(model_of(made), settings, updates=4).save(tmp_path / "state.pt")
    for other in (Trainer(model_of(made), settings, updates=5), Trainer(model_of(made), TrainingSettings(), updates=4)):
        with pytest.raises(UsageError, match=r"with other (updates|settings);"):
            other.load(tmp_path / "state.pt")
    with pytest.raises(UsageError, match="with other model configuration;"):
        Trainer(model_of(made, enmap=False), settings, updates=4).load(tmp_path / "state.pt")
    # 5 and 6 months have weights of the same shapes.
    with pytest.raises(UsageError, match="with other model configuration;"):
        Trainer(CropModel(config_for_store(made.folder, months=5)), settings, updates=4).load(tmp_path / "state.pt")
    with pytest.raises(UsageError, match="with other samples;"):
        Trainer(model_of(made), settings, updates=4, samples=["a"]).load(tmp_path / "state.pt")
    whole = (tmp_path / "state.pt").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 500):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(ModelError, match="remove it to begin again"):
            Trainer(model_of(made), settings, updates=4).load(tmp_path / "state.pt")


def test_evaluating_leaves_the_model_as_it_was(made: MadeStore) -> None:
    model = model_of(made).train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    dataset = CropSamples(made.folder, months=6, later_scenes=True, arrays=["s2", "enmap", "label", "prior", "parcel"])
    transforms = BatchTransforms.for_store(made.folder)
    reports = [evaluate(model, dataset, transforms, batch_size=size) for size in (1, 3)]
    assert model.training
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert reports[0].samples == len(dataset)
    # Each block of the made store is a square of its own.
    assert reports[0].squares == 3
    assert reports[0].tiers[1].crops["all"].intervals is not None
    assert reports[0].tiers[1].parcels is not None
    assert reports[0].model_dump() == reports[1].model_dump()
    # Every pixel of the made labels is known at tier 1: a quarter is background.
    assert reports[0].tiers[1].published["all"].count == len(dataset) * 24**2
    assert reports[0].tiers[1].crops["all"].count == len(dataset) * 24**2 * 3 // 4


def test_an_evaluation_may_be_in_lower_precision(made: MadeStore) -> None:
    model = model_of(made)
    seen: list[torch.dtype] = []
    model.heads.tiers["4"].register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))
    dataset = CropSamples(made.folder, split="val", months=6, later_scenes=True)
    for precision in ("float32", "bfloat16"):
        report = evaluate(model, dataset, BatchTransforms.for_store(made.folder), precision=precision)
        assert report.samples == len(dataset)
    assert seen == [torch.float32, torch.bfloat16]


def test_a_store_of_version_2_is_evaluated_in_its_classes(made: MadeStore, tmp_path: Path) -> None:
    newer = make_training_store(tmp_path / "newer", version="2")
    model = model_of(newer)
    assert model.config.classes == {1: 7, 2: 58, 3: 161, 4: 208}
    transforms = BatchTransforms.for_store(newer.folder)
    report = evaluate(model, CropSamples(newer.folder, months=6, later_scenes=True), transforms)
    assert report.samples > 0
    published = CropSamples(made.folder, months=6, later_scenes=True)
    with pytest.raises(UsageError, match=r"made for the classes 2 .* has 1 .*relabel --taxonomy"):
        evaluate(model, published, BatchTransforms.for_store(made.folder))


def test_a_model_of_other_classes_is_not_evaluated(made: MadeStore, tmp_path: Path) -> None:
    model = model_of(made)
    dataset = CropSamples(made.folder, months=6, later_scenes=True)
    config = replace(model.config, taxonomy="0 " + "0" * 64)
    transforms = BatchTransforms.for_store(made.folder)
    with pytest.raises(UsageError, match=r"made for the classes 0 0000.*train again"):
        evaluate(CropModel(config), dataset, transforms)
    older = make_store(tmp_path / "older", taxonomy="0 " + "0" * 64)
    with pytest.raises(UsageError, match=r"older has the classes 0 0000.*relabel the store"):
        evaluate(model, CropSamples(older.folder), transforms)
    # One that does not state its classes passes, as imported stores do.
    evaluate(CropModel(replace(model.config, taxonomy=None)), dataset, transforms)


# A model for a store


def test_a_model_fits_the_samples_of_its_store(made: MadeStore, tmp_path: Path) -> None:
    config = config_for_store(made.folder, months=6)
    assert (config.months, config.patch, config.enmap.bands, config.prior) == (6, 24, 32, True)
    assert config.classes == {1: 6, 2: 36, 3: 82, 4: 101}
    assert config.normalisation is not None
    without = config_for_store(made.folder, months=12, enmap=False, prior=False, tiers=[4])
    assert (without.enmap, without.prior, without.classes) == (None, False, {4: 101})
    with pytest.raises(UsageError, match="unknown tier 5"):
        config_for_store(made.folder, tiers=[5])
    with pytest.raises(StoreError, match="has no EnMAP"):
        config_for_store(make_store(tmp_path / "bare", enmap=False).folder, enmap=True)
    with pytest.raises(StoreError, match="has no labels"):
        config_for_store(make_store(tmp_path / "blank", labels=False).folder)
    with pytest.raises(StoreError, match="has the Sentinel-2 bands B02 B03"):
        config_for_store(make_store(tmp_path / "few", s2_bands=["B02", "B03"]).folder)
