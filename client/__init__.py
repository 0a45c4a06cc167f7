"""One silo's programs: everything that may see customers' data."""
