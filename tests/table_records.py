"""Records of runs, as `tools/table_runs.py` writes them."""


def record(cell, seed, test, validation=0.5, curve=()):
    """The record of a run of `cell` with this test accuracy."""
    results = [
        # The network of the last stage is exported.
        {"stage": "train", "network": "ema", "deployed": True,
         "validation_accuracy": 0.0, "test_accuracy": 0.0},
        {"stage": "finetune", "network": "student", "deployed": True,
         "validation_accuracy": validation, "test_accuracy": test},
    ]  # fmt: skip
    return {
        "settings": cell.settings,
        "seed": seed,
        "protocol": "last",
        "seconds": 10.0 + seed,
        "results": results,
        "curve": list(curve),
    }
