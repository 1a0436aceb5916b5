"""``python -m fastguide``."""

import sys

from fastguide.cli import main

sys.exit(main())
