"""Initial weights of a backbone."""

from torch import nn


def init_he(module: nn.Module) -> None:
    """He et al. 2015, for layers before a ReLU; for nn.Module.apply. Normalisation layers keep torch's defaults."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
