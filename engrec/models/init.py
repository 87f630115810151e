"""How the weights of a backbone start."""

from torch import nn


def init_he(module: nn.Module) -> None:
    """He et al. 2015 for one layer followed by a ReLU; for nn.Module.apply. Normalisation layers keep torch's start."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
