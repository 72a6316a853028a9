"""`--allow-net` and `--secret` of `skerry create` and `skerry run`."""

from typing import Annotated, Any

import typer

from skerry.cli.output import usage_error

AllowNetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-net",
        metavar="HOST[,HOST...]",
        help="It may reach only these (name, *.name or address, each with an optional :port) and the hosts "
        "of secrets; may be repeated. Default: the public internet.",
    ),
]

SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME@HOST[,HOST...]",
        help="A secret for these hosts, whose value never enters the sandbox: it is read from the "
        "environment variable NAME here, else from standard input; may be repeated.",
    ),
]


def network_config(allow_net: list[str] | None, secret: list[str] | None) -> dict[str, Any]:
    """The members of a create header that say what a sandbox may reach."""
    config: dict[str, Any] = {}
    if allow_net:
        config["allow_net"] = [host for text in allow_net for host in _listed(text)]
    hosts = _hosts_of_secrets(secret or [])
    if hosts:
        from skerry.cli.secret_values import values_of

        values = values_of(list(hosts))
        config["secrets"] = {name: {"hosts": of, "value": values[name]} for name, of in hosts.items()}
    return config


def _hosts_of_secrets(texts: list[str]) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for text in texts:
        name, separator, listed = text.partition("@")
        if not name or not separator or not _listed(listed):
            # Not repeated: it may be a value that was put here by mistake.
            usage_error("--secret: expected NAME@HOST, such as OPENAI_API_KEY@api.openai.com")
        hosts.setdefault(name, []).extend(_listed(listed))
    return hosts


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
