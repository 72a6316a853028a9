"""Settings: precedence, and every problem at once."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from skerry.cli.settings import BadSettings, resolve
from skerry.cli.settings_page import page
from skerry.cli.settings_table import TABLE
from skerry.main import build
from skerry.spec.settings import (
    EgressLimits,
    EgressSettings,
    InternalNetwork,
    PoolSettings,
    SandboxLimits,
    Settings,
)

HERE = Path(__file__).parents[3]
FALLBACKS: dict[str, Any] = {"data_dir": "/var/lib/skerry"}


def resolved(
    tmp_path: Path,
    *,
    text: str | None = None,
    env: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> Settings:
    """Resolve with a file of this text."""
    config = None
    if text is not None:
        config = tmp_path / "skerry.toml"
        config.write_text(text)
    return resolve(flags=flags or {}, env=env or {}, config=config, fallbacks=FALLBACKS)


def problems(tmp_path: Path, **given: Any) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(BadSettings) as caught:
        resolved(tmp_path, **given)
    return caught.value.problems


def test_defaults_are_those_of_the_structs(tmp_path: Path) -> None:
    assert resolved(tmp_path) == Settings(data_dir="/var/lib/skerry")


def test_each_source_beats_the_next(tmp_path: Path) -> None:
    text, env, flags = 'listen = "127.0.0.1:1"', {"SKERRY_LISTEN": "127.0.0.1:2"}, {"listen": "127.0.0.1:3"}
    assert resolved(tmp_path, text=text).listen == "127.0.0.1:1"
    assert resolved(tmp_path, text=text, env=env).listen == "127.0.0.1:2"
    assert resolved(tmp_path, text=text, env=env, flags=flags).listen == "127.0.0.1:3"


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert resolved(tmp_path, text='region = "ams"', env={"SKERRY_REGION": ""}).region == "ams"


def test_tables_units_and_words(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        text="""
            reattach_window_s = "2m"
            [sandbox]
            default_memory_mib = "2GiB"
            max_lifetime_s = "30m"
            cpus = 1
            [pool]
            size = 0
            [images]
            "my:image" = "/srv/image.erofs"
        """,
        env={"SKERRY_POOL_MAX_AGE_S": "90", "SKERRY_ALLOW_REMOTE": "yes"},
    )
    assert found.reattach_window_s == 120.0
    assert found.sandbox == SandboxLimits(default_memory_mib=2048, max_lifetime_s=1800, cpus=1.0)
    assert found.pool == PoolSettings(size=0, max_age_s=90)
    assert found.images == {"my:image": "/srv/image.erofs"}
    assert found.allow_remote


def test_the_gateways_settings(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        text="""
            [egress]
            resolvers = ["192.0.2.53:53", "[2001:DB8::53]:5353"]
            extra_roots = ["/etc/company.pem"]
            upstream_proxy = "Proxy.example:3128"
            trust_host_roots = true
            policy = "/etc/skerry/policy.toml"
            default_policy = "team-a"
            [[egress.internal]]
            names = ["git.corp", "*.Corp.example"]
            cidr = ["10.1.0.0/16", "fd00::/8"]
            [[egress.internal]]
            cidr = ["192.168.7.7/32"]
            [egress.limits]
            connections = 8
            idle_s = "2m"
            worker_memory_mib = "1GiB"
        """,
        env={"SKERRY_EGRESS_LIMITS_NAMES": "10"},
    )
    assert found.egress == EgressSettings(
        resolvers=("192.0.2.53:53", "[2001:db8::53]:5353"),
        extra_roots=("/etc/company.pem",),
        internal=(
            InternalNetwork(names=("git.corp", "*.corp.example"), cidr=("10.1.0.0/16", "fd00::/8")),
            InternalNetwork(names=(), cidr=("192.168.7.7/32",)),
        ),
        upstream_proxy="proxy.example:3128",
        trust_host_roots=True,
        policy="/etc/skerry/policy.toml",
        default_policy="team-a",
        limits=EgressLimits(connections=8, idle_s=120.0, worker_memory_mib=1024, names=10),
    )


def test_lists_as_text_and_the_hosts_own_resolvers(tmp_path: Path) -> None:
    env = {"SKERRY_EGRESS_RESOLVERS": "192.0.2.1:53, 192.0.2.2:53", "SKERRY_EGRESS_EXTRA_ROOTS": "/a,/b"}
    assert resolved(tmp_path, env=env).egress.resolvers == ("192.0.2.1:53", "192.0.2.2:53")
    assert resolved(tmp_path, env=env).egress.extra_roots == ("/a", "/b")
    fallbacks = {**FALLBACKS, "egress.resolvers": ("192.0.2.9:53",)}
    for given, expected in ((env, "192.0.2.1:53"), ({}, "192.0.2.9:53")):
        found = resolve(flags={}, env=given, config=None, fallbacks=fallbacks)
        assert found.egress.resolvers[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('resolvers = ["dns.example:53"]', "an IP address and a port"),
        ('resolvers = ["192.0.2.1"]', "an IP address and a port"),
        ('resolvers = ["2001:db8::1:53"]', "an IP address and a port"),
        ('resolvers = ["192.0.2.1:0"]', "an IP address and a port"),
        ("resolvers = [1]", "an IP address and a port"),
        ("resolvers = 1", "addresses and ports"),
        ('extra_roots = ["company.pem"]', "an absolute path"),
        ('upstream_proxy = "http://proxy.example:3128"', "a host"),
        ('upstream_proxy = "proxy.example"', "a host and a port"),
        ('policy = "policy.toml"', "an absolute path"),
        ('default_policy = "Team A"', "a policy's name"),
        ('trust_host_roots = "maybe"', "true or false"),
        ("internal = 1", "tables with names"),
        ("internal = [1]", "tables with names"),
        ('internal = [{names = ["a.example"]}]', "tables with names"),
        ('internal = [{names = ["a.example"], cidr = ["10.0.0.0/8"], port = 1}]', "tables with names"),
        ('internal = [{names = ["*.*.example"], cidr = []}]', "a host name"),
        ('internal = [{names = ["bad_name"], cidr = []}]', "a host name"),
        ("internal = [{names = [1], cidr = []}]", "a host name"),
        ('internal = [{cidr = ["10.1.2.3/8"]}]', "a network prefix"),
        ('internal = [{cidr = ["corp"]}]', "a network prefix"),
        ("limits = 1", "there is no such setting"),
        ("limits.connections = 0", "a whole number"),
        ("limits.unknown = 1", "key egress.limits.unknown: there is no such setting"),
    ],
)
def test_wrong_settings_of_the_gateway(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, text=f"[egress]\n{text}")
    assert expected in found


def test_all_problems_are_reported_together_with_place_and_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        text='region = "Berlin"\nsize = 3\n[pool]\nsize = -1\nbig = 1\n[sandboxes]\ncpus = 1',
        env={"SKERRY_LISTEN": "nowhere", "SKERRY_TYPO": "1"},
        flags={"data_dir": "relative"},
    )
    told = "\n".join(found)
    file = tmp_path / "skerry.toml"
    for part in (
        f"{file}, key region: 'Berlin' is wrong",
        f"{file}, key size: there is no such setting",
        f"{file}, key pool.size: -1 is wrong",
        f"{file}, key pool.big: there is no such setting",
        f"{file}, key sandboxes: there is no such setting",
        "environment variable SKERRY_LISTEN: 'nowhere' is wrong",
        "environment variable SKERRY_TYPO: there is no such setting",
        "flag --data-dir: 'relative' is wrong",
    ):
        assert part in told
    assert len(found) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('listen = "0.0.0.0:80"', "--allow-remote"),
        ('listen = "[::]:80"', "--allow-remote"),
        ('isolation = "fake"', "test_drivers"),
        ("[sandbox]\nmin_memory_mib = 2048\nmax_memory_mib = 1024", "more than sandbox.max_memory_mib"),
        ("[sandbox]\ndefault_memory_mib = 512", "outside of what is accepted, 768"),
    ],
)
def test_values_that_contradict_each_other(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, text=text)
    assert expected in found


@pytest.mark.parametrize("text", ["= 1", "a = 1\na = 2", "\x00", 'x = "' + "a" * (1 << 20) + '"'])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text=text)
    assert "not a TOML file" in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(BadSettings, match="cannot be read"):
        resolve(flags={}, env={}, config=missing, fallbacks=FALLBACKS)


def test_images_are_added_to_those_of_set_up(tmp_path: Path) -> None:
    config = tmp_path / "skerry.toml"
    config.write_text('[images]\nmine = "/m"\n')
    fallbacks = {**FALLBACKS, "images": {"builtin:debian-13": "/b"}}
    found = resolve(flags={}, env={}, config=config, fallbacks=fallbacks)
    assert found.images == {"builtin:debian-13": "/b", "mine": "/m"}


def test_the_table_has_every_setting_once() -> None:
    tables: dict[str, type[msgspec.Struct]] = {
        "": Settings,
        "sandbox": SandboxLimits,
        "pool": PoolSettings,
        "egress": EgressSettings,
        "egress.limits": EgressLimits,
    }
    fields = [
        f"{table}.{field.name}".removeprefix(".")
        for table, struct in tables.items()
        for field in msgspec.structs.fields(struct)
    ]
    assert sorted(row.key for row in TABLE) == sorted(set(fields) - tables.keys())


def test_the_reference_page_is_current() -> None:
    assert (HERE / "docs" / "settings.md").read_text() == page()


def test_flags_of_the_table_are_those_of_up() -> None:
    command = typer.main.get_command(build())
    assert isinstance(command, typer.core.TyperGroup)
    options = {option for parameter in command.commands["up"].params for option in parameter.opts}
    flags = {row.flag for row in TABLE if row.flag}
    assert flags == options - {"--detach", "-d", "--config", "--json"}
