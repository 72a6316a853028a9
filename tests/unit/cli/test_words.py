"""How words on the command line are understood."""

from pathlib import Path

import pytest

from skerry.cli.cp import Place, parse_place
from skerry.cli.manifest import built_defaults
from skerry.cli.process import Program, program_of
from skerry.cli.rest import error_of, path
from skerry.cli.run import pairs
from skerry.cli.sandbox_id import split_default
from skerry.cli.server import Server, find_server
from skerry.errors import Conflict, Forbidden, HostUnusable, InvalidRequest, NotFound, SkerryError

SANDBOX = "sbx_ord_0123456789abcdefghjk"
OTHER = "sbx_ord_zzzzzzzzzzzzzzzzzzzz"


def test_one_word_is_a_line_for_bash_and_several_are_exact() -> None:
    line = "echo $HOME | wc"
    assert program_of([line], cwd=None, env={}) == Program("bash", ("-c", "--", line))
    assert program_of(["sh", "-c", "exit 3"], cwd="/", env={"A": "b"}) == Program(
        "sh", ("-c", "exit 3"), "/", {"A": "b"}
    )


@pytest.mark.parametrize(
    ("default", "words", "expected"),
    [
        (None, [SANDBOX, "ls", "-l"], (SANDBOX, ["ls", "-l"])),
        (OTHER, ["ls", "-l"], (OTHER, ["ls", "-l"])),
        (OTHER, [SANDBOX, "ls"], (SANDBOX, ["ls"])),
    ],
)
def test_which_sandbox_a_line_means(
    monkeypatch: pytest.MonkeyPatch, default: str | None, words: list[str], expected: tuple[str, list[str]]
) -> None:
    monkeypatch.delenv("SANDBOX_ID", raising=False)
    if default:
        monkeypatch.setenv("SANDBOX_ID", default)
    assert split_default(words) == expected


@pytest.mark.parametrize(("words", "expected"), [([], "which sandbox"), (["ls", "-l"], "not a sandbox ID")])
def test_no_sandbox_is_named(monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str) -> None:
    monkeypatch.delenv("SANDBOX_ID", raising=False)
    with pytest.raises(InvalidRequest, match=expected):
        split_default(words)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"{SANDBOX}:/etc/passwd", Place(SANDBOX, "/etc/passwd")),
        (f"{SANDBOX}:notes", Place(SANDBOX, "/home/app/notes")),
        (f"{SANDBOX}:", Place(SANDBOX, "/home/app/")),
        ("sbx_ord_short:/x", Place(None, "sbx_ord_short:/x")),
        ("C:file", Place(None, "C:file")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("typed", "name"), [("/a/b/", "b"), ("b", "b"), ("/", ""), ("..", ""), ("x/..", ""), (".", "")]
)
def test_the_name_that_a_source_brings_along(typed: str, name: str) -> None:
    assert Place(None, typed).own_name == name


def testpairs() -> None:
    assert pairs(["A=b=c", "D="], "--env") == {"A": "b=c", "D": ""}
    with pytest.raises(InvalidRequest, match="NAME=VALUE"):
        pairs(["=x"], "--env")


def test_paths_are_encoded() -> None:
    assert path("a", "b/c?d", from_="1") == "/a/b%2Fc%3Fd?from_=1"


@pytest.mark.parametrize(
    ("status", "body", "family", "code"),
    [
        (404, b'{"code":"SANDBOX_NOT_FOUND","message":"no"}', NotFound, "SANDBOX_NOT_FOUND"),
        (
            400,
            b'{"code":"SANDBOX_ALREADY_TERMINATED","message":"no"}',
            Conflict,
            "SANDBOX_ALREADY_TERMINATED",
        ),
        (403, b"<html>", Forbidden, "UNKNOWN_ERROR"),
        (500, b"[1]", SkerryError, "UNKNOWN_ERROR"),
    ],
)
def test_errors_of_the_server(status: int, body: bytes, family: type[SkerryError], code: str) -> None:
    problem = error_of(status, body)
    assert type(problem) is family
    assert problem.code == code


def data_directory(tmp_path: Path) -> Path:
    """One that looks as if Skerry ran."""
    (tmp_path / "endpoint.json").write_text('{"url": "http://127.0.0.1:1"}')
    (tmp_path / "client-token").write_text("ddo_mine\n")
    return tmp_path


def test_the_data_directory_of_the_flag_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DENO_SANDBOX_ENDPOINT", "http://elsewhere")
    monkeypatch.setenv("DENO_DEPLOY_TOKEN", "ddo_other")
    monkeypatch.delenv("SKERRY_DATA_DIR", raising=False)
    assert find_server(data_directory(tmp_path)) == Server("http://127.0.0.1:1", "ddo_mine")
    assert find_server(None) == Server("http://elsewhere", "ddo_other")
    monkeypatch.setenv("SKERRY_DATA_DIR", str(tmp_path))
    assert find_server(None).token == "ddo_mine"


def test_a_token_does_not_show_itself() -> None:
    assert "ddo_" not in repr(Server("http://x", "ddo_secret"))


def test_a_manifest_gives_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    manifest = tmp_path / "build" / "setup.json"
    assert built_defaults(manifest) == {}
    manifest.parent.mkdir()
    manifest.write_text(
        '{"agent": "/a", "runsc": "build/r", "images": {"i": {"path": "/i", "digest": "sha256:0"}}}'
    )
    assert built_defaults(manifest) == {
        "agent_path": "/a",
        "runsc_path": str(tmp_path / "build" / "r"),
        "images": {"i": "/i"},
        "image_digests": {"i": "sha256:0"},
    }
    manifest.write_text("[]")
    with pytest.raises(HostUnusable, match="make setup"):
        built_defaults(manifest)
