"""The coordinator: asks silos for private sums, adds them up, publishes one global model."""
