"""GPUs are counted as CUDA would, and no two processes have one of them, in processes of their own."""

import os
import subprocess
import sys
import textwrap

import pytest
from omegaconf import OmegaConf

from engrec.config import Registered
from engrec.machine import gpus

TAKES = """
    import sys
    from engrec.machine import gpus
    print(gpus.keep(tuple(sys.argv[1].split(","))), gpus.keep(tuple(sys.argv[1].split(","))), flush=True)
    sys.stdin.read()
"""
MIG = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 4g.40gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1b7f3d0c-8a68-4a2b-8c0c-1f6b8b0c2d11)
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """No GPU, and a folder for temporary files that no sweep uses."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def nvidia_smi(machine):
    def nvidia_smi(said, status=0):
        path = machine / "nvidia-smi"
        path.write_text(
            f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['-L']\nprint({said!r})\nsys.exit({status})"
        )
        path.chmod(0o755)

    return nvidia_smi


@pytest.fixture
def takes():
    """Start a process that takes one of the GPUs and keeps it until its input is closed."""
    started = []

    def takes(names):
        command = [sys.executable, "-c", textwrap.dedent(TAKES), names]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes))
        return started[-1]

    yield takes
    for process in started:
        process.kill()
        process.wait()


def taken(process):
    """What it has taken, twice."""
    first, again = process.stdout.readline().split()
    assert again == first
    return first


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("2,3", ["2", "3"]),
        (" 1 , 0", ["1", "0"]),
        ("GPU-8932f937,MIG-c6d4f1ef", ["GPU-8932f937", "MIG-c6d4f1ef"]),
        ("0,-1,1", ["0"]),
        ("-1", []),
        ("", []),
    ],
)
def test_a_variable_that_is_set_names_the_gpus(monkeypatch, nvidia_smi, given, names):
    nvidia_smi(MIG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus.visible() == names


def test_otherwise_all_of_the_machine_are(nvidia_smi):
    nvidia_smi("GPU 0: NVIDIA A100 (UUID: GPU-a)\nGPU 1: NVIDIA A100 (UUID: GPU-b)\n")
    assert gpus.visible() == ["0", "1"]


def test_a_part_of_a_gpu_is_one(nvidia_smi):
    nvidia_smi(MIG)
    parts = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]
    assert gpus.visible() == [*parts, "1"]


def test_there_may_be_none(nvidia_smi):
    assert gpus.visible() == []
    nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9)
    assert gpus.visible() == []


@pytest.mark.parametrize(("given", "number"), [("4,5,6", 3), ("0", 1), ("", 1)])
def test_a_sweep_has_as_many_workers(monkeypatch, given, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    Registered()
    assert OmegaConf.create({"n_jobs": "${num_gpus:}"}).n_jobs == number


def test_no_two_processes_take_the_same(takes):
    processes = [takes("0,1,MIG-a/1") for _ in range(3)]
    assert sorted(map(taken, processes)) == ["0", "1", "MIG-a/1"]


def test_one_that_finds_all_taken_waits_until_a_process_is_gone_however_it_ends(takes):
    first, second = takes("0,1"), takes("0,1")
    had = taken(first)
    assert {had, taken(second)} == {"0", "1"}
    third = takes("0,1")
    assert third.stderr.readline() == "all GPUs (0, 1) are in use by other sweeps or searches: waiting for one\n"
    first.kill()
    assert taken(third) == had


def test_one_process_may_take_several(takes):
    first, names = takes("0,1,2"), ("0", "1", "2")
    assert {taken(first), gpus.take(names), gpus.take(names)} == set(names)


def test_a_folder_of_another_user_is_not_used(machine, monkeypatch):
    folder = machine / f"engrec-gpus-{os.getuid()}"
    folder.mkdir()
    monkeypatch.setattr(gpus.os, "getuid", lambda: os.geteuid() + 1)
    folder.rename(machine / f"engrec-gpus-{os.getuid()}")
    with pytest.raises(ValueError, match="belongs to another user: remove it, or set TMPDIR"):
        gpus.take(("0",))


def test_a_link_is_not_used(machine):
    (machine / "elsewhere").mkdir()
    (machine / f"engrec-gpus-{os.getuid()}").symlink_to(machine / "elsewhere")
    with pytest.raises(ValueError, match="set TMPDIR"):
        gpus.take(("0", "1"))
