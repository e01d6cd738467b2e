"""Makes the work pool of infra/prefect.yaml; its runs get secrets from blocks of Prefect, which only the worker opens.

    AWS_SECRET_ACCESS_KEY=… python infra/work_pool.py AWS_SECRET_ACCESS_KEY

Each variable that is named is read from the environment of this command and saved as a Secret block, encrypted. The
pool only holds a reference, `{{ prefect.blocks.secret.h2crop-aws-secret-access-key }}`; a worker asks for the value
right before it starts a run, and gives it to the run as the variable of that name. Run it again to change a secret or
the list: a pool that is there is updated, and runs that begin later use it. docs/flows.md says why references do not
stand in infra/prefect.yaml.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr


def block_name(variable: str) -> str:
    """The name of the block of a variable: small letters, digits and hyphens are allowed."""
    return f"h2crop-{variable.lower().replace('_', '-').removeprefix('h2crop-')}"


def reference(variable: str) -> str:
    """What stands in the pool instead of a secret."""
    return f"{{{{ prefect.blocks.secret.{block_name(variable)} }}}}"


def with_references(template: dict[str, Any], variables: list[str]) -> dict[str, Any]:
    """A pool's template in which runs get these variables, and no other, from blocks; all else stays as it is."""
    env = template["variables"]["properties"]["env"]
    others = {name: value for name, value in (env.get("default") or {}).items() if value != reference(name)}
    env["default"] = others | {name: reference(name) for name in variables}
    return template


def make_pool(name: str, secrets: dict[str, str]) -> None:
    """Save secrets by variable, and make or update the pool whose runs get them."""
    for variable, value in secrets.items():
        Secret(value=SecretStr(value)).save(block_name(variable), overwrite=True)
    with get_client(sync_client=True) as client:
        try:
            template = client.read_work_pool(name).base_job_template
        except ObjectNotFound:
            template = with_references(ProcessWorker.get_default_base_job_template(), list(secrets))
            client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
        else:
            update = WorkPoolUpdate(base_job_template=with_references(template, list(secrets)))
            client.update_work_pool(name, update)


def main() -> int:
    """Make the pool; 2 where a variable is not set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variables", nargs="*", metavar="VARIABLE", help="variables of runs, with secrets")
    parser.add_argument("--pool", default="h2crop", help="name of the pool (default h2crop)")
    arguments = parser.parse_args()
    missing = [name for name in arguments.variables if not os.environ.get(name)]
    if missing:
        print(f"not set in the environment of this command: {', '.join(missing)}", file=sys.stderr)
        return 2
    make_pool(arguments.pool, {name: os.environ[name] for name in arguments.variables})
    shown = ", ".join(block_name(name) for name in arguments.variables) or "no secrets"
    print(f"work pool {arguments.pool}: runs get {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
