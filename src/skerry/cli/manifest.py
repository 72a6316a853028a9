"""What set-up has built: ``build/setup.json`` of the checkout that this package belongs to."""

import json
import shutil
from pathlib import Path
from typing import Any

from skerry.errors import HostUnusable

REPOSITORY = Path(__file__).resolve().parents[3]
MANIFEST = REPOSITORY / "build" / "setup.json"


def built_defaults(manifest: Path = MANIFEST) -> dict[str, Any]:
    """Defaults of settings, by key, that set-up or the machine provide; what is missing is left out.

    Raises:
        HostUnusable: The manifest is damaged.
    """
    found: dict[str, Any] = {}
    if runsc := shutil.which("runsc"):
        found["runsc_path"] = str(Path(runsc).absolute())
    try:
        document = json.loads(manifest.read_bytes())
        base = manifest.parent.parent
        for key, name in (("agent_path", "agent"), ("runsc_path", "runsc")):
            if document.get(name):
                found[key] = str(base / document[name])
        images = document.get("images", {})
        found["images"] = {name: str(base / image["path"]) for name, image in images.items()}
        found["image_digests"] = {name: image["digest"] for name, image in images.items()}
    except FileNotFoundError:
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise HostUnusable(f"{manifest} is damaged ({problem}): run `make setup` again") from problem
    return found
