"""Memory is given back: in a process of its own, as the setting holds for all of it."""

import platform
import subprocess
import sys

import pytest

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
