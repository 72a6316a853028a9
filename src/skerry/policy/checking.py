"""Members of rules as somebody wrote them, brought to the stored form. Pure."""

from collections.abc import Iterable

from skerry.policy import endpoints, paths, slots
from skerry.policy.names import BadPattern, Pattern
from skerry.policy.rules import NEVER_CARRY, is_method
from skerry.policy.shapes import each, inside
from skerry.spec.limits import MAX_PORT

MAX_HOSTS_OF_SECRET = 64
MAX_METHODS = 32
MAX_PORTS = 64

Problems = list[str]


def rule_host(text: str, where: str, problems: Problems, *, public_suffixes: bool = True) -> str | None:
    """The host of a rule; None when it is refused."""
    good = each(
        (text,),
        lambda one: endpoints.text_of(endpoints.rule_host(one, public_suffixes=public_suffixes)),
        inside(where, "host"),
        problems,
    )
    return good[0] if good else None


def ports(numbers: tuple[int, ...] | None, where: str, problems: Problems) -> tuple[int, ...] | None:
    """Ports of a rule, sorted."""
    if numbers is None:
        return None
    if len(numbers) > MAX_PORTS:
        problems.append(f"{inside(where, 'ports')}: at most {MAX_PORTS}; [] means any but those of mail")
    for one in numbers:
        if not 1 <= one <= MAX_PORT:
            problems.append(f"{inside(where, 'ports')}: a port is a number from 1 to {MAX_PORT}")
            break
    return tuple(sorted(set(numbers)))


def methods(
    texts: tuple[str, ...] | None, where: str, problems: Problems, *, of_secret: bool = False
) -> tuple[str, ...] | None:
    """HTTP methods, in upper case, without repetitions."""
    place = inside(where, "methods")
    if texts is None:
        return None
    if not texts or len(texts) > MAX_METHODS:
        problems.append(f"{place}: name 1 to {MAX_METHODS} methods, or leave it out")
        return None
    good = tuple(dict.fromkeys(each(texts, _method, place, problems)))
    if of_secret and (never := sorted(NEVER_CARRY.intersection(good))):
        problems.append(f"{place}: a request with {', '.join(never)} never carries a secret")
    if "CONNECT" in good and not of_secret:
        problems.append(f"{place}: CONNECT is never let through")
    return good


def _method(text: str) -> str:
    if not text.isascii() or not is_method(text.upper()):
        raise BadPattern("not the name of an HTTP method")
    return text.upper()


def path_patterns(texts: tuple[str, ...] | None, where: str, problems: Problems) -> tuple[str, ...] | None:
    """Path patterns, as they were written."""
    place = inside(where, "paths")
    if texts is None:
        return None
    if not texts or len(texts) > paths.MAX_PATTERNS:
        problems.append(f"{place}: name 1 to {paths.MAX_PATTERNS} paths, or leave it out")
        return None
    return tuple(dict.fromkeys(each(texts, lambda one: paths.parse(one).text, place, problems)))


def slot_texts(texts: tuple[str, ...], where: str, problems: Problems) -> tuple[str, ...]:
    """Slots in the stored form."""
    place = inside(where, "slots")
    if len(texts) > slots.MAX_SLOTS:
        problems.append(f"{place}: at most {slots.MAX_SLOTS} are allowed")
        return ()
    return tuple(dict.fromkeys(each(texts, lambda one: slots.parse(one).text, place, problems)))


def secret_hosts(texts: Iterable[str], where: str, problems: Problems) -> tuple[str, ...]:
    """Hosts that a secret is bound to."""
    place = inside(where, "hosts")
    given = tuple(texts)
    if not given:
        problems.append(f"{place}: name at least one host that the secret may be sent to")
    if len(given) > MAX_HOSTS_OF_SECRET:
        problems.append(f"{place}: at most {MAX_HOSTS_OF_SECRET} are allowed")
        return ()
    return tuple(dict.fromkeys(each(given, _secret_host, place, problems)))


def _secret_host(text: str) -> str:
    host, port = endpoints.endpoint(text)
    if not isinstance(host, Pattern):
        raise BadPattern(
            "a secret is bound to host names, whose certificates can be checked, not to addresses"
        )
    if port == 80:
        raise BadPattern("secrets are never sent without TLS, and port 80 has none")
    return endpoints.endpoint_text(host, port)


def name_of_secret(name: str) -> str | None:
    """What is wrong with the name of a secret; None when it is good."""
    if not name.isascii() or not name.replace("_", "a").isalnum() or name[:1].isdigit() or len(name) > 128:
        return "the name of a secret is that of an environment variable: letters, digits and _, at most 128"
    return None
