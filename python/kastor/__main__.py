"""`python -m kastor`: the command `kastor`, the same one that `pip install` puts beside the interpreter."""

import sys

from kastor._native import cli

if __name__ == "__main__":
    sys.exit(cli())
