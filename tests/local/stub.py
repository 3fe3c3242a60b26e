"""`python -m bootstrap local` with a stand-in for `apply`, told by STUB_APPLY what to do."""

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
    """Note the settings, then end with the exit code that was told, or wait for a signal."""
    Path(os.environ["STUB_RECORD"]).write_text(json.dumps(dict(settings)))
    if os.environ["STUB_APPLY"] == "wait":
        print("applying", flush=True)
        while True:
            signal.pause()
    return int(os.environ["STUB_APPLY"])


def main() -> int:
    """As the program's own command line treats it."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    try:
        return command.run(parser.parse_args(), apply=apply, out=sys.stdout, last=True)
    except BootstrapError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
