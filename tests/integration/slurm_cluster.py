"""A real Slurm for the tests: munged, slurmctld and slurmds of its own on this host, in a folder and on ports apart.

    with Cluster() as cluster:
        job = cluster.sbatch("#!/bin/bash\\nsrun -n2 hostname")
        cluster.wait(job, "COMPLETED")

Jobs of the partitions `low` (the default) and `gentle` make room for those of `high` and are requeued: those of `low`
at once, those of `gentle` are told a minute before. Two clusters at a time do not meet.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

SBIN = ("/usr/sbin", "/usr/local/sbin")
DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
OVER = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
)
CONF = """\
ClusterName=engrec
GresTypes=gpu
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=20
ReturnToService=2
MinJobAge=1000000
SlurmctldTimeout=30
SlurmdTimeout=300
MessageTimeout=20
TCPTimeout=5
RebootProgram=/bin/false
{nodes}
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE State=UP Default=YES
PartitionName=gentle Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
"""
# Slurm counts and hands out any two devices; a job sees the number of its own in CUDA_VISIBLE_DEVICES.
GPUS = """\
AutoDetect=off
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""
# Slurm's own sacct asks slurmdbd and its MySQL. Jobs are remembered here for as long as the cluster lives, so scontrol
# knows as much: what submitit asks for is answered, `sacct -o JobID,State,NodeList --parsable2 -j 1 -j 2`.
SACCT = """\
#!{python}
import re, subprocess, sys
ids = [value for flag, value in zip(sys.argv, sys.argv[1:]) if flag == "-j"]
print("JobID|State|NodeList")
for number in ids:
    shown = subprocess.run(["scontrol", "-o", "show", "job", number], capture_output=True, text=True).stdout
    for line in shown.splitlines():
        told = dict(re.findall(r"(?:^|\\s)(JobId|ArrayJobId|ArrayTaskId|JobState|NodeList)=(\\S+)", line))
        if "JobId" not in told:
            continue
        task = told.get("ArrayTaskId")
        task = f"[{{task}}]" if task and not task.isdigit() else task
        name = told["JobId"] if task is None else f"{{told['ArrayJobId']}}_{{task}}"
        print(name, told["JobState"], told.get("NodeList", "None assigned"), sep="|")
"""


def missing() -> str | None:
    """Why no Slurm can be started here, None where one can: the reason to skip a test for."""
    absent = [name for name in (*DAEMONS, *COMMANDS, "setpriv") if program(name) is None]
    return f"no Slurm here ({', '.join(absent)}): apt-get install slurm-wlm munge" if absent else None


def program(name):
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SBIN))


class Cluster:
    """Slurm with `nodes` nodes n1, n2, … of `cpus` CPUs and two GPUs each, whatever this host has.

    `env` is the environment in which sbatch, srun and the others, and what calls them, find it.
    """

    def __init__(self, nodes=2, cpus=4):
        self.nodes, self.cpus = nodes, cpus
        self.daemons = []

    def __enter__(self):
        for left in (2, 1, 0):  # a port that was free may be taken by the time it is used
            try:
                self._start()
            except SlurmError as error:
                told = self._logs()
                self._stop()
                if not left:
                    raise SlurmError(f"{error}\n{told}") from error
            except BaseException:
                self._stop()
                raise
            else:
                return self
        raise AssertionError

    def __exit__(self, *_):
        self._stop()

    def _start(self):
        # A socket's path has a length limit which pytest's folders come near to.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o711)  # munged wants its socket to be in reach of every user
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ctld_port, *ports = free_ports(1 + self.nodes)
        host = socket.gethostname().partition(".")[0]
        values = {
            "folder": self.folder,
            "host": host,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "ctld_port": ctld_port,
        }
        size = f"CPUs={self.cpus} RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
        named = [
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {size}"
            for i, port in enumerate(ports, 1)
        ]
        conf = self.folder / "slurm.conf"
        conf.write_text(CONF.format(**values, nodes="\n".join(named)))
        (self.folder / "gres.conf").write_text(GPUS)
        (self.folder / "state").mkdir()
        (self.folder / "bin").mkdir()
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(SACCT.format(python=sys.executable))
        sacct.chmod(0o755)
        path = [str(self.folder / "bin"), os.environ.get("PATH", os.defpath), *SBIN]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        self.env = inherited | {"SLURM_CONF": str(conf), "PATH": os.pathsep.join(path)}
        munge = [
            f"--{n}={self.folder}/munge.{n.partition('-')[0]}"
            for n in ("key-file", "pid-file", "log-file", "seed-file")
        ]
        self._daemon("munged", "--foreground", "--num-threads=2", f"--socket={self.folder}/munge.socket", *munge)
        self._until((self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D", "-c")
        for i in range(1, self.nodes + 1):
            self._daemon("slurmd", "-D", "-N", f"n{i}")
        self._until(lambda: self._ask("sinfo", "-h", "-N", "-p", "low", "-o", "%t").split() == ["idle"] * self.nodes)

    def _daemon(self, name, *arguments):
        """Start one that is told to end as soon as this process does."""
        path = program(name)
        assert path is not None, missing()
        with (self.folder / "daemons.log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "TERM", path, *arguments]
            self.daemons.append(
                subprocess.Popen(
                    command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            )

    def _until(self, condition, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            if dead := [daemon.args for daemon in self.daemons if daemon.poll() is not None]:
                raise SlurmError(f"ended at once: {dead}")
            if time.monotonic() > end:
                raise SlurmError("Slurm does not come up")
            time.sleep(0.05)

    def _logs(self):
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in self.folder.glob("*.log")
        )

    def _stop(self):
        if len(self.daemons) > 2:
            with suppress(subprocess.SubprocessError):
                self._run("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name, timeout=10, check=False)
        for daemon in reversed(self.daemons):  # one after the other: without munged, the others wait for it
            daemon.terminate()
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons = []
        for pid in self.processes():  # slurmstepd is no child of slurmd's for long
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self):
        """Every process that lives on this cluster: its daemons, their steps, the jobs."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                    found.append(int(path.parent.name))
        return found

    def _run(self, *command, timeout=60, check=True, **options):
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False, **options
        )
        if check and done.returncode:
            raise SlurmError(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
        return done.stdout

    def _ask(self, *command):
        with suppress(subprocess.TimeoutExpired):
            return self._run(*command, timeout=5, check=False)
        return ""

    def sbatch(self, script, *options, cwd=None, env=None):
        """Submit the text of a script; the job's id."""
        path = self.folder / f"{secrets.token_hex(4)}.sh"
        path.write_text(script)
        command = ["sbatch", "--parsable", *map(str, options), str(path)]
        done = subprocess.run(
            command, env=self.env | (env or {}), cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()

    def show(self, job):
        """What `scontrol show job` says, as a dict: JobState, Restarts, ExitCode, NodeList, …"""
        line = self._run("scontrol", "-o", "show", "job", str(job)).strip()
        return dict(re.findall(r"(?:^|\s)([\w:/]+)=(\S*)", line))

    def state(self, job):
        return self.show(job)["JobState"]

    def restarts(self, job):
        return int(self.show(job)["Restarts"])

    def wait(self, job, *states, timeout=120):
        """Until the job is in one of the states; fails at once where it ends in another."""
        end = time.monotonic() + timeout
        while (shown := self.show(job))["JobState"] not in states:
            if time.monotonic() > end or shown["JobState"] in OVER:
                told = f"job {job} is {shown['JobState']}, not {' or '.join(states)} (exit code {shown['ExitCode']})"
                raise SlurmError(f"{told}\n{self.output(shown)}\n{self._logs()}")
            time.sleep(0.1)
        return shown

    def output(self, shown):
        """The end of what a job has written."""
        paths = {Path(shown[name]) for name in ("StdOut", "StdErr") if shown.get(name)}
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in paths if path.is_file())

    def start_now(self, job):
        """Spare a requeued job the two minutes that it waits for."""
        time.sleep(2)  # slurmd takes what starts again within the second for what has just been killed
        self._run("scontrol", "update", f"jobid={job}", "starttime=now")

    def requeue(self, job):
        self._run("scontrol", "requeue", str(job))

    def scancel(self, job, *options):
        self._run("scancel", *options, str(job))


class SlurmError(Exception):
    """Slurm does not do what a test asked it for."""


def free_ports(number):
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
