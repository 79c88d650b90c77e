"""The Muon optimiser: momentum whose matrix is made orthogonal before each step."""

import torch
from torch import Tensor

# polynomial of the Newton-Schulz iteration: fast towards 1 rather than exact
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of a stack of wide matrices towards one."""
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices only."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update all matrices; those of one shape are handled as a stack."""
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._momentum(parameter, group["momentum"])
                wide = update if update.shape[0] <= update.shape[1] else update.mT
                stacks.setdefault((wide.shape[0], wide.shape[1]), []).append((parameter, wide))
            for pairs in stacks.values():
                self._apply(pairs, group["lr"], group["weight_decay"])

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1.0 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)

    @staticmethod
    def _apply(pairs: list[tuple[Tensor, Tensor]], lr: float, weight_decay: float) -> None:
        directions = orthogonalise(torch.stack([wide for _, wide in pairs]))
        for (parameter, wide), direction in zip(pairs, directions, strict=True):
            rows, columns = parameter.shape
            if parameter.shape != wide.shape:
                direction = direction.mT
            parameter.mul_(1.0 - lr * weight_decay)
            parameter.add_(direction, alpha=-lr * max(1.0, rows / columns) ** 0.5)
