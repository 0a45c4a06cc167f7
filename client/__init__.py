"""One silo's programs: everything that may see customers' data."""

import fondaco.shared  # noqa: F401  (before Flower, see there)
