"""Device functions: the mirror of ``csrc/core``, the same IEEE and integer operations, hence the same bits."""
