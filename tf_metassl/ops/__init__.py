"""Functions over tensors, which know no method, no data and no run."""
