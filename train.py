"""`python train.py --data DIR` is `splatir train --data DIR`."""

import sys

from splatir.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
