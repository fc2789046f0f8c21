"""Run the command line: ``python -m digit_recognizer <verb>``."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder, which ``python -m`` adds: its files are data, never code

from digit_recognizer import cli

sys.exit(cli.main())
