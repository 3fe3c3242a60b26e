"""The program as a separate process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.real.testbed import Testbed


def start_apply(six: Testbed, started: list[subprocess.Popen[str]], **variables: str) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-m", "bootstrap", "apply"],
        env={**os.environ, **six.variables, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(program)
    return program


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
