"""Batch norm over the batch of all processes, on any device (torch's own needs CUDA)."""

import torch
from torch import Tensor, nn

from embridge.training.distributed import everyone, own_part


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the whole batch; with one process it is torch's."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D, H, W) -> (B, D, H, W)."""
        if not self.training or own_part().world == 1:
            return super().forward(x)
        own_var, own_mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)  # D, D
        means, variances = everyone(torch.stack([own_mean, own_var])[None]).unbind(1)  # W D
        mean = means.mean(0)
        var = variances.mean(0) + means.var(0, correction=0)  # law of total variance
        self._remember(mean.detach(), var.detach(), x.numel() // len(mean) * own_part().world)
        gain = self.weight * (var + self.eps).rsqrt()
        offset = self.bias - mean * gain
        return (x * gain[:, None, None] + offset[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics as torch does: by `momentum`, the variance unbiased."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * count / (count - 1), self.momentum)
