"""What a second grant of a sandbox keeps of the first."""

from msgspec import structs

from skerry.egress.broker.granting import held_for
from skerry.policy.document import PolicyDocument, SecretRule
from skerry.protocol.egress_verbs import Grant, NamedLayer, SecretGrant
from skerry.spec.ids import OwnerId, SandboxId

VALUE = b"a value of some length"
RULE = SecretRule(name="KEY", hosts=("api.example",))


def grant(secret: SecretGrant) -> Grant:
    """Of one sandbox."""
    return Grant(
        sandbox_id=SandboxId("sbx_ord_00000000000000000000"),
        owner=OwnerId("owner"),
        layers=(NamedLayer(name="sandbox", document=PolicyDocument()),),
        secrets=(secret,),
    )


def test_a_value_that_api_has_forgotten_is_kept_with_its_rule() -> None:
    first = held_for(grant(SecretGrant(rule=RULE, value=VALUE)), None)
    again = SecretGrant(rule=RULE, value=None, placeholder=first.secrets[0].placeholder)

    (kept,) = held_for(grant(again), first).secrets

    assert (kept.value, kept.state) == (VALUE, "active")


def test_a_value_is_not_kept_for_another_host() -> None:
    first = held_for(grant(SecretGrant(rule=RULE, value=VALUE)), None)
    wider = SecretGrant(
        rule=structs.replace(RULE, hosts=("elsewhere.example",)),
        value=None,
        placeholder=first.secrets[0].placeholder,
    )

    (kept,) = held_for(grant(wider), first).secrets

    assert (kept.value, kept.state) == (None, "lost")
