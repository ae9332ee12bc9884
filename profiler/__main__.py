"""`python -m mixprof` is the command line."""

import sys

from mixprof.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
