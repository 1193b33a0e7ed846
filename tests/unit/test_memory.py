"""Memory is given back: in a process of its own, as the setting holds for all of it."""

import gc
import platform
import subprocess
import sys
import threading

import pytest

from beatd.memory import without_collections

PROGRAM = """
import re
from pathlib import Path
from beatd import memory

{first}
former_file = bytearray(30 << 20)
del former_file
tables = [bytearray(b"x" * (1 << 20)) for _ in range(40)]
del tables[:-1]  # the last one is above the others
{then}
print(int(re.search("VmRSS:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def megabytes(first="", then=""):
    program = PROGRAM.format(first=first, then=then)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep nothing, or cannot be told")
def test_what_is_freed_is_given_back():
    kept = megabytes()
    assert megabytes(first="memory.keep_no_large_blocks()") < kept - 25
    assert megabytes(then="memory.give_back(100_000)") < kept - 25
    assert megabytes(then="memory.give_back(10)") > kept - 5


def test_the_collector_is_as_it_was_when_the_last_of_several_threads_is_done():
    """The loop of a daemon turns while files are loaded. Neither may take what the other has set for how it was."""
    assert gc.isenabled()
    load, turn = without_collections(), without_collections()
    load.__enter__()
    turn.__enter__()
    load.__exit__(None, None, None)
    assert not gc.isenabled()
    with without_collections():
        turn.__exit__(None, None, None)
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.timeout(60)
def test_overlapping_blocks_of_threads_never_leave_the_collector_off():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work():
        for _ in range(20_000):
            with without_collections():
                pass

    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert gc.isenabled()
