"""The stages of a network, from images to features, and what fine-tuning does with each."""

from typing import Any

from torch import nn

from engrec.modules.classifier import decayed_and_not


def stages(backbone: nn.Module) -> list[nn.Module]:
    """The parts that have parameters, in order from images to features; together they have all parameters.

    A part is a child of the network, or each child of that child where these are blocks of layers themselves: VGG's
    four blocks and its dense layers, ResNet's stem and four stages. A network whose own parameters are in no child is
    one stage.
    """
    if any(True for _ in backbone.parameters(recurse=False)):
        return [backbone]
    found: list[nn.Module] = []
    for child in trained(backbone):
        parts = trained(child)
        blocks = len(parts) > 1 and all(trained(part) for part in parts)
        found += parts if blocks and not any(True for _ in child.parameters(recurse=False)) else [child]
    return found


def trained(module: nn.Module) -> list[nn.Module]:
    """The children that have parameters."""
    return [child for child in module.children() if any(True for _ in child.parameters())]


def groups_by_stage(backbone: nn.Module, lr: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which the last stage has the learning rate lr, and each one before it `decay` times that of
    the next."""
    parts = stages(backbone)
    rates = [lr * decay**distance for distance in reversed(range(len(parts)))]
    return [group for part, rate in zip(parts, rates, strict=True) for group in decayed_and_not(part, lr=rate)]
