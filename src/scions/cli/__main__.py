"""`python -m scions.cli`."""

from __future__ import annotations

import sys

from scions.cli import main

sys.exit(main())
