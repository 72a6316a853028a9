"""The create header in both SDKs' spellings and byte encodings."""

import base64
import json

import pytest

from skerry.errors import InvalidRequest
from skerry.protocol.deno_config import MAX_HEADER_BYTES, SandboxConfig, decode_config
from skerry.protocol.deno_flavour import Flavour, flavour_of


def header(config: object, encoding: str = "utf-8", *, ascii_only: bool = True) -> str:
    return base64.b64encode(json.dumps(config, ensure_ascii=ascii_only).encode(encoding)).decode()


def decode(config: object, flavour: Flavour = Flavour.PYTHON) -> SandboxConfig:
    return decode_config(header(config), flavour)


def test_without_a_header_everything_has_its_default() -> None:
    assert decode_config(None, Flavour.PYTHON) == SandboxConfig()


def test_python_sends_escapes_and_javascript_latin_1() -> None:
    config = {"labels": {"who": "é"}}
    for text, flavour in (
        (header(config), Flavour.PYTHON),
        (header(config, "latin-1", ascii_only=False), Flavour.JAVASCRIPT),
        (header(config, "utf-8", ascii_only=False), Flavour.OTHER),
        (header(config, "latin-1", ascii_only=False), Flavour.OTHER),
    ):
        assert decode_config(text, flavour).labels == {"who": "é"}


def test_padding_alphabet_and_blanks_do_not_matter() -> None:
    text = header({"labels": {"k": "???>>>~~~"}})
    for variant in (text.rstrip("="), text.replace("+", "-").replace("/", "_"), f" {text} "):
        assert decode_config(variant, Flavour.PYTHON).labels == {"k": "???>>>~~~"}


def test_unknown_members_and_nulls_are_ignored() -> None:
    config = decode({"debug": True, "nonsense": [1], "labels": None, "memory_mb": None, "volumes": None})
    assert config == SandboxConfig()


def test_both_shapes_of_volumes() -> None:
    assert decode({"volumes": []}).mounts() == {}
    assert decode({"volumes": [{"volume": "v", "path": "/data"}]}).mounts() == {"/data": "v"}
    assert decode({"volumes": {"/data": "v"}}).mounts() == {"/data": "v"}


def test_one_path_for_two_volumes_is_refused() -> None:
    volumes = [{"volume": "a", "path": "/d"}, {"volume": "b", "path": "/d"}]
    with pytest.raises(InvalidRequest, match="/d"):
        decode({"volumes": volumes}).mounts()


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(None, None), ("session", None), ("30s", 30), ("5m", 300), ("90s", 90)]
)
def test_timeouts(timeout: str | None, seconds: int | None) -> None:
    assert decode({"timeout": timeout}).duration_s() == seconds


@pytest.mark.parametrize(
    "timeout", ["", "5", "5h", "-5s", "0s", "1.5m", "5ms", " 5s", "99999999999s", "\uff15s"]
)
def test_other_timeouts_are_refused(timeout: str) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        decode({"timeout": timeout}).duration_s()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"memory_mb": "2GiB"}, "memory_mb"),
        ({"memory_mb": 1.5}, "memory_mb"),
        ({"labels": {"a": 1}}, "labels"),
        ({"env": ["A=1"]}, "env"),
        ({"allow_net": "example.com"}, "allow_net"),
        ({"root": "v"}, "root"),
        ({"volumes": "v"}, "volumes"),
        ({"stop_at_ms": "soon"}, "stop_at_ms"),
        ([], "object"),
        (7, "object"),
    ],
)
def test_a_wrong_type_is_named(config: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        decode(config)


@pytest.mark.parametrize(
    "text", ["", "!", "e30", "AAAA", "e", base64.b64encode(b"[" * 5000).decode(), "\u00e9"]
)
def test_garbage_is_refused(text: str) -> None:
    if text == "e30":
        assert decode_config(text, Flavour.PYTHON) == SandboxConfig()
        return
    with pytest.raises(InvalidRequest, match="x-deno-sandbox-config"):
        decode_config(text, Flavour.PYTHON)


def test_a_header_that_is_too_long_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidRequest, match=str(MAX_HEADER_BYTES)):
        decode_config("A" * (MAX_HEADER_BYTES + 1), Flavour.PYTHON)


def test_a_large_environment_fits() -> None:
    environment = {f"V{number}": "x" * 100 for number in range(1000)}
    assert decode({"env": environment}).env == environment


def test_secrets_pass_with_whatever_members_they_have() -> None:
    secrets = {"KEY": {"hosts": ["a.example"], "value": "hunter2", "slots": ["header:x"], "unknown": [1]}}
    assert decode({"secrets": secrets}).secrets == secrets


def test_secret_values_are_in_no_text() -> None:
    config = decode(
        {"secrets": {"KEY": {"hosts": ["a.example"], "value": "hunter2"}}, "env": {"E": "hunter2"}}
    )
    assert "hunter2" not in repr(config)
    for broken in ("hunter2", ["hunter2"], {"KEY": "hunter2"}, {"KEY": ["hunter2"]}):
        with pytest.raises(InvalidRequest) as caught:
            decode({"secrets": broken})
        assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("agent", "flavour"),
    [
        ("Python/3.11 websockets/15.0.1", Flavour.PYTHON),
        (None, Flavour.JAVASCRIPT),
        ("curl/8", Flavour.OTHER),
        ("", Flavour.OTHER),
    ],
)
def test_flavours(agent: str | None, flavour: Flavour) -> None:
    assert flavour_of(agent) is flavour
