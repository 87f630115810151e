"""What a run is resolved to before anything is built."""

from functools import cache
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engrec.machine.hardware import AUTOCAST, Speed, accelerator_type, choose, fuses, keep_memory


def choose_for_machine(cfg: DictConfig) -> str:
    """Put in the place of "auto" what this machine does well, and say why; a run that goes on keeps what it had."""
    speed: Speed = instantiate(cfg.speed)
    if speed.keep_memory:
        keep_memory()
    kept = keep_what_was_chosen(cfg)
    device, alone = accelerator_type(cfg.trainer.accelerator), str(cfg.trainer.devices) == "1"
    if device == "cpu" and str(cfg.trainer.devices) == "-1":
        raise ValueError("trainer=ddp takes all GPUs and there is none: type trainer.devices=2 for two processes")
    choice = chosen_once(device, str(cfg.trainer.precision), cfg.speed.memory_format, alone)
    cfg.trainer.precision, cfg.speed.memory_format = choice.precision, choice.memory_format
    clips = bool(cfg.trainer.get("gradient_clip_val"))
    if cfg.speed.fused_optimizer == "auto":
        cfg.speed.fused_optimizer = fuses(cfg.optimizer, choice.precision, clips)
    elif cfg.speed.fused_optimizer and clips and choice.precision in AUTOCAST:
        raise ValueError(f"gradients are not clipped in {choice.precision} with speed.fused_optimizer=true: type false")
    return "as the run that goes on had it" if kept else choice.why


chosen_once = cache(choose)  # so that the trials of a sweep in one process have the same


def keep_what_was_chosen(cfg: DictConfig) -> bool:
    """Whether this is a run that goes on; what it has chosen before takes the place of "auto"."""
    before = Path(cfg.output_dir) / "config.yaml"
    if cfg.ckpt_path is None or cfg.stage == "test" or not before.is_file():
        return False
    had = OmegaConf.load(before)
    for group, key in (("trainer", "precision"), ("speed", "memory_format"), ("speed", "fused_optimizer")):
        value = OmegaConf.select(had, f"{group}.{key}")
        cfg[group][key] = value if value is not None and cfg[group][key] == "auto" else cfg[group][key]
    return True
