"""The root image `builtin:debian-13`, built from Debian packages by the recipe in `images/debian-13/`."""

import tempfile
import zipfile
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from setup import wheels
from setup.cache import ensure, entry, fingerprint
from setup.commands import SetupError, say
from setup.elevation import Root
from setup.places import REPOSITORY

NAME = "builtin:debian-13"

_RECIPE = REPOSITORY / "images" / "debian-13"
_CODE = REPOSITORY / "setup" / "image_file.py"


@dataclass(frozen=True, slots=True)
class Image:
    """A root image that is ready.

    Attributes:
        path: The EROFS file; `packages.json` beside it lists what is in it.
        digest: ``sha256:…`` of its content.
    """

    path: Path
    digest: str


def image_key() -> str:
    """What the image is named by in the cache. Newer packages on the mirror do not change it."""
    return fingerprint([_RECIPE, _CODE], skip=frozenset({"README.md"}))


def is_built() -> bool:
    """Whether the image of this recipe is in the cache."""
    return entry("images", image_key()).is_dir()


def build_image(root: Root) -> Image:
    """Have the image built.

    Args:
        root: Does the part that needs root.
    Raises:
        SetupError: The mirror, the keyring or a package failed; says what to do.
    """
    key = image_key()

    def build(directory: Path) -> None:
        say("building the base image (about a minute)")
        with tempfile.TemporaryDirectory(prefix="skerry-deno-") as scratch:
            deno = _fetch_deno(Path(scratch))
            root.do("build_image", recipe=str(_RECIPE), deno=str(deno), directory=str(directory), key=key)
        with (directory / "rootfs.erofs").open("rb") as image:
            digest = f"sha256:{file_digest(image, 'sha256').hexdigest()}"
        (directory / "digest").write_text(digest)
        say(f"base image: {(directory / 'rootfs.erofs').stat().st_size >> 20} MiB, {digest[:19]}…")

    directory = ensure("images", key, build)
    return Image(directory / "rootfs.erofs", (directory / "digest").read_text())


def _fetch_deno(scratch: Path) -> Path:
    """Deno's binary, out of its wheel."""
    wheels.download(_RECIPE / "deno.lock", scratch)
    (wheel,) = scratch.glob("deno-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".data/scripts/deno"):
                binary = scratch / "deno"
                binary.write_bytes(archive.read(name))
                return binary
    raise SetupError(f"there is no binary in {wheel.name}")
