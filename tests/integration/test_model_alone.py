"""The model needs PyTorch and numpy alone; only saving and loading need more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: What the package as a whole needs, but no forward and backward pass.
ABSENT = (
    *("pydantic", "safetensors", "pandas", "pyarrow", "xarray", "typer", "rich", "h5py", "zarr", "numcodecs"),
    *("fsspec", "geopandas", "yaml", "dask"),
)
CODE = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # importing it fails, as where it is not installed

import torch
from h2crop_data.errors import UsageError
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel, ModelConfig, to_published
from h2crop_data.training.normalisation import Normalisation, normalise

torch.set_num_threads(1)
torch.manual_seed(0)
model = CropModel(ModelConfig.small(2, patch=48))
published = Normalisation.published()
stored = {{"s2": torch.randint(0, 4000, (1, 2, 10, 48, 48)), "enmap": torch.randint(0, 4000, (1, 218, 16, 16))}}
images = {{name: normalise(values.short(), *published.in_stored_numbers(name)) for name, values in stored.items()}}
label = torch.randint(0, 6, (1, 4, 48, 48))
hierarchical_loss(model(**images, prior=label), label).backward()
without = [name for name, weight in model.named_parameters() if weight.grad is None]
print("no gradient:", without, "published keys:", "heads.heads_dict.level4.head.2.bias" in to_published(model))
try:
    ModelConfig.build(months="six")
except UsageError as error:
    print(error)
try:
    model.save_pretrained("nowhere")
except ImportError as error:
    print("saving needs", error.name)
"""


def test_forward_and_backward_need_torch_and_numpy_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no gradient: [] published keys: True",
        "model configuration: months: expected a whole number from 1 to 12, got 'six'",
        "saving needs pydantic",
    ]
