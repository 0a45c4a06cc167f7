"""Everything on one machine: data sets, silos, an in-process federation, reports."""
