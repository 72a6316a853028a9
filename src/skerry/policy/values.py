"""Which values a secret may have (G41, S20). Pure. No text here repeats a value."""

MIN_BYTES = 8
SHORT_BYTES = 16
MAX_BYTES = 16_384


def problem_of_value(value: bytes, *, allow_short: bool) -> str | None:
    """Why a value cannot be a secret, in words; None when it can.

    A value is sent as the bytes it has. Control characters would end a field and begin another; white space
    at an end is not part of a field's value for its receiver, and nearly always a line end that was copied
    along. Short values are met by chance in answers, where scrubbing would then mask what is no secret.
    """
    if any(byte < 0x20 or byte == 0x7F for byte in value):
        return "the value holds a line end or another control character (was a line end copied along?)"
    if value != value.strip(b" "):
        return "the value begins or ends with a space"
    if len(value) < MIN_BYTES:
        return f"the value has fewer than {MIN_BYTES} bytes"
    if len(value) > MAX_BYTES:
        return f"the value has more than {MAX_BYTES} bytes"
    if len(value) < SHORT_BYTES and not allow_short:
        return (
            f"the value has fewer than {SHORT_BYTES} bytes, so answers may hold it by chance; "
            'set "allow_short": true to use it nevertheless'
        )
    return None


def problem_of_text(text: str, *, allow_short: bool) -> str | None:
    """As `problem_of_value`, for text, which is sent as UTF-8."""
    try:
        value = text.encode("utf-8")
    except UnicodeEncodeError:
        return "the value is not Unicode text"
    return problem_of_value(value, allow_short=allow_short)
