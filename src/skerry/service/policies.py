"""Named policies: who may set them, and which one a new sandbox goes by.

A policy belongs to an owner, or is shared: then sandboxes of every owner may choose it. The scope ``admin``
sets and deletes, because a policy is what bounds those who hold the other tokens; every token may read what
its owner's sandboxes can choose. No policy can widen what the operator's own allows, which is a file among
the settings.
"""

import builtins
import re

from skerry.control.clock import Clock
from skerry.control.control import Control
from skerry.control.store.policies import PolicyStore
from skerry.control.store.records import SHARED, PolicyRecord, PolicyRef
from skerry.errors import Conflict, HostUnusable, InvalidRequest, NotFound
from skerry.policy.document import PolicyDocument
from skerry.service.requests import PolicySet, PolicyView, Principal
from skerry.service.tokens import ADMIN, SANDBOX, require
from skerry.spec.ids import OwnerId
from skerry.spec.limits import MAX_POLICY_NAME_BYTES

LABEL = "policy"
"""The label of a sandbox that names its policy."""

_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9._-]{{0,{MAX_POLICY_NAME_BYTES - 1}}})", re.ASCII)


class Policies:
    """The policies of all owners."""

    def __init__(self, store: PolicyStore, control: Control, clock: Clock, *, default: str) -> None:
        self._store = store
        self._control = control
        self._clock = clock
        self._default = default

    async def set(
        self,
        who: Principal,
        name: str,
        document: PolicyDocument,
        *,
        owner: str | None = None,
        shared: bool = False,
    ) -> PolicySet:
        """Make or replace a policy; running sandboxes go by it when this returns.

        Args:
            owner: Whose; the caller's when it is None.
            shared: Every owner's.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
            InvalidRequest: The name is not allowed.
            ResourceExhausted: There are too many.
        """
        require(who, ADMIN)
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"a policy's name has 1 to {MAX_POLICY_NAME_BYTES} characters out of a-z, 0-9, . _ and -, "
                "and begins with a letter or digit"
            )
        ref = _ref(who, name, owner, shared=shared)
        record = await self._store.put(ref, document, now_ms=self._clock.now_ms())
        affected = await self._control.policy_changed(ref, record.version)
        return PolicySet(policy=view_of(record), sandboxes=affected)

    async def get(
        self, who: Principal, name: str, *, owner: str | None = None, shared: bool = False
    ) -> PolicyView:
        """The policy that a sandbox with this label would go by; or that very one.

        Raises:
            Forbidden: Another owner's was asked for, without the scope ``admin``.
            NotFound: Code ``POLICY_NOT_FOUND``.
        """
        require(who, ADMIN if _is_foreign(who, owner) else SANDBOX)
        if shared:
            record = await self._store.get(PolicyRef(SHARED, name))
        else:
            record = await self._store.find(OwnerId(owner) if owner else who.owner, name)
        if record is None:
            raise NotFound("there is no such policy", code="POLICY_NOT_FOUND")
        return view_of(record)

    async def list(self, who: Principal, *, all_owners: bool = False) -> builtins.list[PolicyView]:
        """Those that the caller's sandboxes can choose, by name.

        Raises:
            Forbidden: Everybody's were asked for, without the scope ``admin``.
        """
        require(who, ADMIN if all_owners else SANDBOX)
        return [view_of(one) for one in await self._store.of_owner(None if all_owners else who.owner)]

    async def delete(
        self, who: Principal, name: str, *, owner: str | None = None, shared: bool = False
    ) -> None:
        """Remove a policy that nothing goes by.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
            NotFound: Code ``POLICY_NOT_FOUND``.
            Conflict: Running sandboxes or tokens go by it, or it is the server's default.
        """
        require(who, ADMIN)
        ref = _ref(who, name, owner, shared=shared)
        if ref == PolicyRef(SHARED, self._default):
            raise Conflict("this is the server's default policy: change egress.default_policy first")
        await self._store.delete(ref)

    async def chosen(self, who: Principal, label: str | None) -> PolicyRecord | None:
        """The policy of a sandbox that is being made: by its label, else its token's, else the server's.

        Raises:
            InvalidRequest: The label names none; the message has those that there are.
            Conflict: The token's is gone.
            HostUnusable: The server's is not there.
        """
        name = label if label is not None else who.policy or self._default
        if not name and label is None:
            return None
        record = await self._store.find(who.owner, name)
        if record is not None:
            return record
        if label is not None:
            raise InvalidRequest(
                f"labels: policy: there is no policy {_quoted(name)}; {await self._names(who.owner)}",
                code="INVALID_SANDBOX_CONFIG",
            )
        if who.policy:
            raise Conflict(
                f"this token's policy {name!r} does not exist for its owner: ask the operator to set it",
                code="POLICY_NOT_FOUND",
            )
        raise HostUnusable(
            f"the server's default policy {name!r} does not exist: set it by "
            f"`skerry policy set {name} FILE --shared`, or change egress.default_policy",
            code="POLICY_NOT_FOUND",
        )

    async def check_of_token(self, owner: OwnerId, name: str) -> None:
        """A token is to have this policy as its default.

        Raises:
            InvalidRequest: There is none; the message has those that there are.
        """
        if await self._store.find(owner, name) is None:
            raise InvalidRequest(
                f"policy: there is no policy {_quoted(name)} for {owner}; {await self._names(owner)}"
            )

    async def _names(self, owner: OwnerId) -> str:
        names = sorted({one.name for one in await self._store.of_owner(owner)})
        return f"there are: {', '.join(names[:50])}" if names else "there are none yet (`skerry policy set`)"


def view_of(record: PolicyRecord) -> PolicyView:
    """What is shown of a policy."""
    return PolicyView(
        name=record.name,
        owner=None if record.owner == SHARED else record.owner,
        shared=record.owner == SHARED,
        version=record.version,
        updated_at_ms=record.updated_at_ms,
        document=record.document,
    )


def _ref(who: Principal, name: str, owner: str | None, *, shared: bool) -> PolicyRef:
    if shared and owner is not None:
        raise InvalidRequest("a shared policy has no owner: give one of the two")
    if shared:
        return PolicyRef(SHARED, name)
    return PolicyRef(OwnerId(owner) if owner else who.owner, name)


def _is_foreign(who: Principal, owner: str | None) -> bool:
    return owner is not None and owner != who.owner


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")
