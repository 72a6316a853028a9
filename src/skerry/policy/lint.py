"""What is allowed but probably not meant (G54). Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skerry.policy import endpoints
from skerry.policy.credential_headers import is_credential_header
from skerry.policy.document import AllowRule, PolicyDocument, SecretBinding, SecretRule, TlsChoice
from skerry.policy.names import BadPattern, Pattern
from skerry.policy.rules import MAIL_PORTS
from skerry.policy.shared_fronts import is_shared_front
from skerry.policy.slots import SlotKind
from skerry.policy.slots import parse as parse_slot
from skerry.policy.suffixes import is_multi_tenant

_EVERYTHING = "/**"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to think about.

    Attributes:
        where: Such as ``allow[0].tls``.
        name: Stable, for programs.
    """

    where: str
    name: str
    text: str


def lint(document: PolicyDocument) -> list[Finding]:
    """Look through a document in the stored form."""
    found: list[Finding] = []
    for at, rule in enumerate(document.allow):
        found += _rule(rule, f"allow[{at}]")
        found += _shadowed(rule, document, f"allow[{at}]")
    for at, binding in enumerate(document.secrets or ()):
        found += _secret(binding, f"secrets[{at}]", document)
    if document.default == "public" and document.allow:
        found.append(
            Finding(
                "default",
                "public-with-rules",
                "hosts that no rule names are allowed too; a rule here only limits the host that it names",
            )
        )
    return found


def lint_secrets(secrets: Sequence[SecretRule]) -> list[Finding]:
    """Look through the secrets of a create."""
    found: list[Finding] = []
    for rule in secrets:
        where = f"secrets.{rule.name}"
        found += _secret_hosts(rule.hosts, where)
        found += _limits(rule.methods, rule.paths, rule.slots, where)
        if rule.scrub == "off":
            found.append(
                Finding(f"{where}.scrub", "no-scrub", "answers that repeat the secret reach the sandbox")
            )
        if rule.foreign_credentials == "allow":
            found.append(
                Finding(
                    f"{where}.foreign_credentials",
                    "foreign-credentials",
                    "code in the sandbox can use an account of its own on these hosts, and carry data there",
                )
            )
    return found


def _rule(rule: AllowRule, where: str) -> Iterator[Finding]:
    host = endpoints.stored_host(rule.host)
    yield from _names(host, f"{where}.host")
    spliced = rule.tls is TlsChoice.SPLICE
    if isinstance(host, Pattern) and spliced and (host.wildcard or is_shared_front(host.name)):
        yield Finding(
            f"{where}.tls",
            "splice-on-shared-front",
            "its servers may answer for other names inside spliced TLS, and nothing can see that",
        )
    if rule.ports is not None and (not rule.ports or 80 in rule.ports) and rule.credentials == "any":
        yield Finding(
            f"{where}.ports",
            "credentials-without-tls",
            'port 80 has no TLS: credentials can be read on the way; think of credentials = "none"',
        )
    if MAIL_PORTS.intersection(rule.ports or ()):
        yield Finding(f"{where}.ports", "mail", "code in the sandbox can send mail")
    if rule.tcp and isinstance(host, Pattern) and host.wildcard:
        yield Finding(
            f"{where}.tcp", "tcp-on-wildcard", "raw bytes to any host below the name; name the hosts"
        )
    if not isinstance(host, Pattern) and host.num_addresses > 65_536:
        yield Finding(f"{where}.host", "wide-prefix", f"this has {host.num_addresses} addresses")


def _names(host: Pattern | endpoints.Network, where: str) -> Iterator[Finding]:
    if not isinstance(host, Pattern):
        return
    try:
        written = endpoints.rule_host(host.text, public_suffixes=False)
    except BadPattern:
        return
    if isinstance(written, Pattern):
        for text in written.warnings:
            yield Finding(where, "confusable", text)
    if host.wildcard and is_multi_tenant(host.name):
        yield Finding(
            where,
            "multi-tenant",
            f"names below {host.name} belong to one customer of a provider; is it yours?",
        )


def _shadowed(rule: AllowRule, document: PolicyDocument, where: str) -> Iterator[Finding]:
    for at, deny in enumerate(document.deny):
        if deny.host == rule.host and not deny.ports:
            yield Finding(where, "denied", f"deny[{at}] forbids it whatever is allowed")


def _secret(binding: SecretBinding, where: str, document: PolicyDocument) -> Iterator[Finding]:
    yield from _secret_hosts(binding.hosts, where)
    yield from _limits(binding.methods, binding.paths, binding.slots, where)
    if binding.paths is None:
        yield Finding(f"{where}.paths", "all-paths", "without paths the secret may be used for every path")
    for at, rule in enumerate(document.allow):
        if rule.tls is TlsChoice.SPLICE and any(_same_host(text, rule.host) for text in binding.hosts):
            yield Finding(
                f"allow[{at}].tls",
                "splice-on-bound-host",
                f"{binding.name} is bound to this host, so it is inspected nevertheless",
            )


def _secret_hosts(hosts: Sequence[str], where: str) -> Iterator[Finding]:
    for text in hosts:
        host, _ = endpoints.endpoint(text, stored=True)
        yield from _names(host, f"{where}.hosts")
        if isinstance(host, Pattern) and host.wildcard:
            yield Finding(
                f"{where}.hosts", "wildcard-secret", f"the secret may be sent to any host below {host.name}"
            )


def _limits(
    methods: tuple[str, ...] | None, paths: tuple[str, ...] | None, slots: tuple[str, ...], where: str
) -> Iterator[Finding]:
    if paths is not None and _EVERYTHING in paths:
        yield Finding(f"{where}.paths", "all-paths", "with /** the secret may be used for every path")
    if methods is not None and "HEAD" in methods and "GET" not in methods:
        yield Finding(f"{where}.methods", "head-without-get", "HEAD is named, GET is not")
    for text in slots:
        slot = parse_slot(text)
        if slot.kind in (SlotKind.QUERY, SlotKind.PATH):
            yield Finding(
                f"{where}.slots", "secret-in-url", f"{text}: URLs end up in logs and redirects of the origin"
            )
        elif slot.kind is SlotKind.HEADER and not is_credential_header(slot.field):
            yield Finding(
                f"{where}.slots",
                "unusual-header",
                f"{text}: not one of the headers that usually hold a credential; is the name right?",
            )


def _same_host(endpoint_text: str, rule_host: str) -> bool:
    host, _ = endpoints.endpoint(endpoint_text, stored=True)
    return endpoints.text_of(host) == rule_host
