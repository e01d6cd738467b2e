"""Weights of the published model and of AgriFM: from their state dicts to ours, and back.

The published model is that of the H2Crop dataset (2025, Apache-2.0); only names and shapes of its weights are used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.errors import UsageError
from h2crop_data.training.model.config import HyperspectralConfig, ModelConfig
from h2crop_data.training.model.model import CropModel
from h2crop_data.training.model.swin import relative_positions
from h2crop_data.training.model.weights import check_keys
from h2crop_data.training.normalisation import Normalisation

SENTINEL2 = "encoders.encoders.S2."
BACKBONE = SENTINEL2 + "backbone."
ENMAP = "encoders.encoders.EnMAP."

#: Our names and the published ones; a key is translated by the first pair whose name it begins with.
PREFIXES = (
    ("sentinel2.patch_embedding.", SENTINEL2 + "patch_emd.proj."),
    ("sentinel2.stages.", BACKBONE + "layers."),
    ("sentinel2.norm.", BACKBONE + "norm."),
    ("enmap.spatial.embedding.", ENMAP + "s_vit.patch_emd.proj."),
    ("enmap.spatial.upsampling.0.", ENMAP + "s_vit.out_conv."),
    ("enmap.spatial.", ENMAP + "s_vit."),
    ("enmap.spectral.expansion.", ENMAP + "p_vit.out_post."),
    ("enmap.spectral.upsampling.0.", ENMAP + "p_vit.out_conv."),
    ("enmap.spectral.", ENMAP + "p_vit."),
    ("enmap.fusion.", ENMAP + "out_post."),
    ("neck.fusions.", "neck.fusion_list."),
    ("neck.refinement.", "neck.out_conv."),
    ("neck.enmap_refinement.", "neck.hyper_embed_neck.models."),
)
#: Our names and the published ones within stages and blocks; each is one or two whole parts of a key.
PARTS = (
    ("attention_norm", "norm1"),
    ("mlp_norm", "norm2"),
    ("attention.bias_table", "attn.relative_position_bias_table"),
    ("attention.qkv", "attn.qkv"),
    ("attention.projection", "attn.proj"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.2", "mlp.fc2"),
    ("merging", "downsample"),
)
HEAD = re.compile(r"heads\.tiers\.(\d)\.")
PUBLISHED_HEAD = re.compile(r"heads\.heads_dict\.level(\d)\.head\.")
#: A buffer of every published Swin block, known from the size of the window.
POSITION_INDEX = "attn.relative_position_index"
#: Side of the images that the unused position table of the published transformers was made for.
UNUSED_IMAGE = 224

#: Order of the Sentinel-2 bands in AgriFM's configuration.
AGRIFM_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
#: AgriFM's names of the patch embedding -> the published ones.
AGRIFM_EMBEDDING = {
    "S2_patch_emd.proj.weight": SENTINEL2 + "patch_emd.proj.weight",
    "S2_patch_emd.proj.bias": SENTINEL2 + "patch_emd.proj.bias",
    "S2_patch_emd.weights": SENTINEL2 + "patch_emd.proj.weight",
    "S2_patch_emd.bias": SENTINEL2 + "patch_emd.proj.bias",
}


def load_published(state: Mapping[str, Tensor], config: ModelConfig | None = None) -> CropModel:
    """A model with the weights of the published code.

    state: the state dict itself, `torch.load(path, weights_only=True)["state_dict"]` of a published checkpoint.
    config: by default derived from the keys and shapes (`published_config`), with the published normalisation, which
    the weights need, and without a taxonomy.
    Unused published weights (`unused_weights`) and the tables of relative positions are left out.
    Returns a model with float32 weights of its own on the CPU, in eval mode.
    Raises UsageError that names missing and unexpected keys, and those of another shape.
    """
    if config is None:
        config = replace(published_config(state), normalisation=Normalisation.published())
    weights = used_weights(state, config)
    remedy = "give the configuration that it was trained with"
    return CropModel.from_weights(config, weights, "the published state dict", remedy, published_key)


def used_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a published state dict that the model uses, by our keys; a key without one keeps its name."""
    left_out = set(unused_weights(config)) | set(position_indexes(config))
    return {our_key(key): tensor for key, tensor in state.items() if key not in left_out}


def to_published(model: CropModel) -> dict[str, Tensor]:
    """The state dict that the published code loads strictly: its keys, shapes and dtypes.

    Weights that the published code holds but does not use are filled: norm weights with 1, all others with 0. The
    other tensors are shared with the model, not copied.
    Raises UsageError for a model with a learned token for absent EnMAP, which the published code has not.
    """
    config = model.config
    if model.absent_enmap is not None:
        raise UsageError("enmap.optional: the published model has no token for absent EnMAP, so this one has no export")
    state = {published_key(key): tensor.detach() for key, tensor in model.state_dict().items()}
    device = model.sentinel2.norm.weight.device
    for key, shape in unused_weights(config).items():
        fill = torch.ones if key.endswith("norm.weight") else torch.zeros
        state[key] = fill(shape, device=device)
    index = torch.from_numpy(relative_positions(config.sentinel2.window)).to(device)
    return state | {key: index.clone() for key in position_indexes(config)}


def published_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """The published configuration that a state dict belongs to, from its keys and shapes.

    Months come from the widths of the neck: 6, 8, 10 or 12 in the published models. An odd number of months has the
    keys and shapes of the next even one, which is taken.
    Raises UsageError where keys that identify the configuration are missing.
    """
    if "state_dict" in state:
        raise UsageError("expected a state dict, got a checkpoint; give checkpoint['state_dict']")
    heads = {int(found[1]): key for key in state if (found := PUBLISHED_HEAD.match(key)) and key.endswith("0.weight")}
    embedding, finest = SENTINEL2 + "patch_emd.proj.weight", "neck.fusion_list.2.0.weight"
    missing = [key for key in (embedding, finest) if key not in state]
    if missing or not heads:
        raise UsageError(
            f"invalid state dict of a published model: missing key {(missing or ['heads.heads_dict.*'])[0]}"
        )
    width, _, months, *_ = state[embedding].shape
    frames = state[finest].shape[1] // width - 2
    tiers = sorted(heads)
    enmap = any(key.startswith(ENMAP) for key in state)
    features = width + (HyperspectralConfig().features if enmap else 0)
    prior = state[heads[tiers[0]]].shape[1] > features
    config = ModelConfig.published(months * frames, enmap=enmap, prior=prior, tiers=tiers)
    counts = {tier: state[heads[tier].removesuffix("0.weight") + "2.bias"].shape[0] - 1 for tier in tiers}
    return replace(config, classes=counts)


def load_agrifm(
    model: CropModel,
    state: Mapping[str, Tensor],
    *,
    band_order: Literal["agrifm", "published"] = "agrifm",
    ignore: Collection[str] = (),
) -> None:
    """Load AgriFM's weights into the Sentinel-2 stream of a model.

    state: keys `S2_patch_emd.*` and `backbone.*`, with or without `encoder.` in front.
    band_order: `agrifm` moves the channels of the patch embedding to our order of bands (B08 stands fourth in AgriFM's
    configuration, seventh in ours); `published` loads them as they are, as the published code does.
    ignore: beginnings of keys that are left out on purpose, such as `HLSL30_patch_emd`, the patch embedding of another
    sensor, or `S2_patch_emd` where its months a token differ; what is left out of the stream keeps its initial weights.
    Raises UsageError that names missing and unexpected keys, and those of another shape; the model is then unchanged.
    """
    config = model.config
    if band_order == "agrifm" and config.s2_bands != SENTINEL2_BANDS:
        raise UsageError(
            f"band_order: AgriFM's bands are put in the order {' '.join(SENTINEL2_BANDS)}, this model has "
            f"{' '.join(config.s2_bands)}; give band_order='published' to load them as they are"
        )
    own = {key: tensor for key, tensor in model.state_dict().items() if key.startswith("sentinel2.")}
    left_out = {key for key in own if agrifm_key(key).startswith(tuple(ignore))}
    expected = {key: tensor for key, tensor in own.items() if key not in left_out}
    indexes = position_indexes(config)
    given: dict[str, Tensor] = {}
    for full_key, tensor in state.items():
        key = full_key.removeprefix("encoder.")
        published = AGRIFM_EMBEDDING.get(key, SENTINEL2 + key)
        if published not in indexes and not key.startswith(tuple(ignore)):
            given[our_key(published)] = tensor
    embedding = "sentinel2.patch_embedding.weight"
    if band_order == "agrifm" and embedding in given and given[embedding].shape[1] == len(AGRIFM_BANDS):
        given[embedding] = given[embedding][:, [AGRIFM_BANDS.index(band) for band in SENTINEL2_BANDS]]
    remedy = "list the keys to leave out in `ignore`"
    check_keys(expected, given, "AgriFM's state dict", remedy, agrifm_key)
    model.load_state_dict(given, strict=False)


def agrifm_key(key: str) -> str:
    """AgriFM's name of one of our keys of the Sentinel-2 stream, without `encoder.`."""
    name = published_key(key).removeprefix(SENTINEL2)
    return f"S2_{name}" if name.startswith("patch_emd") else name


def published_key(key: str) -> str:
    """The published name of one of our keys: `sentinel2.norm.bias` -> `encoders.encoders.S2.backbone.norm.bias`."""
    return translated(HEAD.sub(r"heads.heads_dict.level\1.head.", key), PREFIXES, PARTS)


def our_key(key: str) -> str:
    """Our name of a published key; the key itself if there is none."""
    prefixes = [(published, ours) for ours, published in PREFIXES]
    parts = [(published, ours) for ours, published in PARTS]
    return translated(PUBLISHED_HEAD.sub(r"heads.tiers.\1.", key), prefixes, parts)


def translated(key: str, prefixes: Iterable[tuple[str, str]], parts: Iterable[tuple[str, str]]) -> str:
    """A key with its beginning and its parts in other names."""
    for name, other in prefixes:
        if key.startswith(name):
            key = other + key.removeprefix(name)
            break
    for name, other in parts:
        if f".{name}." in f"{key}.":
            key = f"{key}.".replace(f".{name}.", f".{other}.").removesuffix(".")
            break
    return key


def unused_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Published key -> shape of the weights that the published code holds and never uses: 40,403,456 numbers.

    They are members of the vision transformer that both EnMAP transformers are derived from.
    """
    if not config.enmap:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, width, cell in (
        ("s_vit.", config.enmap.spatial_width, 1),
        ("p_vit.", config.spectral_width, config.enmap.cell),
    ):
        shapes |= {
            f"{ENMAP}{name}cls_token": (1, 1, width),
            f"{ENMAP}{name}pos_embed": (1, (UNUSED_IMAGE // cell) ** 2 + 1, width),
            f"{ENMAP}{name}patch_embed.proj.weight": (width, config.enmap.bands, cell, cell),
            f"{ENMAP}{name}patch_embed.proj.bias": (width,),
            f"{ENMAP}{name}norm.weight": (width,),
            f"{ENMAP}{name}norm.bias": (width,),
        }
    return shapes


def position_indexes(config: ModelConfig) -> list[str]:
    """Published keys of the tables of relative positions, one a Swin block."""
    return [
        f"{BACKBONE}layers.{stage}.blocks.{block}.{POSITION_INDEX}"
        for stage, depth in enumerate(config.sentinel2.depths)
        for block in range(depth)
    ]
