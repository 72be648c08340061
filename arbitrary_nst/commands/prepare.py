"""The command that makes shards of a collection: pictures shrunk once, bad ones dropped and reported.

Sources are taken in their order, by several processes at a time, so the shards depend on nothing but the sources and
the options. For every finished shard a record in `.unfinished` says how far it goes; a run that was stopped goes on
after the last of them. When all is done, the records become the report and the manifest.
"""

import csv
import json
import os
import re
import shutil
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from tyro.conf import Positional

from arbitrary_nst.data.sources import Encoded, find_pictures
from arbitrary_nst.data.workers import explained
from arbitrary_nst.errors import OutputError, UsageError
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, encode_jpeg
from arbitrary_nst.runtime.files import (
    ImageError,
    atomic_write,
    check_output_folder,
    detail,
    printable_path,
    reraise_with_path,
)
from arbitrary_nst.runtime.processes import usable_cores

MANIFEST, REPORT, UNFINISHED = "manifest.json", "report.csv", ".unfinished"


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Shrink a collection of pictures into shards (tar files as webdataset reads them), leaving bad ones out.

    Dropped are files that cannot be read, pictures smaller than --min-side, and pictures that were there before; each
    stands in report.csv with the reason. Stopped and started again with the same options, the command goes on.
    """

    sources: Positional[tuple[Path, ...]]
    """Pictures: files, folders (searched recursively, zip and tar files too), globs, zip or tar files."""
    output: Path
    """Folder for shard-000000.tar ..., manifest.json and report.csv."""
    size: int = 512
    """Short side in pixels to which larger pictures are shrunk."""
    quality: int = 90
    """Of the JPEG files, 1 to 100."""
    min_side: int = 128
    """Pictures with a shorter side than this, in pixels, are dropped."""
    shard_size: int = 1000
    """Pictures in a shard; so many encoded ones are held in memory."""
    license: str = ""
    """Licence of the sources, for the manifest."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Files with more pixels than this are dropped; 0 lifts the limit."""
    workers: int = field(default_factory=lambda: min(4, usable_cores()))
    """Processes that decode; 0: this one. Otherwise one a core, but four at most."""

    def __post_init__(self) -> None:
        for name in ("size", "min_side", "shard_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.min_side > self.size:
            raise UsageError(f"--min-side {self.min_side}: must not be larger than --size {self.size}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: must be from 1 to 100")
        if self.max_pixels < 0 or self.workers < 0:
            raise UsageError("--max-pixels and --workers must be at least 0")


@dataclass
class Part:
    """A shard in the making: what the sources since the last one gave."""

    kept: list[tuple[int, str, bytes]] = field(default_factory=list)
    """Place of the source, digest of the picture, and the picture as JPEG."""
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    """Name of the source, reason (unreadable, small, duplicate), and what there is to say of it."""


class ResizedImages(Dataset):
    """Source n as JPEG, or the reason why it is dropped and what there is to say of it."""

    def __init__(self, sources: Sequence[Encoded], config: PrepareConfig) -> None:
        self.sources, self.config = sources, config

    def __getitem__(self, index: int) -> tuple[bytes, str, str]:
        config = self.config
        try:
            pixels = self.sources[index].load(config.size, config.max_pixels or None)
        except ImageError as error:
            return b"", "unreadable", str(error)
        height, width = pixels.shape[1:]
        if min(height, width) < config.min_side:
            return b"", "small", f"{width} x {height} pixels"
        return encode_jpeg(pixels, config.quality), "", ""


def prepare(config: PrepareConfig) -> int:
    """The command: write the shards, say what was dropped, and return the exit code 0.

    Raises ImageError where a source gives nothing or nothing can be kept, OutputError where the output cannot be
    written, ValueError where its folder is of other options or holds something else, and WorkerError where a process
    has ended.
    """
    finished = (config.output / MANIFEST).exists()
    if not finished:
        check_output_folder(config.output)
    sources = find_sources(config)
    options = describe(config, sources)
    if not finished:
        claim(config.output, options)
        with explained():
            write_shards(sources, config)
        finish(config.output, options)
    manifest = read_manifest(config.output, options)
    shutil.rmtree(config.output / UNFINISHED, ignore_errors=True)
    dropped = ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items())
    print(
        f"{config.output}: {manifest['pictures']} of {len(sources)} pictures in {len(manifest['shards'])} shards, "
        f"{manifest['bytes'] / 1e6:.1f} MB; dropped: {dropped or 'none'} ({config.output / REPORT})"
    )
    return 0


def find_sources(config: PrepareConfig) -> list[Encoded]:
    """The pictures to shrink: all that are named, without the shards that lie in the output folder.

    Raises ImageError where a source gives nothing, UsageError where all lie in the output folder.
    """
    found, output = find_pictures(config.sources, {config.output: ""}), config.output.resolve()
    own = {folder for folder in {os.path.dirname(source.path) for source in found} if Path(folder).resolve() == output}
    sources = [source for source in found if os.path.dirname(source.path) not in own]
    if not sources:
        raise UsageError(f"--output {printable_path(config.output)}: is the folder of the sources; name another folder")
    return sources


def describe(config: PrepareConfig, sources: Sequence[Encoded]) -> dict[str, Any]:
    """Everything that determines the shards; the sources by their number and a digest of their names."""
    names = b"".join(source.name.encode("utf-8", "surrogateescape") + b"\0" for source in sources)
    chosen = ("size", "quality", "min_side", "shard_size", "max_pixels", "license")
    return {
        "sources": [str(path) for path in config.sources],
        "files": len(sources),
        "names_sha256": sha256(names).hexdigest(),
        **{name: getattr(config, name) for name in chosen},
    }


def claim(output: Path, options: dict[str, Any]) -> None:
    """Begin or go on in a folder, clean of files that were being written. ValueError where it is not ours."""
    claimed = output / UNFINISHED / "options.json"
    if claimed.exists():
        _compare(output, json.loads(claimed.read_text(encoding="utf-8")), options)
        for leftover in (*output.glob(".*.partial"), *claimed.parent.glob(".*.partial")):
            leftover.unlink()
    elif output.exists() and (not output.is_dir() or any(path.name != UNFINISHED for path in output.iterdir())):
        raise UsageError(f"--output {output}: holds something else; name a new or an empty folder")
    else:
        _write_json(claimed, options)


def read_manifest(output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a finished folder. ValueError where it was made with other options."""
    manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    _compare(output, manifest["options"], options)
    return manifest


def _compare(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            if name in ("files", "names_sha256"):
                raise UsageError(f"--output {output}: the files of its sources have changed since; name another folder")
            option = "its sources" if name == "sources" else f"--{name.replace('_', '-')}"
            was = " ".join(before[name]) if name == "sources" else repr(before.get(name))
            given = " ".join(value) if name == "sources" else repr(value)
            raise UsageError(f"--output {output}: made with {option} {was}, not {given}; name another folder")


def write_shards(sources: Sequence[Encoded], config: PrepareConfig) -> None:
    """Write the shards that are not there yet, and a record of each."""
    seen: dict[str, int] = {}  # digest of a picture -> place of its source
    shards = until = 0
    for record in _records(config.output):
        seen.update({digest: place for place, digest in record["kept"]})
        shards, until = shards + bool(record["kept"]), record["until"]
    results = DataLoader(
        ResizedImages(sources, config),
        batch_size=None,
        sampler=range(until, len(sources)),
        num_workers=config.workers,
    )
    part, dropped = Part(), Counter()
    with tqdm(total=len(sources), initial=until, desc="preparing", unit="image", dynamic_ncols=True) as progress:
        for place, (jpeg, reason, told) in enumerate(results, until):
            digest = blake2b(jpeg, digest_size=16).hexdigest()
            if not reason and digest in seen:
                reason, told = "duplicate", f"the same picture as {sources[seen[digest]].name}"
            if reason:
                part.dropped.append((sources[place].name, reason, told))
                dropped[reason] += 1
                progress.set_postfix(dropped, refresh=False)
            else:
                seen[digest] = place
                part.kept.append((place, digest, jpeg))
            progress.update()
            if len(part.kept) == config.shard_size or place + 1 == len(sources):
                _write_part(part, shards, place + 1, sources, config.output)
                shards, part = shards + bool(part.kept), Part()


def _write_part(part: Part, shard: int, until: int, sources: Sequence[Encoded], output: Path) -> None:
    """A shard, and then its record; of a part without pictures only the record."""
    written = None
    if part.kept:
        path = output / f"shard-{shard:06}.tar"
        with reraise_with_path(path, _writing_failure, OutputError), atomic_write(path) as partial:
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
                for place, _, jpeg in part.kept:
                    member = tarfile.TarInfo(f"{place:09}-{_plain(Path(sources[place].name).stem)}.jpg")
                    member.size = len(jpeg)
                    archive.addfile(member, BytesIO(jpeg))
            content = partial.read_bytes()
            digest = sha256(content).hexdigest()
            written = {"name": path.name, "count": len(part.kept), "bytes": len(content), "sha256": digest}
    kept = [(place, digest) for place, digest, _ in part.kept]
    record = {"shard": written, "until": until, "kept": kept, "dropped": part.dropped}
    _write_json(output / UNFINISHED / f"{until:09}.json", record)


def _plain(stem: str) -> str:
    """Letters, digits, - and _ of a name, as a webdataset key and a plain tar header have them."""
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub("[^A-Za-z0-9_-]+", "-", ascii_only)[:60]


def _records(output: Path) -> Iterator[dict[str, Any]]:
    """The records of the finished parts, in their order."""
    for path in sorted((output / UNFINISHED).glob("[0-9]*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def finish(output: Path, options: dict[str, Any]) -> None:
    """Write the report and the manifest. Raises ImageError where no picture was kept."""
    shards, dropped = [], Counter()
    with (
        reraise_with_path(output / REPORT, _writing_failure, OutputError),
        atomic_write(output / REPORT) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(("file", "reason", "detail"))
        for record in _records(output):
            shards += [record["shard"]] if record["shard"] else []
            rows.writerows(record["dropped"])
            dropped.update(reason for _, reason, _ in record["dropped"])
    if not shards:
        raise ImageError(f"{output / REPORT}: none of the {options['files']} files gave a picture; it says why")
    manifest = {
        "pictures": sum(shard["count"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "dropped": dict(sorted(dropped.items())),
        "options": options,
        "shards": shards,
    }
    _write_json(output / MANIFEST, manifest)


def _write_json(path: Path, content: Any) -> None:
    with reraise_with_path(path, _writing_failure, OutputError), atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1 if path.name == MANIFEST else None), encoding="utf-8")


def _writing_failure(error: Exception) -> str:
    return f"cannot be written ({detail(error)}); try another place"
