"""Which isolation a new sandbox gets."""

from skerry.control.steps import Shape
from skerry.errors import HostUnusable
from skerry.protocol.host_verbs import HostDescription
from skerry.spec.sandbox import Capability, DriverReport, Isolation
from skerry.spec.settings import Settings

AUTO = "auto"
PREFERENCE = (Isolation.MICROVM, Isolation.GVISOR)
"""What `auto` takes, best first. It never takes `namespace` or `fake`: a downgrade must be asked for."""


def choose_isolation(settings: Settings, host: HostDescription) -> Isolation:
    """The driver that the settings want, if this host can use it.

    Raises:
        HostUnusable: It cannot; the message has the command that mends it.
    """
    reports = {report.isolation: report for report in host.drivers}
    if settings.isolation == AUTO:
        return _best(reports)
    wanted = Isolation(settings.isolation)
    if wanted is Isolation.FAKE and not settings.test_drivers:
        raise HostUnusable(
            "the fake driver isolates nothing; it needs test_drivers = true, and is for tests only"
        )
    report = reports.get(wanted)
    if report is None:
        raise HostUnusable(f"this version of Skerry has no driver {wanted.value}; use isolation = auto")
    if not report.usable:
        raise HostUnusable(f"isolation {wanted.value} cannot be used here: {_told(report)}")
    return wanted


def capabilities_of(shape: Shape, host: HostDescription) -> frozenset[Capability]:
    """What a sandbox of this shape can do on this host."""
    found = next((one for one in host.drivers if one.isolation is shape.isolation), None)
    return found.capabilities if found is not None else frozenset()


def _best(reports: dict[Isolation, DriverReport]) -> Isolation:
    for isolation in PREFERENCE:
        report = reports.get(isolation)
        if report is not None and report.usable:
            return isolation
    missing = "; ".join(f"{one.value}: {_told(reports[one])}" for one in PREFERENCE if one in reports)
    raise HostUnusable(
        f"no isolation can be used on this host. {missing or 'No driver is there'}. See `skerry doctor`"
    )


def _told(report: DriverReport) -> str:
    return "; ".join(report.missing) or "no reason was given"


def default_shape(settings: Settings, host: HostDescription) -> Shape:
    """What a create that asks for nothing special gets, and what the warm pool holds.

    Raises:
        HostUnusable: There is no isolation, or no image.
    """
    isolation = choose_isolation(settings, host)
    if settings.image not in host.images:
        raise HostUnusable(f"the image {settings.image} is not there; build it with `make setup`")
    return Shape(
        isolation=isolation,
        image=settings.image,
        image_digest=host.images[settings.image],
        memory_mib=settings.sandbox.default_memory_mib,
        cpus=settings.sandbox.cpus,
        disk_mib=settings.sandbox.disk_mib,
        max_processes=settings.sandbox.max_processes,
    )
