"""Environments of contenders that cannot share the project's: made on first use, pinned by a requirements file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class EnvironmentMissingError(Exception):
    """An environment could not be made; the message says what failed and what to run."""


def python_of(environment: str) -> str:
    """The interpreter of an environment, `project` being the one that runs this.

    Raises:
        EnvironmentMissingError: If it has to be made and that fails, for want of a network for example.
    """
    if environment == "project":
        return sys.executable
    home = HERE / ".environments" / environment
    requirements = HERE / f"requirements-{environment}.txt"
    python, stamp = home / "bin" / "python", home / "installed.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print(f"making the environment of {environment}, once", file=sys.stderr)
        _call([sys.executable, "-m", "venv", str(home)])
        _call([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
        stamp.write_text(requirements.read_text())
    return str(python)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentMissingError(
            f"`{' '.join(command)}` failed: {last}\n\nhint: leave its contenders out with --without"
        )
