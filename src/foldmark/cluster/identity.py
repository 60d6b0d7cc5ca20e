"""What two processes must have in common to compute the same: Foldmark's code and torch's version."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def identify() -> dict[str, str]:
    """Foldmark's version with a digest of its code, and torch's version without its build: a head without a GPU has another."""
    package = Path(__file__).parent.parent
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    try:
        number = version("foldmark")
    except PackageNotFoundError:
        number = "not installed"
    return {"foldmark": f"{number} ({content.hexdigest()[:12]})", "torch": version("torch").partition("+")[0]}


def describe_identity(identity: dict[str, str] | None) -> str:
    """In words; None: of a machine that has no such Foldmark."""
    return " and ".join(f"{name} {number}" for name, number in identity.items()) if identity else "no Foldmark of this kind"
