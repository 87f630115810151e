"""Learning-rate schedules that torch does not have in this form."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from engrec.ranges import Share


def cosine(optimizer: Optimizer, total_steps: int, warmup: Share = 0.2, final: Share = 0.0) -> LambdaLR:
    """Linear from near 0 over the `warmup` share of all steps, then half a cosine down to the `final` share."""
    rising = max(1, round(warmup * total_steps))
    falling = max(1, total_steps - rising)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / falling)))

    return LambdaLR(optimizer, factor)
