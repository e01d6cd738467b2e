"""A flow that is run from a command line: what it prints, and the code it exits with."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from prefect.client.schemas.objects import State

from h2crop_data.flows.result import RunResult


def end_command(state: State[RunResult]) -> None:
    """Print the result of a run as JSON and exit as `h2crop` does: 0 done, 1 failed, 3 built with gaps.

    A run that failed says why on standard error; its parameters are among the reasons.
    """
    if not state.is_completed():
        sys.stderr.write(f"{state.name}: {state.message}\n")
        sys.exit(1)
    result = state.result()
    sys.stdout.write(json.dumps(asdict(result), indent=1, ensure_ascii=False, default=str) + "\n")
    if result.outcome == "built" and result.build is not None and result.build.gaps:
        sys.exit(3)
