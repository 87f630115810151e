"""A PostgreSQL for the tests, on a free port of this machine, with its data in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path


def program(name):
    """Debian keeps them out of PATH."""
    return shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)


def missing():
    """Why no server can be started here, None where one can: the reason to skip a test for."""
    absent = [name for name in ("initdb", "postgres") if program(name) is None]
    return f"no PostgreSQL here ({', '.join(absent)}): apt-get install postgresql" if absent else None


@contextmanager
def server():
    """Yields the URL of an empty database. It refuses to run as root, and then runs as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    how = {"cwd": folder, "stdin": subprocess.DEVNULL}
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
        how |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("ab")
    arguments = ["--auth=trust", "--username=engrec", "--no-sync", "--no-locale", "--encoding=UTF8"]
    subprocess.run([program("initdb"), "-D", folder / "data", *arguments], **how, stdout=log, stderr=log, check=True)
    command = [program("postgres"), "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    process = subprocess.Popen(command, **how, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port, process, folder / "log")
        yield f"postgresql://engrec@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # which ends its sessions too
        process.wait(30)
        log.close()
        shutil.rmtree(folder)


def wait_for(port, process, log):
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(f"postgresql://engrec@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
