"""Whether a container is well: exit code 0 if it is, 1 with a line that says why not.

    health.py         h2crop starts
    health.py URL     what runs in the container answers there with status 200

Standard library alone, because it must say something where h2crop's packages are what is broken.
"""

from __future__ import annotations

import subprocess
import sys
from urllib.error import URLError
from urllib.request import urlopen

#: Seconds that a service, and h2crop on a busy machine, may take; less than `timeout` of the checks that run this.
ANSWER, START = 5.0, 25.0


def problem_of_service(url: str) -> str:
    """What is wrong with a service; empty for nothing."""
    try:
        with urlopen(url, timeout=ANSWER) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"
    except (URLError, OSError, ValueError) as error:
        return f"{url}: {error}"


def problem_of_h2crop() -> str:
    """What keeps h2crop from starting; empty for nothing."""
    try:
        done = subprocess.run(["h2crop", "--version"], capture_output=True, text=True, timeout=START, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"h2crop does not start: {error}"
    return "" if done.returncode == 0 else f"h2crop does not start: {done.stderr.strip()[-500:]}"


def main(arguments: list[str]) -> int:
    """Docker knows the codes 0 and 1 alone."""
    problem = problem_of_service(arguments[0]) if arguments else problem_of_h2crop()
    print(problem or "healthy")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
