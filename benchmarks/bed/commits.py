"""An earlier commit's files, in a temporary folder. The checkout stays as it is."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from headrace.config import PROJECT_ROOT


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """The files of that commit. Raises: ClickException: git has no such commit."""
    read = subprocess.run(["git", "-C", str(PROJECT_ROOT), "archive", commit], capture_output=True, check=False)
    if read.returncode:
        raise click.ClickException(f"git has no files of {commit}: {read.stderr.decode().strip()}")
    with TemporaryDirectory(prefix="headrace-before-") as folder:
        root = Path(folder).resolve()
        with tarfile.open(fileobj=io.BytesIO(read.stdout)) as archive:
            archive.extractall(root, filter="data")
        yield root
