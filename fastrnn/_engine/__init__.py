"""One call of a layer: cells as data, plan, schedule, run, recomputation, memory; NumPy's BLAS as a strategy beside it. Private."""
