"""How both sides of the bench name a device, so that their names can be compared. Needs no package.

Run by neither side alone: bench_jax.py and bench_torch.py import it.
"""

import platform
import re
from pathlib import Path


def normalised(name: str) -> str:
    """A device's name without maker's marks and spare spaces: "NVIDIA H100 PCIe" is "h100 pcie"."""
    name = re.sub(r"\((r|tm)\)|\bnvidia\b", " ", name.lower())
    return " ".join(name.split())


def processor() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return normalised(found[1] if found else platform.processor() or platform.machine())
