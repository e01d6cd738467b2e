"""Weights in and out: models saved in folders, and AgriFM's weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.errors import H2cropError, ModelError, UsageError
from h2crop_data.training.model import CropModel, ModelConfig, SwinConfig, load_agrifm
from h2crop_data.training.normalisation import Normalisation

SIZES: dict[str, Any] = {
    "patch": 48,
    "classes": {2: 3, 4: 5},
    "sentinel2": SwinConfig(width=4, depths=(1, 1, 2, 1), heads=(1, 1, 2, 2), mlp_ratio=2),
}
NORMALISATION = Normalisation(
    source="statistics of the training split",
    mean={"s2": tuple(range(10)), "enmap": tuple(range(218))},
    sd={"s2": (2.5,) * 10, "enmap": (7.0,) * 218},
    offset={"s2": 1000},
)
TAXONOMY = "1 " + "ab" * 32


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.small(8, normalisation=NORMALISATION, taxonomy=TAXONOMY, **SIZES)


@pytest.fixture(scope="module")
def model(config: ModelConfig) -> CropModel:
    return trained(config)


def trained(config: ModelConfig) -> CropModel:
    """A model whose batch norms have seen a batch."""
    torch.manual_seed(0)
    model = CropModel(config)
    with torch.no_grad():
        model(**inputs(config))
    return model


def inputs(config: ModelConfig) -> dict[str, Tensor]:
    torch.manual_seed(1)
    side = config.patch
    return {
        "s2": torch.randn(1, config.months, 10, side, side),
        "enmap": torch.randn(1, 218, side // 3, side // 3),
        "prior": torch.randint(0, 4, (1, 4, side, side)),
    }


# Folders.


def test_a_saved_model_comes_back_exactly(model: CropModel, config: ModelConfig, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "new" / "model")
    again = CropModel.from_pretrained(tmp_path / "new" / "model")
    assert again.config == config
    assert not again.training
    own = again.state_dict()
    assert list(own) == list(model.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(own[key], tensor), key
    with torch.no_grad():
        expected = model.eval()(**inputs(config))
        model.train()
        for tier, logits in again(**inputs(config)).items():
            assert torch.equal(logits, expected[tier])


def test_config_json_says_what_the_model_expects(model: CropModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert stated["inputs"]["s2"]["shape"] == [8, 10, 48, 48]
    assert stated["inputs"]["s2"]["bands"] == list(SENTINEL2_BANDS)
    assert stated["inputs"]["s2"]["months"] == "the first 8 of the season"
    assert stated["inputs"]["enmap"]["shape"] == [218, 16, 16]
    assert {stated["inputs"][name]["reflectance_scale"] for name in ("s2", "enmap")} == {1e-4}
    assert stated["inputs"]["prior"]["shape"] == [4, 48, 48]
    assert stated["inputs"]["prior"]["unknown"] == 255
    assert stated["outputs"] == {"tier 2": 4, "tier 4": 6}
    assert stated["taxonomy"] == TAXONOMY
    assert stated["config"]["normalisation"]["sd"]["s2"] == [2.5] * 10
    assert stated["config"]["normalisation"]["offset"] == {"s2": 1000}
    with safe_open(tmp_path / stated["weights"]["file"], "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_a_model_without_enmap_and_prior_expects_neither(tmp_path: Path) -> None:
    CropModel(ModelConfig.small(enmap=False, prior=False, **SIZES)).save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert list(stated["inputs"]) == ["s2"]
    assert CropModel.from_pretrained(tmp_path).enmap is None


def test_saving_again_replaces_the_model_and_leaves_no_other_file(
    model: CropModel, config: ModelConfig, tmp_path: Path
) -> None:
    trained(replace(config, months=6)).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert CropModel.from_pretrained(tmp_path).config.months == 8
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupted_save_leaves_the_model_that_was_there(
    model: CropModel, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    older = trained(replace(config, months=6))
    older.save_pretrained(tmp_path)
    calls = []
    rename = Path.replace

    def fails(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(ModelError, match="No space left on device"):
        model.save_pretrained(tmp_path)
    again = CropModel.from_pretrained(tmp_path)
    assert again.config == older.config
    for key, tensor in older.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)
    assert not list(tmp_path.glob(".*"))


def rewrite(folder: Path, **changes: Any) -> None:
    """Change top-level members of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def weights_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def cut_short(folder: Path) -> None:
    weights_file(folder).write_bytes(weights_file(folder).read_bytes()[:-1])


def flip_a_bit(folder: Path) -> None:
    data = bytearray(weights_file(folder).read_bytes())
    data[-100] ^= 1
    weights_file(folder).write_bytes(data)


def other_tiers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    rewrite(folder, config=config | {"classes": {"2": 3, "3": 9}})


def impossible_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    rewrite(folder, config=config | {"months": 13})


def unknown_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    rewrite(folder, config=config | {"sentinel2": config["sentinel2"] | {"frames": 3}})


DAMAGE: dict[str, tuple[Any, str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "contains no model: config.json"),
    "no weights": (lambda folder: weights_file(folder).unlink(), "does not exist; copy the whole folder"),
    "weights cut short": (cut_short, "bytes, config.json states"),
    "a bit flipped": (flip_a_bit, "its checksum differs"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"), "is not JSON"),
    "another library's": (lambda folder: rewrite(folder, format="bert"), "was not written by save_pretrained"),
    "another version": (lambda folder: rewrite(folder, format_version=2), "format version 2, this h2crop reads 1"),
    "no list of weights": (lambda folder: rewrite(folder, weights={}), "is damaged: KeyError('file')"),
    "impossible sizes": (impossible_config, "months: expected a whole number from 1 to 12, got 13"),
    "an unknown size": (unknown_size, "sentinel2.frames: Unexpected keyword argument"),
    "other tiers": (other_tiers, "missing: heads.tiers.3.0.weight"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused_in_words(model: CropModel, tmp_path: Path, name: str) -> None:
    model.save_pretrained(tmp_path)
    damage, words = DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(ModelError) as raised:
        CropModel.from_pretrained(tmp_path)
    assert words in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_folder_that_cannot_be_written_is_an_error_in_words(model: CropModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot write the model into"):
        model.save_pretrained(tmp_path / "file")


# AgriFM.


@pytest.fixture
def swin_only() -> CropModel:
    torch.manual_seed(5)
    return CropModel(ModelConfig.small(enmap=False, **SIZES))


def agrifm_state(depths: tuple[int, ...] = (1, 1, 2, 1), width: int = 4) -> dict[str, Tensor]:
    """A state dict with AgriFM's names and the sizes of the model above, band i of the patch embedding being i."""
    torch.manual_seed(6)
    state = {
        "S2_patch_emd.proj.weight": torch.arange(10.0).view(1, 10, 1, 1, 1).expand(width, 10, 2, 4, 4).clone(),
        "S2_patch_emd.proj.bias": torch.randn(width),
    }
    for stage, depth in enumerate(depths):
        channels, heads = width * 2**stage, (1, 1, 2, 2)[stage]
        for block in range(depth):
            for name, shape in {
                "norm1.weight": (channels,),
                "norm1.bias": (channels,),
                "attn.relative_position_bias_table": (15 * 13 * 13, heads),
                "attn.qkv.weight": (3 * channels, channels),
                "attn.qkv.bias": (3 * channels,),
                "attn.proj.weight": (channels, channels),
                "attn.proj.bias": (channels,),
                "norm2.weight": (channels,),
                "norm2.bias": (channels,),
                "mlp.fc1.weight": (2 * channels, channels),
                "mlp.fc1.bias": (2 * channels,),
                "mlp.fc2.weight": (channels, 2 * channels),
                "mlp.fc2.bias": (channels,),
            }.items():
                state[f"backbone.layers.{stage}.blocks.{block}.{name}"] = torch.randn(shape)
            index = torch.zeros(392, 392, dtype=torch.int64)
            state[f"backbone.layers.{stage}.blocks.{block}.attn.relative_position_index"] = index
        if stage < 3:
            state[f"backbone.layers.{stage}.downsample.reduction.weight"] = torch.randn(2 * channels, 4 * channels)
            state[f"backbone.layers.{stage}.downsample.norm.weight"] = torch.randn(4 * channels)
            state[f"backbone.layers.{stage}.downsample.norm.bias"] = torch.randn(4 * channels)
    state["backbone.norm.weight"] = torch.randn(8 * width)
    state["backbone.norm.bias"] = torch.randn(8 * width)
    return state


def test_agrifm_weights_fill_the_whole_sentinel_2_stream(swin_only: CropModel) -> None:
    before = {key: tensor.clone() for key, tensor in swin_only.state_dict().items()}
    state = agrifm_state()
    load_agrifm(swin_only, state)
    after = swin_only.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {key for key in after if key.startswith("sentinel2.")}
    block = "sentinel2.stages.2.blocks.1."
    theirs = "backbone.layers.2.blocks.1."
    assert torch.equal(after[block + "attention.qkv.weight"], state[theirs + "attn.qkv.weight"])
    assert torch.equal(after[block + "mlp.2.weight"], state[theirs + "mlp.fc2.weight"])
    assert torch.equal(after[block + "attention_norm.bias"], state[theirs + "norm1.bias"])
    assert torch.equal(
        after["sentinel2.stages.0.merging.norm.weight"], state["backbone.layers.0.downsample.norm.weight"]
    )


def test_bands_are_put_in_our_order_or_left_as_published(swin_only: CropModel) -> None:
    # Of AgriFM's channels B02 B03 B04 B08 B05 B06 B07 B8A B11 B12, for ours B02 B03 B04 B05 B06 B07 B08 B8A B11 B12.
    load_agrifm(swin_only, agrifm_state())
    kernel = swin_only.get_parameter("sentinel2.patch_embedding.weight")
    assert kernel[0, :, 0, 0, 0].tolist() == [0, 1, 2, 4, 5, 6, 3, 7, 8, 9]
    load_agrifm(swin_only, agrifm_state(), band_order="published")
    assert kernel[3, :, 1, 2, 3].tolist() == list(range(10))


def test_the_permuted_kernel_gives_the_same_on_the_same_bands(swin_only: CropModel) -> None:
    load_agrifm(swin_only, agrifm_state(), band_order="published")
    agrifm_order = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"]
    torch.manual_seed(7)
    images = dict(zip(SENTINEL2_BANDS, torch.randn(10, 1, 2, 8, 8), strict=True))
    expected = swin_only.sentinel2.patch_embedding(torch.stack([images[band] for band in agrifm_order], 1))
    load_agrifm(swin_only, agrifm_state())
    ours = swin_only.sentinel2.patch_embedding(torch.stack([images[band] for band in SENTINEL2_BANDS], 1))
    torch.testing.assert_close(ours, expected)


def test_keys_of_the_whole_pretraining_model(swin_only: CropModel) -> None:
    """With `encoder.` in front, the patch embedding's members named otherwise, and other sensors' beside it."""
    state = {
        "encoder." + key.replace("proj.weight", "weights").replace("proj.bias", "bias")
        if "patch_emd" in key
        else "encoder." + key: tensor
        for key, tensor in agrifm_state().items()
    }
    state["encoder.HLSL30_patch_emd.weights"] = torch.zeros(4, 6, 2, 4, 4)
    with pytest.raises(UsageError, match=r"1 unexpected: HLSL30_patch_emd\.weights"):
        load_agrifm(swin_only, state)
    load_agrifm(swin_only, state, ignore=["HLSL30_patch_emd"])
    own = swin_only.state_dict()
    assert torch.equal(own["sentinel2.patch_embedding.bias"], state["encoder.S2_patch_emd.bias"])


def test_a_patch_embedding_of_other_months_is_refused_or_ignored(swin_only: CropModel) -> None:
    state = agrifm_state() | {"S2_patch_emd.proj.weight": torch.zeros(4, 10, 4, 4, 4)}
    before = {key: tensor.clone() for key, tensor in swin_only.state_dict().items()}
    with pytest.raises(UsageError) as raised:
        load_agrifm(swin_only, state)
    assert "S2_patch_emd.proj.weight (4, 10, 4, 4, 4) instead of (4, 10, 2, 4, 4)" in str(raised.value)
    for key, tensor in swin_only.state_dict().items():
        assert torch.equal(tensor, before[key])
    load_agrifm(swin_only, state, ignore=["S2_patch_emd"])
    own = swin_only.state_dict()
    assert torch.equal(own["sentinel2.patch_embedding.weight"], before["sentinel2.patch_embedding.weight"])
    assert torch.equal(own["sentinel2.norm.weight"], state["backbone.norm.weight"])


@pytest.mark.parametrize(
    ("key", "words"),
    [("backbone.norm.weight", "1 missing: backbone.norm.weight"), ("decoder.weight", "1 unexpected: decoder.weight")],
)
def test_unexplained_keys_are_refused(swin_only: CropModel, key: str, words: str) -> None:
    state = agrifm_state()
    if key in state:
        del state[key]
    else:
        state[key] = torch.zeros(1)
    with pytest.raises(H2cropError, match=words):
        load_agrifm(swin_only, state)
