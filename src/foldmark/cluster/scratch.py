"""Folders for what is gone when a task or a command ends."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from foldmark.core.files import is_locked, lock_file, lock_folder


@contextmanager
def scratch_folder(base: Path, kind: str) -> Iterator[Path]:
    """A new folder in a base, removed at the end. One of its kind that a killed process left there is removed, too."""
    with ExitStack() as held:
        with lock_file(base / kind):
            for left in base.glob(f"{kind}-*"):
                if not is_locked(left):
                    shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=base))
            held.enter_context(lock_folder(folder, None))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def own_temporary_folder(place: str | None = None) -> Path:
    """This user's folder in the machine's folder for temporary files, or in another place."""
    return Path(place or tempfile.gettempdir()) / f"foldmark-{os.getuid() if hasattr(os, 'getuid') else 0}"
