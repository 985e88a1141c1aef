"""What judging needs in memory."""

from __future__ import annotations

import subprocess
import sys


def test_the_server_does_without_the_large_half_of_scipy() -> None:
    # scipy.stats takes 48 MB of the server's memory; scipy.special has the few functions that are needed.
    code = "import sys, tierlight_dashboard.serve; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
