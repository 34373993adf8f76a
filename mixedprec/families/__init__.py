"""Model families as data: where blocks, units and experts are."""
