"""`python -m mixprof` is the command line."""

import sys

try:
    from mixprof.cli.main import main
except ModuleNotFoundError as error:  # in a checkout that is not installed
    if error.name is None or error.name.startswith("mixprof"):
        raise
    words = f"mixprof: {error.name} is not installed: {sys.executable} -m pip install {error.name}"
    print(words, file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main())
