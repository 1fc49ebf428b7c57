"""The machine: cores, versions, and the CPU time that other processes used."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("asgi-aiproxy", "pyreqwest", "msgspec", "uvicorn", "uvloop", "httptools", "h11"),
    *("granian", "hypercorn", "websockets"),
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cores:
    """One core for the gateway, another for the mock and the load."""

    gateway: int
    load: int

    @property
    def apart(self) -> bool:
        return self.gateway != self.load

    @classmethod
    def choose(cls) -> Cores:
        allowed = sorted(os.sched_getaffinity(0))
        return cls(gateway=allowed[-1], load=allowed[0])


@dataclass
class Neighbours:
    """CPU time of the gateway's core used by others while measuring, in percent of the time."""

    core: int
    stolen: list[float] = field(default_factory=list)  # by the hypervisor, for other machines
    others: list[float] = field(default_factory=list)  # by other processes of this one

    def ticks(self) -> list[int]:
        """The counters of the core in /proc/stat."""
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name == f"cpu{self.core}":
                return [int(tick) for tick in ticks[:8]]
        return [0] * 8

    def note(self, before: list[int], ours: float) -> None:
        """Record a window in which the gateway used `ours` seconds."""
        passed = [new - old for old, new in zip(before, self.ticks(), strict=True)]
        user, nice, system, *_, stolen = passed
        total = sum(passed)
        if total:
            theirs = user + nice + system - ours * os.sysconf("SC_CLK_TCK")
            self.stolen.append(100 * stolen / total)
            self.others.append(max(0.0, 100 * theirs / total))


def describe() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "revision": revision(),
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """The commit, with a `+` if files were changed since."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()
