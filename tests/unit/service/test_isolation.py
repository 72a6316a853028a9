"""Which isolation a sandbox gets: never less than was asked for."""

import pytest

from skerry.errors import HostUnusable
from skerry.protocol.host_verbs import HostDescription
from skerry.service.isolation import choose_isolation, default_shape
from skerry.spec.sandbox import DriverReport, Isolation
from skerry.spec.settings import Settings


def host(**usable: bool) -> HostDescription:
    drivers = tuple(
        DriverReport(
            isolation=Isolation(name),
            usable=is_usable,
            version="1",
            capabilities=frozenset(),
            missing=() if is_usable else (f"install {name}",),
        )
        for name, is_usable in usable.items()
    )
    return HostDescription(
        version="1", pid=1, boot_id="b", drivers=drivers, images={"builtin:debian-13": "sha256:1"}
    )


def settings(isolation: str, **changes: object) -> Settings:
    return Settings(data_dir="/d", isolation=isolation, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drivers", "chosen"),
    [
        ({"gvisor": True, "microvm": True, "namespace": True, "fake": True}, Isolation.MICROVM),
        ({"gvisor": True, "microvm": False}, Isolation.GVISOR),
        ({"gvisor": True}, Isolation.GVISOR),
        ({"microvm": True, "gvisor": False}, Isolation.MICROVM),
    ],
)
def test_auto_takes_the_strongest_that_works(drivers: dict[str, bool], chosen: Isolation) -> None:
    assert choose_isolation(settings("auto"), host(**drivers)) is chosen


@pytest.mark.parametrize("test_drivers", [True, False])
def test_auto_never_takes_what_isolates_less(test_drivers: bool) -> None:
    weak = host(namespace=True, fake=True, gvisor=False, microvm=False)
    with pytest.raises(
        HostUnusable, match=r"microvm: install microvm; gvisor: install gvisor.*skerry doctor"
    ):
        choose_isolation(settings("auto", test_drivers=test_drivers), weak)


def test_a_named_one_is_taken_or_refused() -> None:
    assert choose_isolation(settings("gvisor"), host(gvisor=True, microvm=True)) is Isolation.GVISOR
    assert choose_isolation(settings("namespace"), host(gvisor=True, namespace=True)) is Isolation.NAMESPACE
    with pytest.raises(HostUnusable, match="install microvm"):
        choose_isolation(settings("microvm"), host(gvisor=True, microvm=False))
    with pytest.raises(HostUnusable, match="no driver microvm"):
        choose_isolation(settings("microvm"), host(gvisor=True))


def test_the_fake_one_needs_two_explicit_words() -> None:
    assert choose_isolation(settings("fake", test_drivers=True), host(fake=True)) is Isolation.FAKE
    with pytest.raises(HostUnusable, match="test_drivers"):
        choose_isolation(settings("fake"), host(fake=True))


def test_a_missing_image_says_how_to_get_it() -> None:
    with pytest.raises(HostUnusable, match="make setup"):
        default_shape(settings("gvisor", image="builtin:other"), host(gvisor=True))
