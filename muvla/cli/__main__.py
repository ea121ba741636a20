"""`python -m muvla.cli`."""

import sys

from muvla.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
