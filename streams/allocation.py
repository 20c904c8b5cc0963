"""How the processes of a worker hold memory: what they do not use goes back to the system."""

from __future__ import annotations

from collections.abc import Mapping

_LARGE_BYTES = 1024 * 1024
"""Arrays of so much get pages of their own from the system, and these go back as soon as an array is gone."""


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child; what stands there already overrules what is added.

    The C library (glibc; others ignore this) takes each large array that is freed for a sign that more will come, and
    from then on puts all arrays up to 32 MiB side by side. Then what a backlog or a partition needed stays resident
    below whatever small thing lies above it: an engine that had given back two of four partitions held 1.6 GiB and
    used 0.4. A fixed limit ends that; judging costs the same.
    """
    return {"MALLOC_MMAP_THRESHOLD_": str(_LARGE_BYTES), **environment}
