"""The operator's own policy: the layer that no other can widen."""

from pathlib import Path

from skerry.errors import HostUnusable, SkerryError
from skerry.policy.document import PolicyDocument
from skerry.policy.reading import read_document
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.settings import EgressSettings

LAYER = "operator"
_MAX_BYTES = 1 << 20


def read_layer(settings: EgressSettings) -> NamedLayer:
    """Read it; without a file, it is the public internet.

    Raises:
        HostUnusable: The file cannot be read, or is wrong: nothing may be allowed in its place.
    """
    if not settings.policy:
        return NamedLayer(name=LAYER, document=PolicyDocument(default="public"))
    path = Path(settings.policy)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise HostUnusable(f"egress.policy: {path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise HostUnusable(f"egress.policy: {path} is larger than {_MAX_BYTES} bytes")
    try:
        document = read_document(data, kind="json" if path.suffix == ".json" else "toml")
    except SkerryError as error:
        raise HostUnusable(f"egress.policy: {path}: {error.message}") from None
    return NamedLayer(name=LAYER, document=document)
