"""The optimizers, each a row of OPTIMIZERS, and the learning rate of a step."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from foldmark.core.config import TrainConfig
from foldmark.core.tables import pick
from foldmark.models.device import Speed
from foldmark.models.net import PointRegressor

# Of the quintic that brings singular values from (0, 1] near 1 (Jordan et al. 2024), and how often it is applied.
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
Tensors = list[torch.Tensor]


class Muon(torch.optim.Optimizer):
    """The momentum of each weight matrix is made orthogonal before it is applied (Jordan et al. 2024, Muon: An optimizer for
    hidden layers in neural networks), and scaled to the size of an AdamW step (Liu et al. 2025, Muon is Scalable for LLM
    Training). A conv is a matrix with a row for each output channel.

    groups: parameter groups; those with hidden=True take these steps, the others AdamW's. dtype: of the matrix products.
    """

    MOMENTUM, SCALE = 0.95, 0.2
    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, groups: list[dict], lr: float, dtype: torch.dtype) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "hidden": False, "steps": 0})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        assert closure is None, "Muon does not evaluate the model again"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                group["steps"] += 1
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                step = self._step_hidden if group["hidden"] else self._step_others
                step(weights, [weight.grad for weight in weights], group)

    def _step_hidden(self, weights: Tensors, gradients: Tensors, group: dict) -> None:
        momenta = self._states(weights, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        steps = torch._foreach_lerp(gradients, momenta, self.MOMENTUM)
        # Matrices of one shape are computed together.
        alike = defaultdict(list)
        for weight, step in zip(weights, steps, strict=True):
            alike[step.shape].append((weight, step.movedim(1, -1)))
        for pairs in alike.values():
            orthogonal = orthogonalise(torch.stack([step.flatten(1) for _, step in pairs]), self.dtype)
            rate = self.SCALE * group["lr"] * max(orthogonal.shape[1:]) ** 0.5
            for (weight, step), matrix in zip(pairs, orthogonal, strict=True):
                weight.sub_(matrix.view(step.shape).movedim(-1, 1), alpha=rate)

    def _step_others(self, weights: Tensors, gradients: Tensors, group: dict) -> None:
        means, squares = self._states(weights, "mean"), self._states(weights, "square")
        torch._foreach_lerp_(means, gradients, 1 - self.BETAS[0])
        torch._foreach_mul_(squares, self.BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.BETAS[1])
        spreads = torch._foreach_sqrt(torch._foreach_div(squares, 1 - self.BETAS[1] ** group["steps"]))
        torch._foreach_add_(spreads, self.EPSILON)
        torch._foreach_addcdiv_(weights, means, spreads, -group["lr"] / (1 - self.BETAS[0] ** group["steps"]))

    def _states(self, weights: Tensors, name: str) -> Tensors:
        """A state of each weight, zero before the first step."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Matrices (b, m, n) float32 with their singular values brought near 1 by Newton-Schulz iterations in `dtype`: in float32
    all but tiny ones lie between 0.65 and 1.25 then.

    Each iteration multiplies by a polynomial of the Gram matrix, so only that is iterated: a square matrix of the shorter side.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalise(matrices.mT, dtype).mT
    a, b, c = QUINTIC
    scaled = (matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)).to(dtype)
    gram = scaled @ scaled.mT
    product = torch.eye(gram.shape[1], dtype=dtype, device=gram.device).expand_as(gram)
    for _ in range(ITERATIONS):
        polynomial = b * gram + c * (gram @ gram)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    return (product @ scaled).float()


def _make_adam(kind: Callable[..., torch.optim.Optimizer]) -> "MakeOptimizer":
    def make(model: PointRegressor, train: TrainConfig, speed: Speed) -> torch.optim.Optimizer:
        decayed = [weight for weight in model.parameters() if weight.ndim > 1]
        return kind([_decay(decayed, train), _free(model)], lr=train.lr, fused=True)

    return make


def _make_muon(model: PointRegressor, train: TrainConfig, speed: Speed) -> Muon:
    """The first and the last layer see pixels and points, not features, and are stepped by AdamW."""
    last = model.head.fc.weight
    first, *hidden = [weight for weight in model.parameters() if weight.ndim > 1 and weight is not last]
    groups = [{**_decay(hidden, train), "hidden": True}, _decay([first, last], train), _free(model)]
    return Muon(groups, train.lr, speed.dtype or torch.float32)


def _decay(weights: Sequence[torch.Tensor], train: TrainConfig) -> dict:
    return {"params": weights, "weight_decay": train.weight_decay}


def _free(model: PointRegressor) -> dict:
    """Biases and factors of batch norm, which no decay draws to zero."""
    return {"params": [weight for weight in model.parameters() if weight.ndim <= 1], "weight_decay": 0.0}


MakeOptimizer = Callable[[PointRegressor, TrainConfig, Speed], torch.optim.Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adam": _make_adam(torch.optim.Adam),
    "adamw": _make_adam(torch.optim.AdamW),
    "muon": _make_muon,
}


def make_optimizer(model: PointRegressor, train: TrainConfig, speed: Speed) -> torch.optim.Optimizer:
    """Raises UserError for an unknown `train.optimizer`."""
    return pick(OPTIMIZERS, train.optimizer, "train.optimizer")(model, train, speed)


def learning_rate(train: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to nearly zero, or constant."""
    warmup = train.warmup * steps
    if step < warmup:
        return train.lr * (step + 1) / warmup
    if train.schedule == "constant":
        return train.lr
    return train.lr * max(1e-3, 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))
