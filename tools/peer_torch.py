"""Steps of this project in PyTorch, for tools/benchmark.py peer.

    PYTHON tools/peer_torch.py

Imports neither TensorFlow nor this project. Each line of standard input is a
request in JSON, answered by a line of standard output:

    {"data": FILE, "channels_last": false}  loads networks and a batch
    {"selected": NAME}                      what a step selects, a list
    {"run": NAME, "times": N}               CPU seconds and seconds per step

The network is a wide residual network with batch statistics. Moving averages of
batch norm are left out, which favors PyTorch.
"""

import functools
import json
import sys
import time

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.nn import functional

RATE, MOMENTUM, DECAY, EMA = 0.1, 0.9, 1e-4, 0.99
SMOOTHING, TEMPERATURE, THRESHOLD = 0.1, 0.7, 0.6
BLOCK = 8  # Rows among which MixUp's partners are.


def network(params, images, averages=None):
    """Logits of a wide residual network of width 1 (arXiv 1605.07146).

    Args:
        params: tensors in the order of the layers of the Keras network.
        images: `[N, 3, H, W]` in 0...255.
        averages: mean and variance of each batch norm, in the same order; None
            for those of the batch.

    Returns:
        `[N, 10]` logits.
    """
    left, known = iter(params), iter(averages or ())

    def convolution(x, stride=1):
        kernel = next(left)
        if kernel.shape[-1] == 3:  # As TensorFlow pads.
            sides = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
            x = functional.pad(x, sides)
        return functional.conv2d(x, kernel, stride=stride)

    def normalized(x):
        scale, offset = next(left), next(left)
        mean, variance = (next(known), next(known)) if averages else (None,) * 2
        x = functional.batch_norm(
            x, mean, variance, scale, offset, averages is None, eps=1e-3
        )
        return functional.leaky_relu(x, 0.1)

    x = convolution(images / 127.5 - 1.0)
    for scale in range(3):
        for index in range(2):
            widens = scale > 0 and not index
            activated = normalized(x)
            y = normalized(convolution(activated, 1 + widens))
            shortcut = convolution(activated, 2) if widens else x
            x = shortcut + convolution(y)
    x = normalized(x).mean((2, 3))
    return x @ next(left) + next(left)


def cross_entropy(target, logits):
    """`[N]` losses of distributions `[N, C]`."""
    return -(target * functional.log_softmax(logits, 1)).sum(1)


def mixed(values, weight, partner):
    """MixUp (arXiv 1710.09412) with the batch's draw."""
    place = torch.arange(len(values))
    other = values[place - place % BLOCK + partner]
    weight = weight.reshape(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * other


class Peer:
    """The networks and the steps.

    Args:
        data: name -> array, see `tools/benchmark_peer.py`.
        channels_last: the memory format of images and kernels.
    """

    def __init__(self, data, channels_last):
        self._format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self._data = {name: torch.tensor(data[name]) for name in data.files}
        for name, value in self._data.items():
            if value.dtype == torch.uint8:
                value = value.permute(0, 3, 1, 2).float()
                self._data[name] = value.contiguous(memory_format=self._format)
        self._averages = self._load("average")
        self._student, self._teacher, self._ema = (
            [p.requires_grad_(i < 2) for p in self._load("param")]
            for i in range(3)
        )
        self._optimizers = [
            torch.optim.SGD(
                params,
                RATE,
                momentum=MOMENTUM,
                nesterov=True,
                weight_decay=DECAY,
            )
            for params in (self._student, self._teacher)
        ]
        self._baseline = torch.zeros(())
        self._selected = None
        label = self._data["label"].long()
        self._label = functional.one_hot(label, 10).float()

    def _load(self, kind):
        """New tensors of the arrays `kind_0`, `kind_1`, ..."""
        tensors = []
        while (name := f"{kind}_{len(tensors)}") in self._data:
            value = self._data[name].clone()
            if value.ndim == 4:
                value = value.permute(3, 2, 0, 1)
                value = value.contiguous(memory_format=self._format)
            tensors.append(value)
        return tensors

    def _update(self, gradient, which=0):
        params = (self._student, self._teacher)[which]
        for param, value in zip(params, gradient, strict=True):
            param.grad = value
        self._optimizers[which].step()
        if not which:
            with torch.no_grad():
                torch._foreach_lerp_(self._ema, self._student, 1 - EMA)

    def plain(self):
        """A supervised step on all images, those without a label as class 0."""
        images = torch.cat([self._data["labeled"], self._data["unlabeled"]])
        target = torch.zeros(len(images), 10)
        target[:, 0] = 1
        target[: len(self._label)] = self._label
        loss = cross_entropy(target, network(self._student, images)).mean()
        self._update(torch.autograd.grad(loss, self._student))

    def _mixed(self, group, *values):
        draws = (self._data[f"{group}_{k}"] for k in ("weight", "partner"))
        weight, partner = draws
        return [mixed(value, weight, partner.long()) for value in values]

    def meta_semi(self, double_backward=False):
        """A step of Meta-Semi (arXiv 2007.02394, Algorithm 1)."""
        theta, label = self._student, self._label
        with torch.no_grad():
            logits = network(self._ema, self._data["clean"], self._averages)
        labeled, unlabeled = self._data["labeled"], self._data["unlabeled"]
        judge = self._mixed("labeled", labeled, label)
        pool = self._mixed("unlabeled", unlabeled, logits.softmax(1))
        count = len(unlabeled)
        learned = torch.cat([pool[0], labeled])
        target = torch.cat([pool[1], label])

        def judged(params):
            return cross_entropy(judge[1], network(params, judge[0])).mean()

        if double_backward:
            losses = cross_entropy(target, network(theta, learned))
            weight = torch.zeros(count, requires_grad=True)
            inner = torch.autograd.grad(
                (weight * losses[:count]).sum(), theta, create_graph=True
            )
            after = [p - RATE * g for p, g in zip(theta, inner, strict=True)]
            (meta,) = torch.autograd.grad(
                judged(after), weight, retain_graph=True
            )
        else:
            along = torch.autograd.grad(judged(theta), theta)
            with forward_ad.dual_level():
                duals = [
                    forward_ad.make_dual(p, g)
                    for p, g in zip(theta, along, strict=True)
                ]
                dual = cross_entropy(target, network(duals, learned))
                losses, slope = forward_ad.unpack_dual(dual)
            meta = -RATE * slope[:count].detach()
        self._selected = (meta <= 0).float()
        share = self._selected / self._selected.sum().clamp(min=1)
        loss = (share * losses[:count]).sum() + losses[count:].mean()
        self._update(torch.autograd.grad(loss, theta))

    def meta_pseudo_labels(self, feedback):
        """A step of Meta Pseudo Labels (arXiv 2003.10580).

        Args:
            feedback: taylor, per_example or exact_soft, see `--feedback`.
        """
        data, theta = self._data, self._student
        images = [data["labeled"], data["unlabeled"], data["strong"]]
        sizes = [len(i) for i in images]
        logits = network(self._teacher, torch.cat(images))
        of_labeled, weak, strong = logits.split(sizes)
        exact = feedback == "exact_soft"
        if exact:
            pseudo, self._selected = strong.softmax(1), None
        else:
            with torch.no_grad():
                below = strong.softmax(1).cumsum(1) <= data["draw"][:, None]
                drawn = below.sum(1).clamp(max=9)
                pseudo = functional.one_hot(drawn, 10).float()
            self._selected = drawn

        def smoothed(target):
            return (1 - SMOOTHING) * target + SMOOTHING / 10

        def labeled_loss(params):
            logits = network(params, images[0])
            return cross_entropy(self._label, logits).mean()

        loss = cross_entropy(smoothed(pseudo), network(theta, images[2])).mean()
        gradient = torch.autograd.grad(loss, theta, create_graph=exact)
        after = [p - RATE * g for p, g in zip(theta, gradient, strict=True)]
        if exact:
            objective = labeled_loss(after)
        elif feedback == "taylor":
            with torch.no_grad():
                h = labeled_loss(theta) - labeled_loss(after)
            self._baseline = 0.99 * self._baseline + 0.01 * h
            scored = cross_entropy(pseudo, strong)
            objective = (h - self._baseline) * scored.sum()
        else:
            after = [p.detach().requires_grad_() for p in after]
            along = torch.autograd.grad(labeled_loss(after), after)
            with torch.no_grad(), forward_ad.dual_level():
                duals = [
                    forward_ad.make_dual(p, g)
                    for p, g in zip(theta, along, strict=True)
                ]
                dual = cross_entropy(pseudo, network(duals, images[2]))
                slope = forward_ad.unpack_dual(dual).tangent
            objective = (RATE * slope * cross_entropy(pseudo, strong)).mean()
        target = (weak / TEMPERATURE).softmax(1).detach()
        mask = (target.amax(1) >= THRESHOLD).float()
        loss = objective + (mask * cross_entropy(target, strong)).mean()
        supervised = cross_entropy(smoothed(self._label), of_labeled).mean()
        of_teacher = torch.autograd.grad(loss + supervised, self._teacher)
        # Both at last: what is updated can be differentiated no more.
        self._update([g.detach() for g in gradient])
        self._update(of_teacher, which=1)

    def step(self, name):
        """Runs the step called `name`; returns what it selected."""
        steps = {
            "plain": self.plain,
            "meta_semi, forward_mode": self.meta_semi,
            "meta_semi, nested_tape": functools.partial(self.meta_semi, True),
        } | {
            f"meta_pseudo_labels, {feedback}": functools.partial(
                self.meta_pseudo_labels, feedback
            )
            for feedback in ("taylor", "per_example", "exact_soft")
        }
        steps[name]()
        return self._selected


def main():
    """Answers requests until standard input ends."""
    torch.set_num_threads(1)
    peer = None
    for line in sys.stdin:
        request = json.loads(line)
        if "data" in request:
            data = np.load(request["data"])
            peer = Peer(data, request["channels_last"])
            answer = torch.__version__
        elif "selected" in request:
            answer = peer.step(request["selected"]).int().tolist()
        else:
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(request["times"]):
                peer.step(request["run"])
            used = time.process_time() - cpu, time.perf_counter() - wall
            answer = [seconds / request["times"] for seconds in used]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
