"""AdamW (Loshchilov & Hutter 2019), fused: Adam with decoupled weight decay, none of it on biases, norms and
1-d weights.
"""

from dataclasses import dataclass

import torch

from bertlab.config.schema import OptimizerConfig, flag, number
from bertlab.contracts import ParameterGroup


@dataclass
class AdamW(OptimizerConfig):
    """Defaults after Devlin et al. 2019 §A.2, but for the learning rate, which suits small encoders from
    scratch.
    """

    lr: float = number(5e-4, "peak learning rate, reached at the end of warm-up", above=0)
    beta1: float = number(0.9, "decay of the mean of gradients", low=0, below=1)
    beta2: float = number(0.999, "decay of the mean of squared gradients", low=0, below=1)
    eps: float = number(1e-8, "added to the root of the second moment", above=0)
    weight_decay: float = number(0.01, "decoupled decay, multiplied by the learning rate", low=0)
    amsgrad: bool = flag(False, "keep the largest second moment (Reddi et al. 2018)")

    def build(self, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """One torch parameter group for each of ours."""
        return torch.optim.AdamW(
            [group.to_torch(self.lr, self.weight_decay) for group in groups],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            amsgrad=self.amsgrad,
            fused=True,
        )
