"""Everything on one machine: data sets, silos, an in-process federation, reports."""

import fondaco.shared  # noqa: F401  (before Flower, see there)
