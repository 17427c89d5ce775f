"""A SLURM of one node on loopback, with its daemons and files in a folder.

Debian has it in the packages slurm-wlm and munge. It must be started by root.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["SlurmCluster"]

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "sbatch")

CONFIG = """
ClusterName=afmlib
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SchedulerParameters=requeue_delay=0,batch_sched_delay=0,sched_interval=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES State=UP
"""


class SlurmCluster:
    """A running cluster."""

    def __init__(self):
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        assert not missing, f"{missing} missing: apt-get install slurm-wlm munge"
        assert os.geteuid() == 0, "slurmd starts jobs of other users, so it needs root"
        self.folder = Path(tempfile.mkdtemp(prefix="afmlib-slurm-"))
        self.folder.chmod(0o755)  # Munge wants a socket that every user can reach.
        config = self.folder / "slurm.conf"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "SLURM_CONF": str(config)}
        for name in ("state", "spool"):
            (self.folder / name).mkdir(mode=0o700)
        config.write_text(
            CONFIG.format(
                host=socket.gethostname().split(".")[0], folder=self.folder, ports=_free_ports(2)
            )
        )
        self._daemons = []
        try:
            self.run("mungekey", "--create", f"--keyfile={self.folder}/key")
            files = dict.fromkeys(("pid", "log", "seed"), "")
            self._start(
                *("munged", "--foreground", f"--key-file={self.folder}/key"),
                f"--socket={self.folder}/munge.socket",
                *(f"--{name}-file={self.folder}/munge.{name}" for name in files),
            )
            _wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D", "-i", "-f", str(config))
            self._start("slurmd", "-D", "-f", str(config))
            _wait(lambda: self.run("sinfo", "-h", "-o", "%T").stdout.strip() == "idle")
        except BaseException:
            self.close()
            raise

    def _start(self, *command):
        with (self.folder / f"{command[0]}.txt").open("w") as output:
            self._daemons.append(
                subprocess.Popen(
                    command, stdout=output, stderr=output, env=self.environment, cwd=self.folder
                )
            )

    def run(self, *command, seconds=900, **options):
        """Runs a command on the cluster; returns the completed process."""
        return subprocess.run(
            command,
            env={**self.environment, **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **options,
        )

    def state(self, job):
        """Returns the state of a job and the number of its restarts."""
        shown = self.run("scontrol", "show", "job", job, "--oneliner").stdout
        fields = dict(word.split("=", 1) for word in shown.split() if "=" in word)
        return fields.get("JobState"), int(fields.get("Restarts", 0))

    def close(self):
        """Cancels the jobs and ends the daemons."""
        if len(self._daemons) == 3:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("scancel", "--full", "-s", "KILL", "-u", "root", seconds=10)
        for daemon in self._daemons[::-1]:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "SLURM did not start"
        time.sleep(0.2)
