"""`python -m bootstrap local` with a stand-in for `apply` that STUB_APPLY controls."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.local import command


def apply(settings: Mapping[str, str]) -> int:
    """Record the settings, then return STUB_APPLY as the exit code, or wait for a signal."""
    Path(os.environ["STUB_RECORD"]).write_text(json.dumps(dict(settings)))
    if os.environ["STUB_APPLY"] == "wait":
        print("applying", flush=True)
        while True:
            signal.pause()
    return int(os.environ["STUB_APPLY"])


def main() -> int:
    """Parse and run, like the program's own command line."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    try:
        return command.run(parser.parse_args(), apply=apply, out=sys.stdout, last=True)
    except BootstrapError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
