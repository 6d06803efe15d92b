"""`python -m yolov7_jax`: the command of the package, where its script is not on the path."""

import sys

from yolov7_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
