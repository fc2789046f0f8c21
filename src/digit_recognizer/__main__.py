"""Run the command line: ``python -m digit_recognizer <verb>``."""

import sys

from digit_recognizer import cli

sys.exit(cli.main())
