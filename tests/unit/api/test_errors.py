"""The table from errors to statuses, codes and error objects."""

import pytest

from skerry import errors
from skerry.api.deno.errors import error_object_of, http_status, sdk_status_and_code


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest("x"), 400), (errors.SandboxEnded("killed"), 400),
        (errors.Unauthenticated("x"), 401), (errors.Forbidden("x"), 403), (errors.NotFound("x"), 404),
        (errors.Conflict("x"), 409), (errors.ResourceExhausted("x"), 429), (errors.RuntimeFailed("x"), 500),
        (errors.NotSupported("x"), 501), (errors.GuestUnreachable("x"), 502),
        (errors.AgentError("EIO", "x"), 502), (errors.HostUnusable("x"), 503), (errors.TimedOut("x", 1), 504),
        (errors.SkerryError("x"), 500),
    ],
)  # fmt: skip
def test_every_family_has_a_status(error: errors.SkerryError, status: int) -> None:
    assert http_status(error) == status


def test_no_family_is_forgotten() -> None:
    families = [one for one in errors.SkerryError.__subclasses__() if one.__module__ == errors.__name__]
    mapped = {one for one in families if http_status(one.__new__(one)) != 500}
    assert set(families) - mapped == {errors.RuntimeFailed}


@pytest.mark.parametrize("code", ["NOT_AUTHENTICATED", "TOKEN_EXPIRED", "INVALID_TOKEN"])
def test_both_sdks_know_a_bad_token(code: str) -> None:
    for opening in (True, False):
        error = errors.Unauthenticated("x", code=code)
        assert sdk_status_and_code(error, opening=opening) == (401, "INVALID_TOKEN")


def test_a_sandbox_that_does_not_start_has_the_service_s_own_code() -> None:
    for error in (errors.RuntimeFailed("x"), errors.GuestUnreachable("x"), errors.TimedOut("boot", 9)):
        assert sdk_status_and_code(error, opening=True) == (500, "SANDBOX_WEBSOCKET_HANDSHAKE_ERROR")
    assert sdk_status_and_code(errors.ResourceExhausted("x"), opening=True) == (429, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("error", "constructor", "code"),
    [
        (errors.AgentError("ENOENT", "x"), "NotFound", "ENOENT"),
        (errors.AgentError("ENOSPC", "x"), "Error", "ENOSPC"),
        (errors.SandboxEnded("expired"), "Error", "SANDBOX_ALREADY_TERMINATED"),
        (errors.NotFound("x"), "NotFound", "NOT_FOUND"),
        (errors.ResourceExhausted("x"), "Busy", "RESOURCE_EXHAUSTED"),
        (errors.TimedOut("x", 1), "TimedOut", "TIMED_OUT"),
        (errors.GuestUnreachable("x"), "ConnectionReset", "GUEST_UNREACHABLE"),
    ],
)
def test_error_objects(error: errors.SkerryError, constructor: str, code: str) -> None:
    made = error_object_of(error, doing="stat 'a'")
    assert (made["constructorName"], made["code"]) == (constructor, code)


def test_private_details_are_in_no_answer() -> None:
    made = error_object_of(errors.RuntimeFailed("it failed", detail="/var/secret"))
    assert "secret" not in str(made)
