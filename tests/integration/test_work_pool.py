"""infra/work_pool.py: what stands in the pool instead of secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest
from script_modules import CHECKOUT, script_module

SCRIPT = CHECKOUT / "infra/work_pool.py"


@pytest.fixture(scope="module")
def work_pool() -> ModuleType:
    return script_module("infra/work_pool.py")


def test_runs_get_the_variables_that_were_named_last(work_pool: ModuleType) -> None:
    template = work_pool.ProcessWorker.get_default_base_job_template()
    env = template["variables"]["properties"]["env"]
    env["default"] = {"H2CROP_WORK": "/data/work"}
    first = {
        "AWS_SECRET_ACCESS_KEY": "{{ prefect.blocks.secret.h2crop-aws-secret-access-key }}",
        "H2CROP_DOWNLOAD_PASSWORD": "{{ prefect.blocks.secret.h2crop-download-password }}",
    }
    assert work_pool.with_references(template, list(first)) is template
    assert env["default"] == {"H2CROP_WORK": "/data/work", **first}
    work_pool.with_references(template, ["AWS_ACCESS_KEY_ID"])
    assert env["default"] == {
        "H2CROP_WORK": "/data/work",
        "AWS_ACCESS_KEY_ID": "{{ prefect.blocks.secret.h2crop-aws-access-key-id }}",
    }


def test_a_variable_that_is_not_set_is_named() -> None:
    rest = {name: value for name, value in os.environ.items() if name != "AWS_SECRET_ACCESS_KEY"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "H2CROP_SET", "AWS_SECRET_ACCESS_KEY"],
        env={**rest, "H2CROP_SET": "planted"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "not set in the environment of this command: AWS_SECRET_ACCESS_KEY\n"
