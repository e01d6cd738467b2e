"""A script that reads a store through the workers of a PyTorch DataLoader, in a process of its own."""

#: Arguments: store, how workers start, file of the expected `s2`. Prints `the same`, or the error of the store.
WORKERS = """
import sys
import numpy as np
import torch
from torch.utils.data import DataLoader
from h2crop_data.errors import StoreError
from h2crop_data.training.dataset import CropSamples

if __name__ == "__main__":
    store, start, expected = sys.argv[1:]
    samples = CropSamples(store)
    first = samples[0]["s2"]  # used in the parent before
    loader = DataLoader(samples, batch_size=2, num_workers=2, multiprocessing_context=start, timeout=60)
    try:
        batches = list(loader)
    except StoreError as error:
        print(error)
    else:
        assert [name for batch in batches for name in batch["id"]] == samples.ids
        read = torch.cat([batch["s2"] for batch in batches])
        np.testing.assert_array_equal(read.numpy(), np.load(expected))
        assert torch.equal(read[0], first)
        print("the same")
"""
