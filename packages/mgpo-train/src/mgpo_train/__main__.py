"""`python -m mgpo_train` and `accelerate launch -m mgpo_train`: the same as the command `mgpo-train`."""

import sys

from mgpo_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
