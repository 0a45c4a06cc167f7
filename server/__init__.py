"""The coordinator: asks silos for private sums, adds them up, publishes one global model."""

import fondaco.shared  # noqa: F401  (before Flower, see there)
