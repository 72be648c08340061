"""onnxruntime-web from the npm registry: downloaded once, checked, and kept in the user's cache folder."""

import os
import tarfile
from base64 import b64encode
from contextlib import suppress
from hashlib import sha512
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

from arbitrary_nst.errors import MissingPackageError
from arbitrary_nst.runtime.files import atomic_write

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's file, as the registry and package-lock.json have it."""

REGISTRY = "https://registry.npmjs.org"
"""Another is taken from the variable NPM_CONFIG_REGISTRY, as npm does."""

FILES = (
    *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
)
"""What a browser needs: three files for WebAssembly, three for WebGPU."""


def runtime_files() -> dict[str, bytes]:
    """Read the runtime from the cache, or else download it.

    Returns:
        The content of each of `FILES`, by name.

    Raises:
        MissingPackageError: it is not here and cannot be downloaded.
    """
    found = {}
    with tarfile.open(fileobj=BytesIO(_package())) as package:
        for member in package:
            folder, _, name = member.name.rpartition("/")
            if folder == "package/dist" and name in FILES and (file := package.extractfile(member)) is not None:
                found[name] = file.read()
    return found


def _package() -> bytes:
    cached = _cache_folder() / f"onnxruntime-web-{VERSION}.tgz"
    if cached.is_file() and _integrity(content := cached.read_bytes()) == INTEGRITY:
        return content
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    try:
        with urlopen(url, timeout=60) as response:
            content = response.read()
    except (OSError, HTTPException, ValueError) as error:
        raise MissingPackageError(
            f"{url}: cannot be downloaded ({getattr(error, 'reason', error)}); connect to the network, or put the file "
            f"into {cached.parent}"
        ) from error
    if _integrity(content) != INTEGRITY:
        raise MissingPackageError(f"{url}: is not the file that was published as {VERSION}; try another registry")
    with suppress(OSError), atomic_write(cached) as partial:  # what cannot be kept is downloaded again
        partial.write_bytes(content)
    return content


def _integrity(content: bytes) -> str:
    return f"sha512-{b64encode(sha512(content).digest()).decode()}"


def _cache_folder() -> Path:
    """The package's own folder among the user's caches (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arbitrary_nst"
