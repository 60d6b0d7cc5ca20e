"""onnxruntime-web, which a page computes with: fetched by npm once, and compared with the digest that is pinned here."""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, read_bytes, write_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
LIMIT = 256 * MEGABYTE


@dataclass(frozen=True)
class WebRuntime:
    """The runtime as a JavaScript module and its WebAssembly."""

    script: bytes
    wasm: bytes


def fetch_runtime(cache: Path) -> WebRuntime:
    """The runtime, downloaded into the cache where it is not there. Raises UserError where npm is missing or cannot download it,
    and for a file that is not the pinned one."""
    path = cache / f"{PACKAGE}-{VERSION}.tgz"
    if not path.is_file():
        write_bytes(path, _download(path))
    content = read_bytes(path, LIMIT)
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise UserError(f"{path}: is not {PACKAGE} {VERSION} as npm publishes it; remove it and run make demo again.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return WebRuntime(*(_read(archive, name) for name in (SCRIPT, WASM)))


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def _download(path: Path) -> bytes:
    npm = shutil.which("npm")
    instead = f"or put {PACKAGE}-{VERSION}.tgz from npm there yourself"
    if npm is None:
        raise UserError(f"{path}: the page needs it, and npm, which fetches it, is not installed; install npm, {instead}.")
    with TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packed = Path(folder) / path.name
        if done.returncode or not packed.is_file():
            reason = (done.stderr.strip().splitlines() or ["no answer"])[0][:200]
            raise UserError(f"{path}: npm could not fetch it ({reason}); connect to the network, {instead}.")
        return packed.read_bytes()
