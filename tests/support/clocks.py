"""The wall clock of one process, moved for real: a shim before the C library. Its monotonic clock stays."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SHIM = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_FILE"), O_RDONLY);
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """Compiled into ``place``; a process with ``environment`` lives ``set`` seconds ahead of everybody else."""

    def __init__(self, place: Path) -> None:
        unable = pytest.fail if os.environ.get("CI") else pytest.skip
        compiler = shutil.which("cc")
        if compiler is None:
            unable("there is no C compiler: nothing else moves the clock of one process")
        source, shim, self._file = (place / name for name in ("shim.c", "shim.so", "clock"))
        source.write_text(SHIM)
        self._file.write_bytes(struct.pack("q", 0))
        subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", str(shim), str(source)], check=True)
        shim.chmod(0o755)
        self.environment = {"LD_PRELOAD": str(shim), "CLOCK_FILE": str(self._file)}

    def set(self, ahead: int) -> None:
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", ahead))
