"""Settings of the whole test suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side, one a core: PyTorch's threads would wait for each other, and a step take fifty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no fault of what is tested.
settings.register_profile("without clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Of `make test-fast`: a fifth of the examples of a property.
settings.register_profile("fast", settings.get_profile("without clock"), max_examples=20)
settings.load_profile("without clock")

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work folders of stores in buckets lie in a cache of the tests' own; what is made once is shared by processes."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-stores"
    shared.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("H2CROP_TEST_STORES", str(shared))
        yield
