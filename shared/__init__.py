"""What both ends must agree on: records, codec, models, metrics and the trusted privacy core."""
