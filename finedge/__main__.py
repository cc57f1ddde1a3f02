"""`python -m finedge` is the `finedge` command."""

import sys

from finedge.cli import main

sys.exit(main())
