"""``python -m console.tied PARENT PROGRAM ARGUMENT...``: becomes the program, which dies with the parent.

The kernel keeps the tie through exec, so it holds for programs that know nothing of it, such as redis-server.
"""

from __future__ import annotations

import os
import sys

from sinks.parentage import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
