"""The unmodified Python SDK's synchronous client against the real server: with sandboxes that are plain
processes, and with gVisor."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from deno_sandbox import DenoDeploy
from deno_sandbox.errors import (
    AuthenticationError,
    HTTPStatusError,
    ProcessAlreadyExited,
    RpcValidationError,
    UnknownRpcMethod,
)
from deno_sandbox.sandbox import Sandbox
from websockets.exceptions import InvalidStatus

from tests.conftest import Built
from tests.harness.running_api import RunningApi, fake, gvisor, running_api

_names = itertools.count()


@pytest.fixture(scope="module", params=["fake", pytest.param("gvisor", marks=pytest.mark.needs_root)])
def api(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApi]:
    kind = {"fake": fake, "gvisor": gvisor}[request.param](built)
    with running_api(kind, tmp_path_factory.mktemp("api")) as running:
        yield running


@contextmanager
def client(api: RunningApi, token: str | None = None) -> Iterator[DenoDeploy]:
    """An SDK; at the end its HTTP client and thread are stopped, for which it has no method."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in api.environment(token).items():
            patch.setenv(name, value)
        sdk = DenoDeploy()
    yield sdk
    bridge = sdk.sandbox._bridge
    bridge.run(sdk.sandbox._client.close())
    bridge.stop()


@pytest.fixture
def sdk(api: RunningApi) -> Iterator[DenoDeploy]:
    with client(api) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def shared(api: RunningApi) -> Iterator[Sandbox]:
    with client(api) as sdk, sdk.sandbox.create() as sandbox:
        yield sandbox


@pytest.fixture
def place(shared: Sandbox) -> Iterator[str]:
    """A new directory inside the shared sandbox."""
    path = f"/tmp/skerry-test-{next(_names)}"
    shared.fs.mkdir(path, recursive=True)
    yield path
    shared.fs.remove(path, recursive=True)


def rpc(sandbox: Sandbox, method: str, params: dict[str, object]) -> object:
    """A call that the SDK has no method for."""
    return sandbox._bridge.run(sandbox._rpc.call(method, params))


def output_of(sandbox: Sandbox, command: str, *args: str, **options: Any) -> bytes:
    process = sandbox.spawn(command, args=list(args), stdout="piped", stderr="null", **options)
    output = bytes(process.stdout.read())
    assert process.wait()["success"]
    return output


def test_the_program_of_the_readme(sdk: DenoDeploy, capfd: pytest.CaptureFixture[str]) -> None:
    with sdk.sandbox.create() as sb:
        process = sb.spawn("echo", args=["Hello from the sandbox!"])
        process.wait()
        sb.fs.write_text_file("/tmp/example.txt", "Hello, World!")
        content = sb.fs.read_text_file("/tmp/example.txt")
        sb.fs.remove("/tmp/example.txt")
    assert content == "Hello, World!"
    assert "Hello from the sandbox!" in capfd.readouterr().out


def test_the_id_and_the_trace_come_from_the_upgrade(shared: Sandbox) -> None:
    assert shared.id.startswith("sbx_ord_")
    assert len(shared.trace_id or "") == 32


def test_environment_of_the_header_keeps_its_names(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create(env={"MY_VAR": "kept", "lower_case": "too"}, debug=False) as sb:
        assert output_of(sb, "printenv", "MY_VAR") == b"kept\n"
        assert output_of(sb, "printenv", "lower_case") == b"too\n"


def test_a_wrong_token_is_an_authentication_error(api: RunningApi) -> None:
    with client(api, "ddo_wrong") as sdk:
        with pytest.raises(AuthenticationError), sdk.sandbox.create():
            pass
        with pytest.raises(HTTPStatusError) as caught:
            sdk.sandbox.list()
    assert (caught.value.status_code, caught.value.code) == (401, "INVALID_TOKEN")
    assert caught.value.trace_id


@pytest.mark.parametrize(
    "options",
    [
        {"memory_mb": 767},
        {"memory_mb": 10**9},
        {"labels": {str(number): "" for number in range(6)}},
        {"labels": {"k" * 65: ""}},
        {"labels": {"k": "v" * 129}},
        {"timeout": "5h"},
        {"timeout": "0s"},
        {"secrets": {"KEY": {"hosts": [], "value": "x"}}},
        {"port": 65_536},
        {"memory_mb": "much"},
    ],
)
def test_bad_requests_are_refused_with_400(sdk: DenoDeploy, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidStatus) as caught, sdk.sandbox.create(**options):
        pass
    assert caught.value.response.status_code == 400
    assert b'"code":"INVALID_SANDBOX_CONFIG"' in caught.value.response.body


def test_what_is_not_there_yet_says_so(sdk: DenoDeploy, shared: Sandbox) -> None:
    with pytest.raises(InvalidStatus) as caught, sdk.sandbox.create(port=8000):
        pass
    assert caught.value.response.status_code == 501
    with pytest.raises(HTTPStatusError) as refused:
        shared.expose_http(port=8000)
    assert (refused.value.status_code, refused.value.code) == (501, "NOT_SUPPORTED")
    with pytest.raises(HTTPStatusError) as no_apps:
        sdk.apps.list()
    assert no_apps.value.code == "NOT_SUPPORTED"


def test_200_spawns_lose_no_output(shared: Sandbox) -> None:
    for number in range(200):
        assert output_of(shared, "echo", str(number)) == b"%d\n" % number


def test_10_mb_through_cat(shared: Sandbox) -> None:
    data = bytes(range(256)) * 40_000
    assert output_of(shared, "cat", stdin_data=io.BytesIO(data)) == data


def test_exit_codes_and_signals(shared: Sandbox) -> None:
    process = shared.spawn("sh", args=["-c", "exit 7"], stdout="null", stderr="null")
    assert process.wait() == {"success": False, "code": 7, "signal": None}
    assert process.wait()["code"] == 7
    for signal, code in (("SIGTERM", 143), ("SIGKILL", 137)):
        sleeper = shared.spawn("sleep", args=["1000"], stdout="null", stderr="null")
        rpc(shared, "processKill", {"pid": sleeper.pid, "signal": signal})
        assert sleeper.wait() == {"success": False, "code": code, "signal": signal}


def test_killing_what_has_ended(shared: Sandbox) -> None:
    process = shared.spawn("true", stdout="null", stderr="null")
    process.wait()
    with pytest.raises(ProcessAlreadyExited):
        rpc(shared, "processKill", {"pid": process.pid})
    with pytest.raises(ProcessAlreadyExited):
        rpc(shared, "processWait", {"pid": 2_000_000_000})
    with process:
        pass
    running = shared.spawn("sleep", args=["1000"], stdout="null", stderr="null")
    with pytest.raises(Exception, match="TypeError") as caught:
        rpc(shared, "processKill", {"pid": running.pid, "signal": "SIGNONSENSE"})
    assert not isinstance(caught.value, ProcessAlreadyExited)
    with running:
        pass


def test_a_missing_binary_is_not_found_and_the_connection_lives(shared: Sandbox) -> None:
    with pytest.raises(Exception, match="NotFound"):
        shared.spawn("no-such-program")
    with pytest.raises(Exception, match="NotFound"):
        shared.spawn("true", cwd="/no/such/place")
    assert output_of(shared, "echo", "alive") == b"alive\n"


def test_stdout_null_has_no_stream(shared: Sandbox) -> None:
    spawned = rpc(shared, "spawn", {"command": "true", "stdout": "null", "stderr": "piped", "stdin": "piped"})
    assert isinstance(spawned, dict)
    assert spawned["stdout_stream_id"] is None
    assert isinstance(spawned["stderr_stream_id"], int)


def test_clear_env(shared: Sandbox) -> None:
    output = output_of(shared, "/usr/bin/env", clear_env=True, env={"ONLY": "this"})
    assert [line for line in output.splitlines() if not line.startswith((b"PWD=", b"SHLVL=", b"_="))] == [
        b"ONLY=this"
    ]


def test_environment(shared: Sandbox) -> None:
    shared.env.set("PLACE_OF_WORK", "here")
    assert shared.env.get("PLACE_OF_WORK") == "here"
    assert output_of(shared, "printenv", "PLACE_OF_WORK") == b"here\n"
    assert "here" in shared.env.as_dict().values()
    shared.env.delete("PLACE_OF_WORK")
    shared.env.delete("PLACE_OF_WORK")
    assert shared.env.get("PLACE_OF_WORK") is None
    with pytest.raises(Exception, match="TypeError"):
        shared.env.set("A=B", "")


def test_unknown_methods_and_invalid_params(shared: Sandbox) -> None:
    with pytest.raises(UnknownRpcMethod):
        rpc(shared, "non_existent_method", {})
    with pytest.raises(UnknownRpcMethod):
        shared.fs.download("a", "b")
    with pytest.raises(RpcValidationError) as caught:
        rpc(shared, "readTextFile", {})
    assert caught.value.errors[0]["path"] == ["path"]
    assert caught.value.errors[0]["expected"] == "string"
    with pytest.raises(RpcValidationError):
        rpc(shared, "writeFile", {"path": "/tmp/x"})


def test_text_files(shared: Sandbox, place: str) -> None:
    path = f"{place}/text"
    shared.fs.write_text_file(path, "Grüße\n", mode=0o600)
    assert shared.fs.read_text_file(path) == "Grüße\n"
    assert shared.fs.stat(path)["mode"] & 0o777 == 0o600
    shared.fs.write_text_file(path, "more", append=True)
    assert shared.fs.read_text_file(path) == "Grüße\nmore"
    shared.fs.write_text_file(path, "x")
    assert shared.fs.read_text_file(path) == "x"
    with pytest.raises(Exception, match="AlreadyExists"):
        shared.fs.write_text_file(path, "y", create_new=True)
    with pytest.raises(Exception, match="NotFound"):
        shared.fs.write_text_file(f"{place}/missing", "y", create=False)
    with pytest.raises(Exception, match="NotFound") as caught:
        shared.fs.read_text_file(f"{place}/missing")
    assert not isinstance(caught.value, ProcessAlreadyExited)


def test_byte_files_from_every_source(shared: Sandbox, place: str) -> None:
    data = bytes(range(256)) * 1000
    path = f"{place}/bytes"
    for source in (data, io.BytesIO(data), iter([data[:1000], data[1000:]]), [data]):
        shared.fs.write_file(path, source)
        assert shared.fs.read_file(path) == data
    shared.fs.write_file(path, b"")
    assert shared.fs.read_file(path) == b""


def test_a_source_that_fails_fails_the_write(shared: Sandbox, place: str) -> None:
    def source() -> Iterator[bytes]:
        yield b"some"
        raise OSError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        shared.fs.write_file(f"{place}/broken", source())
    assert output_of(shared, "echo", "alive") == b"alive\n"


def test_no_message_is_too_long_for_the_sdk(shared: Sandbox, place: str) -> None:
    path = f"{place}/large"
    shared.fs.write_file(path, b"\0" * 5_000_000)
    assert shared.fs.stat(path)["size"] == 5_000_000
    for read in (shared.fs.read_file, shared.fs.read_text_file):
        with pytest.raises(Exception, match="RangeError"):
            read(path)
    shared.fs.write_file(path, b"\0" * 700_000)
    assert len(shared.fs.read_file(path)) == 700_000
    with pytest.raises(Exception, match="RangeError"):
        shared.fs.read_text_file(path)  # each NUL takes six characters of JSON


def test_directories(shared: Sandbox, place: str) -> None:
    shared.fs.mkdir(f"{place}/a/b", recursive=True)
    shared.fs.mkdir(f"{place}/a/b", recursive=True)
    with pytest.raises(Exception, match="AlreadyExists"):
        shared.fs.mkdir(f"{place}/a/b")
    shared.fs.write_text_file(f"{place}/a/file", "")
    assert output_of(shared, "ln", "-s", "file", f"{place}/a/link") == b""
    entries = {entry["name"]: entry for entry in shared.fs.read_dir(f"{place}/a")}
    flags = {
        name: (entry["is_file"], entry["is_directory"], entry["is_symlink"])
        for name, entry in entries.items()
    }
    assert flags == {"b": (False, True, False), "file": (True, False, False), "link": (False, False, True)}
    with pytest.raises(Exception, match="Application Error"):
        shared.fs.remove(f"{place}/a")
    shared.fs.remove(f"{place}/a", recursive=True)
    assert shared.fs.read_dir(place) == []


def test_stat_follows_and_lstat_does_not(shared: Sandbox, place: str) -> None:
    shared.fs.write_text_file(f"{place}/file", "12345")
    output_of(shared, "ln", "-s", "file", f"{place}/link")
    assert len(shared.fs.stat(f"{place}/link")) == 21
    assert shared.fs.stat(f"{place}/link")["size"] == 5
    assert shared.fs.stat(f"{place}/link")["mtime"].endswith("Z")
    lstat = rpc(shared, "lstat", {"path": f"{place}/link"})
    assert isinstance(lstat, dict)
    assert lstat["is_symlink"] is True


def test_relative_paths_are_in_the_home_on_every_connection(sdk: DenoDeploy, shared: Sandbox) -> None:
    home = output_of(shared, "sh", "-c", "cd && pwd").decode().strip()
    name = f"skerry-test-{next(_names)}"
    shared.fs.write_text_file(name, "x")
    try:
        with sdk.sandbox.connect(shared.id) as second:
            assert second.fs.read_text_file(name) == "x"
            assert second.fs.read_text_file(f"{home}/{name}") == "x"
    finally:
        shared.fs.remove(name)


def test_a_session_ends_with_its_primary_only(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create() as first:
        sandbox_id = first.id
        with sdk.sandbox.connect(sandbox_id) as second:
            assert output_of(second, "echo", "two") == b"two\n"
        assert output_of(first, "echo", "one") == b"one\n"
    with pytest.raises(InvalidStatus) as caught, sdk.sandbox.connect(sandbox_id):
        pass
    assert caught.value.response.status_code == 400
    assert b"SANDBOX_ALREADY_TERMINATED" in caught.value.response.body
    listed = {item["id"]: item for item in sdk.sandbox.list().items}
    assert listed[sandbox_id]["status"] == "stopped"
    assert listed[sandbox_id]["stopped_at"] is not None


def test_an_unknown_sandbox_is_not_found(sdk: DenoDeploy) -> None:
    for sandbox_id in ("sbx_ord_00000000000000000000", "nonsense"):
        with pytest.raises(InvalidStatus) as caught, sdk.sandbox.connect(sandbox_id):
            pass
        assert caught.value.response.status_code == 404
        assert b"SANDBOX_NOT_FOUND" in caught.value.response.body


def test_a_duration_survives_its_clients(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create(timeout="2m") as first:
        sandbox_id = first.id
    with sdk.sandbox.connect(sandbox_id) as second:
        assert output_of(second, "echo", "still here") == b"still here\n"
        second.kill()


def test_kill_inside_the_context_manager_does_not_raise(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create() as sb:
        sb.spawn("sleep", args=["1000"], stdout="null", stderr="null")
        sb.kill()
        with pytest.raises(Exception, match="terminated"):
            sb.fs.read_text_file("/etc/passwd")


def test_only_the_user_s_exception_comes_out(sdk: DenoDeploy) -> None:
    def work() -> None:
        with sdk.sandbox.create() as sb:
            for _ in range(3):
                sb.spawn("sleep", args=["1000"], stdout="null", stderr="null")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_listing_by_labels(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create(labels={"who": "é", "it's": "x"}) as sb:
        for labels in ({"who": "é"}, {"it's": "x", "who": "é"}):
            found = [item for item in sdk.sandbox.list(labels=labels).items if item["status"] == "running"]
            assert [item["id"] for item in found] == [sb.id]
            assert found[0]["region"] == "ord"
        assert sdk.sandbox.list(labels={"who": "else"}).items == []


def test_extending_a_session(sdk: DenoDeploy) -> None:
    with sdk.sandbox.create() as sb:
        first = sb.extend_timeout(600)
        assert first.tzinfo is not None
        assert sb.extend_timeout(10) == first
        assert output_of(sb, "echo", "on") == b"on\n"


def test_pages(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.protocol.deno_filters.DEFAULT_PAGE", 2)
    made = []
    with client(api, api.bob) as sdk:
        for _ in range(5):
            with sdk.sandbox.create() as sb:
                made.append(sb.id)
        page = sdk.sandbox.list()
        seen = [item["id"] for item in page.items]
        while (following := page.get_next_page()) is not None:
            page = following
            assert len(page.items) <= 2
            seen += [item["id"] for item in page.items]
    assert seen == made[::-1]
