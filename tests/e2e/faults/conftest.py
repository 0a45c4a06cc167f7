"""Where the harness of the faults lies."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
