"""Names of an instance's files."""

from pathlib import Path

import pytest

from skerry.errors import HostUnusable
from skerry.hostd.places import Places
from skerry.spec.ids import InstanceId, SandboxId

ID = SandboxId("sbx_ord_" + "a" * 20)


def places(path: Path) -> Places:
    return Places(path, InstanceId("abc123"))


def test_only_names_of_sandboxes_are_taken_for_sandboxes(tmp_path: Path) -> None:
    assert places(tmp_path).sandbox_of_directory(ID) == ID
    assert places(tmp_path).sandbox_of_directory("..") is None
    assert places(tmp_path).sandbox_of_directory(ID + "x") is None


def test_the_socket_of_an_agent_has_room_in_a_socket_address() -> None:
    longest = places(Path("/run/skerry/abc123")).agents / ID / "agent.sock"

    assert len(bytes(longest)) < 108


def test_everything_is_for_root_only(tmp_path: Path) -> None:
    places(tmp_path).make()

    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o700}


def test_removal_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    made = places(tmp_path)
    made.make()
    (made.guest_agents / "0123").mkdir()
    (made.guest_agents / "0123" / "skerry-agent").touch()
    (made.mounts / "roots").mkdir()

    made.remove()
    made.remove()

    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_that_is_left_stops_the_removal(tmp_path: Path) -> None:
    made = places(tmp_path)
    made.make()
    made.sandbox(ID).path.mkdir()

    with pytest.raises(HostUnusable):
        made.remove()
    assert made.sandbox(ID).path.exists()
