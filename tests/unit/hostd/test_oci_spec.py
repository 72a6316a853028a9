"""The OCI configuration of a gVisor sandbox."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.hostd.drivers.oci_spec import GUEST_AGENT, GuestLayout, build


def layout(**changes: Any) -> GuestLayout:
    fields: dict[str, Any] = {
        "root": Path("/r/merged"),
        "agent_dir": Path("/r/agent"),
        "channel_dir": Path("/r/channel"),
        "network": Path("/r/netns/x"),
        "group": "skerry-abc123/x",
        "memory_mib": 1024,
        "max_processes": 4096,
    }
    return GuestLayout(**{**fields, **changes})


def mount_at(config: dict[str, Any], destination: str) -> dict[str, Any]:
    (found,) = [one for one in config["mounts"] if one["destination"] == destination]
    return dict(found)


def test_the_first_process_is_the_agent_as_root_without_a_terminal() -> None:
    process = build(layout())["process"]

    assert process["args"] == [GUEST_AGENT]
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["terminal"] is False


def test_every_namespace_is_the_sandbox_s_own_and_the_network_is_the_one_given() -> None:
    namespaces = build(layout())["linux"]["namespaces"]

    assert {one["type"] for one in namespaces} == {"pid", "ipc", "uts", "mount", "network"}
    assert [one["path"] for one in namespaces if "path" in one] == ["/r/netns/x"]


@pytest.mark.parametrize(("destination", "source"), [("/.skerry", "/r/agent"), ("/run/skerry", "/r/channel")])
def test_what_is_the_host_s_is_read_only(destination: str, source: str) -> None:
    mount = mount_at(build(layout()), destination)

    assert mount["source"] == source
    assert {"ro", "nosuid", "nodev"} <= set(mount["options"])


def test_only_the_agent_and_its_channel_are_bound_from_the_host() -> None:
    bound = [one["source"] for one in build(layout())["mounts"] if one["type"] == "bind"]

    assert sorted(bound) == ["/r/agent", "/r/channel"]


@pytest.mark.parametrize("memory_mib", [128, 1024, 65_536])
def test_each_tmpfs_has_a_size_and_all_together_fit_in_memory(memory_mib: int) -> None:
    mounts = [one for one in build(layout(memory_mib=memory_mib))["mounts"] if one["type"] == "tmpfs"]
    sizes = [option for one in mounts for option in one["options"] if option.startswith("size=")]

    assert len(sizes) == len(mounts) == 2
    assert sum(int(size.removeprefix("size=").removesuffix("m")) for size in sizes) < memory_mib


def test_nobody_in_the_guest_can_raise_the_process_limit() -> None:
    process = build(layout(max_processes=77))["process"]

    assert {"type": "RLIMIT_NPROC", "soft": 77, "hard": 77} in process["rlimits"]
    for allowed in process["capabilities"].values():
        assert not {"CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"} & set(allowed)


def test_it_can_be_written_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(build(layout())))["hostname"] == "sandbox"
