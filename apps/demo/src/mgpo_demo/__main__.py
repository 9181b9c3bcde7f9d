"""`python -m mgpo_demo` is `mgpo-demo`."""

import sys

from mgpo_demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
