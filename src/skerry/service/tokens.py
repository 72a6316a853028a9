"""Bearer tokens: minting, verification, revocation."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skerry.control.clock import Clock
from skerry.control.store.records import TokenRecord
from skerry.control.store.tokens import TokenStore
from skerry.errors import Forbidden, InvalidRequest, Unauthenticated
from skerry.service.requests import Principal, TokenView
from skerry.spec.ids import ALPHABET, OwnerId, TokenId
from skerry.spec.limits import MAX_LIFETIME_S, MAX_OWNER_BYTES, MAX_TOKEN_NAME_BYTES

SANDBOX, ADMIN = "sandbox", "admin"
SCOPES = frozenset({SANDBOX, ADMIN})

PREFIX = "ddo_"
"""The official JavaScript SDK asks for an organisation with any other prefix."""

SECRET_CHARACTERS = 40
"""About 200 random bits, so that a plain hash of it is as good as a slow one."""

MAX_BEARER_CHARACTERS = 512
MAX_CACHED = 1024

FIRST_OWNER = OwnerId("local")


class Tokens:
    """Who may do what. Verified tokens are remembered; revoking one here forgets it at once."""

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[str, TokenRecord] = OrderedDict()
        self._revoked_in_flight = 0
        self._revoked: set[TokenId] = set()
        self._in_use: dict[TokenId, set[Callable[[], None]]] = {}

    async def authenticate(self, bearer: str | None) -> Principal:
        """Say whose token this is.

        Raises:
            Unauthenticated: None, unknown, revoked or expired; the code tells which of the first and the
            last.
        """
        if not bearer:
            raise Unauthenticated(
                "no token was sent: set DENO_DEPLOY_TOKEN, for instance by `skerry env`",
                code="NOT_AUTHENTICATED",
            )
        if len(bearer) > MAX_BEARER_CHARACTERS:
            raise _unknown()
        record = await self._look_up(_sha256(bearer))
        if record.expires_at_ms is not None and record.expires_at_ms <= self._clock.now_ms():
            raise Unauthenticated(
                "the token has expired; make another with `skerry token create`", code="TOKEN_EXPIRED"
            )
        return Principal(
            token_id=record.token_id,
            owner=record.owner,
            scopes=frozenset(record.scopes),
            max_running=record.max_running,
            policy=record.policy,
        )

    async def create(
        self,
        who: Principal,
        *,
        name: str,
        owner: str | None,
        scopes: tuple[str, ...],
        expires_in_s: int | None,
        max_running: int | None,
        policy: str | None = None,
    ) -> tuple[TokenView, str]:
        """Make a token; its value is returned here and never again.

        Raises:
            InvalidRequest: Something about it is not allowed.
            ResourceExhausted: There are too many.
        """
        _check(name, owner, scopes, expires_in_s, max_running)
        now_ms = self._clock.now_ms()
        record, value = _mint(
            owner=OwnerId(owner) if owner is not None else who.owner,
            name=name,
            scopes=scopes,
            now_ms=now_ms,
            expires_at_ms=None if expires_in_s is None else now_ms + expires_in_s * 1000,
            max_running=max_running,
            policy=policy,
        )
        await self._store.insert(record)
        return _view(record), value

    async def ensure_first(self) -> str | None:
        """Make the first token, with all rights, if there is none yet; else None."""
        record, value = _mint(
            owner=FIRST_OWNER,
            name="first",
            scopes=(SANDBOX, ADMIN),
            now_ms=self._clock.now_ms(),
            expires_at_ms=None,
            max_running=None,
        )
        return value if await self._store.insert_first(record) else None

    async def list(self) -> "list[TokenView]":
        """Every token of every owner, newest first."""
        return [_view(record) for record in await self._store.all()]

    async def revoke(self, token_id: TokenId) -> None:
        """Make a token worthless from now on, and end what goes on by it. What was made with it stays.

        Raises:
            NotFound: There is no such token.
        """
        await self._store.revoke(token_id, now_ms=self._clock.now_ms())
        self._revoked_in_flight += 1
        self._revoked.add(token_id)
        for sha256, record in list(self._cache.items()):
            if record.token_id == token_id:
                del self._cache[sha256]
        for end in list(self._in_use.get(token_id, ())):
            end()

    @contextmanager
    def in_use(self, token_id: TokenId, end: Callable[[], None]) -> Iterator[None]:
        """Something that outlives its request goes on by a token, as long as the block lasts.

        Args:
            end: Called when the token is revoked; must not wait.

        Raises:
            Unauthenticated: It was revoked since the request was let in.
        """
        if token_id in self._revoked:
            raise _unknown()
        users = self._in_use.setdefault(token_id, set())
        users.add(end)
        try:
            yield
        finally:
            users.discard(end)
            if not users and self._in_use.get(token_id) is users:
                del self._in_use[token_id]

    async def _look_up(self, sha256: str) -> TokenRecord:
        cached = self._cache.get(sha256)
        if cached is not None:
            self._cache.move_to_end(sha256)
            return cached
        revocations = self._revoked_in_flight
        record = await self._store.by_hash(sha256)
        if record is None or record.revoked_at_ms is not None:
            raise _unknown()
        if revocations == self._revoked_in_flight:
            # Else this one may have been revoked after it was read, and must not be remembered.
            self._cache[sha256] = record
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return record


def require(who: Principal, scope: str) -> None:
    """Check that a token may do this.

    Raises:
        Forbidden: It may not.
    """
    if scope not in who.scopes:
        raise Forbidden(
            f"this token lacks the scope {scope!r}; make one with `skerry token create --scope {scope}`"
        )


def _sha256(bearer: str) -> str:
    return hashlib.sha256(bearer.encode("utf-8", "surrogatepass")).hexdigest()


def _unknown() -> Unauthenticated:
    return Unauthenticated("the token is not valid: it is unknown here, or was revoked")


def _mint(
    *,
    owner: OwnerId,
    name: str,
    scopes: tuple[str, ...],
    now_ms: int,
    expires_at_ms: int | None,
    max_running: int | None,
    policy: str | None = None,
) -> tuple[TokenRecord, str]:
    value = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARACTERS))
    record = TokenRecord(
        token_id=TokenId("tok_" + "".join(secrets.choice(ALPHABET) for _ in range(12))),
        sha256=_sha256(value),
        owner=owner,
        name=name,
        scopes=scopes,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        revoked_at_ms=None,
        max_running=max_running,
        policy=policy,
    )
    return record, value


def _check(
    name: str, owner: str | None, scopes: tuple[str, ...], expires_in_s: int | None, max_running: int | None
) -> None:
    problems = []
    if not name.isprintable() or not 0 < len(name.encode("utf-8", "replace")) <= MAX_TOKEN_NAME_BYTES:
        problems.append(f"name: 1 to {MAX_TOKEN_NAME_BYTES} bytes of printable text")
    if owner is not None and not (_is_plain(owner) and len(owner) <= MAX_OWNER_BYTES):
        problems.append(f"owner: 1 to {MAX_OWNER_BYTES} characters out of letters, digits, - _ . @")
    if not scopes or not set(scopes) <= SCOPES or len(set(scopes)) != len(scopes):
        problems.append(f"scopes: one or more out of {', '.join(sorted(SCOPES))}, each once")
    if expires_in_s is not None and not 0 < expires_in_s <= MAX_LIFETIME_S:
        problems.append(f"expires_in_s: 1 to {MAX_LIFETIME_S}")
    if max_running is not None and not 0 < max_running <= 1_000_000:
        problems.append("max_running: 1 to 1000000")
    if problems:
        raise InvalidRequest("; ".join(problems))


def _is_plain(text: str) -> bool:
    return text.isascii() and bool(text) and all(one.isalnum() or one in "-_.@" for one in text)


def _view(record: TokenRecord) -> TokenView:
    return TokenView(
        token_id=record.token_id,
        owner=record.owner,
        name=record.name,
        scopes=record.scopes,
        created_at_ms=record.created_at_ms,
        expires_at_ms=record.expires_at_ms,
        revoked_at_ms=record.revoked_at_ms,
        max_running=record.max_running,
        policy=record.policy,
    )
