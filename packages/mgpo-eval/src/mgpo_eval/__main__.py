"""`python -m mgpo_eval`: the same as the command `mgpo-eval`."""

import sys

from mgpo_eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
