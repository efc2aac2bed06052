"""Runs the notebooks as a reader does: each in a kernel of its own, from top to bottom, in an empty folder.

    python tests/notebook_runs.py [NAME ...]

runs them (all, or those whose names begin with a NAME) and writes what they showed into them; `make notebooks` does.
"""

from __future__ import annotations

import base64
import os
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 300


def run(path: Path, folder: Path, shared: Path | None = None) -> Any:
    """The notebook with what its cells show now; a cell that raises ends it.

    Args:
        path: The notebook.
        folder: Where it runs.
        shared: The folder with the real data, if there is one.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "IPYTHONDIR": str(folder / ".ipython"), "PYTHONHASHSEED": "0"}
    environment["OMP_NUM_THREADS"] = "1"  # scikit-learn's threads wait by spinning, and tests have neighbours
    environment.pop("MPLBACKEND", None)  # pictures go into the notebook, whatever the shell says
    if shared is not None:
        environment["ASKNOWN_SHARED"] = str(shared)
    with tempfile.TemporaryDirectory(prefix="asknown-") as sockets:  # short, as paths of sockets have to be
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=str(Path(sockets) / "kernel.json")
        )
        NotebookClient(
            notebook,
            km=kernel,
            timeout=SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
        ).execute(env=environment, cleanup_kc=True)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> list[tuple[str, str]]:
    """What a cell shows, as (kind, text), in order; of pictures that they are there, since their bytes depend on the fonts."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append((output.name, output.text))
        else:
            kind = "picture" if "image/png" in output.data else "value"
            found.append((kind, output.data.get("text/plain", "")))
    return found


def pictures(notebook: Any) -> list[tuple[int, int]]:
    """Width and height of the PNG pictures in a notebook, in pixels."""
    data = [
        base64.b64decode(output.data["image/png"])
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in data)
    return [struct.unpack(">II", picture[16:24]) for picture in data]


def main(names: list[str]) -> None:
    from conftest import shared_folder

    for path in NOTEBOOKS:
        if names and not path.name.startswith(tuple(names)):
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, Path(folder), shared_folder())
        nbformat.write(notebook, path)
        print(f"{path.name}  {time.monotonic() - begin:.1f} s  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
