"""Signs that a method learns nothing useful from unlabeled images."""

# The entropy of three equally frequent classes out of ten is 0.48.
_MIN_ENTROPY = 0.2
_MIN_SHARE = 0.001
# Of the spread of projections, which is 1 if they point in all directions.
_MIN_SPREAD = 0.05


def collapsed(row):
    """Whether and how pseudo-labels or projections have collapsed.

    Args:
        row: a row of training metrics, the means of an interval. The metrics
            may be absent, as with methods that do not have them.

    Returns:
        A sentence, or None if they have not.
    """
    entropy = row.get("pseudo_label_entropy", 1.0)
    share = row.get("selected_share", 1.0)
    spread = row.get("feature_std", 1.0)
    of_prototypes = row.get("prototype_entropy", 1.0)
    if spread < _MIN_SPREAD:
        return (
            f"Step {row['step']}: the projections of all images are nearly the "
            f"same: their standard deviation is {spread:.3f}, where 1 is that "
            "of random directions. The network learns nothing from them."
        )
    if of_prototypes < _MIN_ENTROPY:
        return (
            f"Step {row['step']}: nearly all images have one prototype: the "
            f"entropy of their prototypes is {of_prototypes:.3f} of its "
            "maximum."
        )
    if entropy < _MIN_ENTROPY:
        return (
            f"Step {row['step']}: nearly all pseudo-labels are of one class: "
            f"the entropy of their classes is {entropy:.3f} of its maximum."
        )
    if share < _MIN_SHARE:
        return (
            f"Step {row['step']}: {share:.2%} of the pseudo-labels are "
            "selected: the method learns nothing from unlabeled images."
        )
    return None


def notes(rows):
    """What a report says of the collapses of a run, a list of sentences.

    Args:
        rows: all rows of metrics.jsonl.
    """
    train = [row for row in rows if row["split"] == "train"]
    found = [text for row in train if (text := collapsed(row))]
    if len(found) < 2:
        return found
    return [
        f"{found[-1]} So it was at {len(found)} of {len(train)} evaluations."
    ]
