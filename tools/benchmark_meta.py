"""The cost of meta gradients, for `tools/benchmark.py meta_step`."""

import numpy as np

from tools import benchmark_timing, step_worker

NETWORK = {"model": "wrn_16_1", "image_shape": (32, 32, 3)}
SIZE = 64  # Labeled images; there are twice as many unlabeled ones.
FORMS = ("forward_mode", "nested_tape", "finite_difference")
# The plain step learns as many images as a meta step updates on.
STEPS = {
    "supervised, all images": ("supervised", {}, 3 * SIZE),
    **{
        f"meta_semi, {form}": ("meta_semi", {"meta_gradient": form}, SIZE)
        for form in FORMS
    },
    "supervised, all images, XLA": (
        "supervised",
        {"jit_compile": True},
        3 * SIZE,
    ),
}


def agreement(first, second):
    """How often two meta gradients have the same sign.

    Args:
        first: `[N]` array.
        second: `[N]` array.

    Returns:
        `(share, base)`: the share of equal signs, and the share that a
        constant answer has, which is that of the more frequent sign of `first`.
    """
    positive = np.asarray(first) > 0
    share = float(np.mean(positive == (np.asarray(second) > 0)))
    return share, float(max(positive.mean(), 1 - positive.mean()))


def meta_gradients(trained, others, iterator):
    """The meta gradients of several forms at the same parameters.

    Args:
        trained: a `MetaSemi`, whose variables the others get.
        others: form -> `MetaSemi`.
        iterator: over batches.

    Returns:
        Form -> `[N]` array, of one batch.
    """
    values = [v.value.numpy() for v in trained.state_variables]
    batch, found = next(iterator), {}
    for form, algorithm in others.items():
        for variable, value in zip(
            algorithm.state_variables, values, strict=True
        ):
            variable.assign(value)
        compute = algorithm._meta_gradient

        def noted(*args, compute=compute, form=form, **options):
            result = compute(*args, **options)
            found[form] = result.meta_gradient.numpy()
            return result

        algorithm._meta_gradient = noted
        # Not in a graph, so that what it computes can be read.
        algorithm.training_step(batch)
        algorithm._meta_gradient = compute
    return found


def run_meta_step(args):
    """Prints and writes the cost and the agreement of meta gradients."""
    benchmark_timing.one_core()
    parts = {
        name: step_worker.parts(algo, settings, batch_size=size, **NETWORK)
        for name, (algo, settings, size) in STEPS.items()
    }
    steps = {name: part.step for name, part in parts.items()}
    found = benchmark_timing.alternate(steps, args.repeats)
    plain, *metas = list(found)[: 1 + len(FORMS)]
    rows = [
        [
            name,
            benchmark_timing.milliseconds(times),
            *benchmark_timing.ratios(times, found[plain]),
        ]
        for name, times in found.items()
    ]
    algorithms = {
        form: parts[name].algorithm
        for form, name in zip(FORMS, metas, strict=True)
    }
    exact, *others = meta_gradients(
        algorithms[FORMS[0]], algorithms, parts[metas[0]].iterator
    ).values()
    agreements = []
    for form, found_here in zip(FORMS[1:], others, strict=True):
        share, base = agreement(exact, found_here)
        error = np.abs(exact - found_here).max() / np.abs(exact).max()
        agreements.append([form, f"{100 * share:.1f} %", f"{error:.1e}"])
    steps_taken = parts[metas[0]].algorithm.finished_steps
    lines = [
        "# Cost of the meta gradient",
        "",
        "Made by `python tools/benchmark.py meta_step`: a step of Meta-Semi "
        f"with {SIZE} labeled and {2 * SIZE} unlabeled images of 32 x 32 x 3 "
        f"and {NETWORK['model']}, beside a supervised step on {3 * SIZE} "
        f"images. {benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(["step", "ms", "CPU time", "time"], rows),
        "",
        f"The {len(exact)} meta gradients of a batch after {steps_taken} "
        f"steps, beside those of {FORMS[0]}: how many have the same sign, "
        f"where a constant answer has {100 * base:.1f} %, and the largest "
        "difference relative to the largest meta gradient.",
        "",
        *benchmark_timing.table(
            ["form", "same sign", "difference"], agreements
        ),
    ]
    benchmark_timing.publish(lines, args.out, "meta_step.md")
