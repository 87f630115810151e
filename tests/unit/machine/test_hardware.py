"""What is chosen for a machine: by what it says of itself, and by what is measured on it."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from engrec.machine import hardware
from engrec.machine.hardware import (
    CLEARLY,
    LAYOUTS,
    Speed,
    accelerator_type,
    choose,
    fuses,
    memory_of,
    multiplies_bfloat16,
    time_convolutions,
    usable,
)

CONF = Path(__file__).parents[3] / "conf"
FAST, FLOAT32, CONTIGUOUS = ("bf16-mixed", "channels_last"), ("32-true", "channels_last"), ("bf16-mixed", "contiguous")
RATIOS = pytest.mark.parametrize(
    ("ratio", "kept"),
    [(0.5, True), (1.0, True), (1.1, True), (0.99 * CLEARLY, True), (1.01 * CLEARLY, False), (5.0, False)],
)
OPTIMIZERS = [c for c in vars(torch.optim).values() if isinstance(c, type) and c is not torch.optim.Optimizer]
# Page faults of ten tensors of 4 MB and of ten of 64, each freed before the next; one before them is not counted.
FAULTS = """
import json, resource, sys, torch
from engrec.machine.hardware import keep_memory

def faults(megabytes):
    for i in range(11):
        tensor = torch.ones(megabytes * 2**18)
        del tensor
        now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        before = before if i else now
    return now - before

calls = [keep_memory(keep == "keep") for keep in sys.argv[1:]]
torch.ones(2**22)  # 16 MB, from which glibc learns, if it does, that less is not large
print(json.dumps([all(calls), faults(4), faults(64)]))
"""


@pytest.mark.parametrize("path", sorted((CONF / "trainer").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_allowed(path):
    default = OmegaConf.load(CONF / "trainer" / "auto.yaml").speed
    assert isinstance(instantiate(OmegaConf.merge(default, OmegaConf.load(path).get("speed", {}))), Speed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"memory_format": "nhwc"},
            r"speed\.memory_format=nhwc must be one of auto, channels_last, contiguous",
        ),
        ({"fused_optimizer": "yes"}, r"speed\.fused_optimizer=yes must be one of auto, true, false"),
        (
            {"compile": "fastest"},
            r"speed\.compile=fastest must be one of true, false, default, reduce-overhead",
        ),
        ({"data": "gpu"}, r"speed\.data=gpu must be one of auto, device, host"),
        ({"keep_memory": "auto"}, r"speed\.keep_memory=auto must be one of true, false"),
        ({"data_share": 0}, r"speed\.data_share=0 must be above 0 and at most 1"),
        ({"data_share": 1.1}, r"speed\.data_share=1\.1 must be above 0 and at most 1"),
        ({"data_share": float("nan")}, r"speed\.data_share=nan must be"),
    ],
)
def test_mistakes_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Speed(**setting)


@pytest.mark.parametrize("mode", [True, False, "default", "reduce-overhead", "max-autotune"])
def test_what_torch_compiles_with_is_allowed(mode):
    assert Speed(compile=mode, data_share=1, fused_optimizer=False, memory_format="contiguous").compile == mode


@pytest.fixture
def machine(monkeypatch):
    """A machine that multiplies bfloat16, or does not, and takes the given times; it remembers what was measured."""

    def machine(bfloat16=True, **times):
        usual = {FAST: 10.0, FLOAT32: 20.0, CONTIGUOUS: 20.0, ("32-true", "contiguous"): 30.0}
        measured, by_kind = [], usual | times.get("times", {})

        def time_convolutions(device, kinds):
            measured.append((device, kinds))
            return {kind: by_kind[kind] for kind in kinds}

        monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda device: bfloat16)
        monkeypatch.setattr(hardware, "time_convolutions", time_convolutions)
        return measured

    return machine


def chosen(*arguments, **settings):
    choice = choose(*arguments, **settings)
    return choice.precision, choice.memory_format


def test_half_precision_on_a_cpu_becomes_bfloat16_and_is_said(machine, caplog):
    machine()
    assert chosen("cpu", "16") == ("bf16-mixed", "channels_last")
    assert chosen("cuda", "16", measure=False) == ("16-mixed", "channels_last")
    assert caplog.messages == ["trainer.precision=16-mixed needs a GPU; this run uses bf16-mixed"]


def test_a_precision_has_one_name():
    names = [usable(name, "cuda") for name in ("32", 32, "bf16", 16, None, "auto", "bf16-mixed")]
    assert names == ["32-true", "32-true", "bf16-mixed", "16-mixed", "32-true", "auto", "bf16-mixed"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("bfloat16", [True, False])
def test_what_is_asked_for_stays_and_nothing_is_measured(machine, bfloat16, precision, memory_format):
    measured = machine(bfloat16)
    choice = choose("cpu", precision, memory_format)
    assert (choice.precision, choice.memory_format, choice.why) == (precision, memory_format, "as configured")
    assert not measured


@pytest.mark.parametrize("memory_format", LAYOUTS)
def test_of_two_that_are_asked_for_one_stays_whatever_the_other_takes(machine, memory_format):
    slow = {
        (precision, layout): time for precision, time in (("bf16-mixed", 90.0), ("32-true", 1.0)) for layout in LAYOUTS
    }
    machine(times=slow)
    assert chosen("cpu", "auto", memory_format) == ("32-true", memory_format)
    machine(times={FLOAT32: 90.0, ("32-true", "contiguous"): 1.0})
    assert chosen("cpu", "32-true", "auto") == ("32-true", "contiguous")


def test_bfloat16_is_chosen_only_where_the_hardware_multiplies_it(machine):
    measured = machine(bfloat16=True)
    assert chosen("cpu") == FAST
    assert measured == [(torch.device("cpu"), [FAST, FLOAT32]), (torch.device("cpu"), [FAST, CONTIGUOUS])]
    measured = machine(bfloat16=False)
    assert chosen("cpu") == FLOAT32
    (_, kinds), *more = measured
    assert (kinds, more) == ([FLOAT32, ("32-true", "contiguous")], [])  # emulated, it is not even tried


@RATIOS
def test_bfloat16_is_given_up_where_it_is_clearly_slower(machine, ratio, kept):
    machine(times={FAST: 10 * ratio, FLOAT32: 10.0, CONTIGUOUS: 10 * ratio})
    assert chosen("cpu") == (FAST if kept else FLOAT32)


@RATIOS
def test_channels_last_is_given_up_where_it_is_clearly_slower(machine, ratio, kept):
    machine(times={FAST: 10 * ratio, FLOAT32: 10 * ratio, CONTIGUOUS: 10.0})
    assert chosen("cpu") == (FAST if kept else CONTIGUOUS)


def test_the_layout_is_compared_in_the_precision_that_is_chosen(machine):
    machine(times={FAST: 20.0, FLOAT32: 5.0, CONTIGUOUS: 15.0, ("32-true", "contiguous"): 30.0})
    assert chosen("cpu") == FLOAT32


def test_a_measurement_that_fails_leaves_the_threads_as_they_were(monkeypatch):
    def fails(*_):
        raise RuntimeError("no memory")

    threads = torch.get_num_threads()
    monkeypatch.setattr(hardware, "_block", lambda *_: fails)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="no memory"):
            time_convolutions(torch.device("cpu"), [FAST])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_not_measured_it_is_what_is_expected_of_the_hardware(machine, bfloat16):
    measured = machine(bfloat16, times={FAST: 1e9})
    choice = choose("cuda", measure=False)
    assert (choice.precision, choice.memory_format) == (FAST if bfloat16 else FLOAT32)
    assert choice.why == "expected for this hardware, not measured"
    assert not measured


def test_the_reason_holds_the_figures(machine):
    machine(times={FAST: 12.34, FLOAT32: 0.567, CONTIGUOUS: 89.1})
    why = choose("cpu").why
    assert why == "measured: bf16-mixed 12 ms, 32-true 0.57 ms; channels_last 0.57 ms, contiguous 30 ms"


KINDS = [(precision, layout) for precision in ("32-true", "bf16-mixed") for layout in LAYOUTS]


def test_every_kind_takes_time_and_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    times = time_convolutions(torch.device("cpu"), KINDS, repeats=2)
    assert list(times) == KINDS
    assert all(0 < milliseconds < 60_000 for milliseconds in times.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_time_is_the_least_in_milliseconds_in_turns_after_one_to_warm_up(monkeypatch):
    seconds, now, turns = iter([0.5, 0.5, 5.0, 6.0, 3.0, 9.0, 7.0, 4.0]), [0.0], []

    def block(device, precision, memory_format):
        def step():
            turns.append((precision, memory_format))
            now[0] += next(seconds)

        return step

    monkeypatch.setattr(hardware, "_block", block)
    monkeypatch.setattr(hardware, "time", SimpleNamespace(thread_time=lambda: now[0]))
    times = time_convolutions(torch.device("cpu"), KINDS[:2], repeats=3)
    assert times == pytest.approx({KINDS[0]: 3000, KINDS[1]: 4000})
    assert turns == KINDS[:2] * 4


def test_it_is_timed_on_one_thread_and_there_are_as_many_as_before_afterwards(monkeypatch):
    before, during = torch.get_num_threads(), []
    monkeypatch.setattr(hardware, "_block", lambda *_: lambda: during.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(3)
        time_convolutions(torch.device("cpu"), KINDS[:1])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(during) == {1}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_timed_is_in_the_precision_and_the_layout(monkeypatch, precision, layout):
    seen = []

    def conv2d(block, maps, *rest):
        seen.append((torch.is_autocast_enabled("cpu"), maps.is_contiguous(memory_format=LAYOUTS[layout])))
        return forward(block, maps, *rest)

    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", conv2d)
    time_convolutions(torch.device("cpu"), [(precision, layout)], repeats=1)
    assert seen == [(precision == "bf16-mixed", True)] * 4


@pytest.mark.parametrize(("device", "size"), [("cpu", (16, 32, 24, 24)), ("meta", (256, 32, 48, 48))])
def test_a_device_that_is_given_its_work_ahead_is_given_much(monkeypatch, device, size):
    seen, forward = [], torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda block, maps: (seen.append(maps), forward(block, maps))[1])
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which "meta" has none of
    hardware._block(torch.device(device), "32-true", "channels_last")()
    assert seen[0].device.type == device
    assert seen[0].shape == size


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx2": True}, False),
    ],
)
def test_a_processor_multiplies_bfloat16_if_it_says_so(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert multiplies_bfloat16("cpu") is expected


def test_a_torch_that_does_not_know_its_processor_says_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert multiplies_bfloat16("cpu") is False


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_that_a_gpu_emulates_does_not_count(monkeypatch, emulated):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or not emulated
    )
    assert multiplies_bfloat16("cuda") is not emulated


@pytest.mark.parametrize(
    ("accelerator", "with_cuda", "with_mps", "with_none"),
    [
        ("auto", "cuda", "mps", "cpu"),
        ("gpu", "cuda", "mps", "cpu"),
        ("cuda", "cuda", "cpu", "cpu"),
        ("mps", "cpu", "mps", "cpu"),
        ("cpu", "cpu", "cpu", "cpu"),
    ],
)
def test_an_accelerator_is_the_device_that_is_there(monkeypatch, accelerator, with_cuda, with_mps, with_none):
    for cuda, mps, expected in ((True, False, with_cuda), (False, True, with_mps), (False, False, with_none)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert accelerator_type(accelerator) == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_an_optimizer_is_fused_where_torch_has_it(optimizer):
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    node = {"_target_": f"torch.optim.{optimizer.__name__}"}
    if fuses(node, "bf16-mixed"):
        optimizer([parameter], lr=0.1, fused=True).step()
        assert (parameter < 1).all()
    else:
        with pytest.raises(TypeError, match="fused"):
            optimizer([parameter], lr=0.1, fused=True)
    assert not fuses(node, "16-mixed")


def test_the_optimizers_that_are_offered_are_fused(compose):
    for path in (CONF / "optimizer").glob("*.yaml"):
        node = compose("stage=scratch", f"optimizer={path.stem}").optimizer
        assert fuses(node, "32-true"), path.stem
        assert fuses(node, "32-true", clips=True)
        assert not fuses(node, "bf16-mixed", clips=True)
        for key in ("fused", "foreach", "differentiable"):
            assert not fuses({**node, key: False}, "32-true")


@pytest.mark.parametrize(("alias", "precision"), [("bf16", "bf16-mixed"), (16, "16-mixed"), (32, "32-true")])
def test_an_alias_is_the_precision_that_it_stands_for(machine, alias, precision):
    machine(times={("16-mixed", "channels_last"): 1.0, ("16-mixed", "contiguous"): 2.0})
    assert chosen("cuda", alias, "auto") == (precision, "channels_last")


def test_a_precision_that_cannot_be_timed_is_not(machine):
    measured = machine()
    assert choose("cpu", "64-true", "auto").why == "expected for this hardware, not measured"
    assert not measured


def test_memory_of_the_cpu_is_what_the_kernel_says():
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        pytest.skip("no /proc/meminfo on this system")
    (kilobytes,) = [line.split()[1] for line in meminfo.read_text().splitlines() if line.startswith("MemTotal")]
    assert memory_of(torch.device("cpu")) == pytest.approx(1024 * int(kilobytes), rel=0.01)


@pytest.fixture(scope="module")
def faults():
    """By size, for (untouched, kept, given back); in processes of their own, as memory is kept by a process."""
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc's")
    found = []
    for calls in ([], ["keep"], ["keep", "give back"]):
        command = [sys.executable, "-c", FAULTS, *calls]
        done = subprocess.run(command, capture_output=True, text=True, cwd=CONF.parent, check=True)
        found.append(json.loads(done.stdout))
    works, small, large = zip(*found, strict=True)
    if not any(works[1:]):
        pytest.skip("no glibc")
    assert all(works)
    return {4: small, 64: large}


def test_kept_memory_is_not_mapped_anew_and_can_be_given_back(faults):
    untouched, kept, given_back = faults[64]
    assert untouched > 5 * kept
    assert given_back > 5 * kept


def test_memory_that_is_given_back_is_as_if_it_had_not_been_kept(faults):
    """By default glibc keeps some of what is below 32 MB; where it keeps nothing, a comparison with that flatters."""
    untouched, _, given_back = faults[4]
    every_page = 10 * 2**22 // os.sysconf("SC_PAGE_SIZE")
    assert untouched < every_page
    assert given_back < every_page


def test_without_a_glibc_it_says_so(monkeypatch):
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: object())
    assert hardware.keep_memory() is False
    monkeypatch.setattr(hardware.sys, "platform", "win32")
    monkeypatch.setattr(hardware.ctypes, "CDLL", None)  # not even loaded
    assert hardware.keep_memory() is False
