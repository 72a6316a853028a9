"""What is wrong with parameters, said as the Zod library says it: both SDKs' error classes read that shape.

Each issue has ``expected``, ``code``, ``path`` (strings only) and ``message`` (all always there: one SDK's
constructor fails without them).
This is the slow path: it runs only for parameters that msgspec has refused.

Source: protocol notes, section 2.2; the issue texts of Zod 4.
"""

from typing import Any, TypedDict

import msgspec
from msgspec import inspect

from skerry.protocol.jsonrpc import encode


class Issue(TypedDict):
    """One thing that is wrong."""

    expected: str
    code: str
    path: list[str]
    message: str


_ABSENT = object()


def zod_data(issues: list[Issue]) -> dict[str, str]:
    """The ``data`` member of an *Invalid params* error: the issues as JSON inside a string."""
    return {"constructorName": "ZodError", "message": encode(issues).decode()}


def issues_of(params: bytes | memoryview, expected: type[msgspec.Struct]) -> list[Issue]:
    """Why the parameters are not of the type; never empty, because msgspec has refused them."""
    try:
        value = msgspec.json.decode(params)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [_issue("object", "text that is no valid JSON", [])]
    found = _check(inspect.type_info(expected), value, [])
    return found or [_issue("object", _name_of(value), [])]


def one_of_issue(names: list[str]) -> list[Issue]:
    """Exactly one of several members is needed, and that is not what was sent."""
    return [
        Issue(
            expected="string",
            code="invalid_union",
            path=[names[0]],
            message=f"Invalid input: expected exactly one of {', '.join(names)}",
        )
    ]


def _check(expected: inspect.Type, value: object, path: list[str]) -> list[Issue]:
    match expected:
        case inspect.StructType():
            return _check_struct(expected, value, path)
        case inspect.UnionType():
            return _check_union(expected, value, path)
        case inspect.LiteralType():
            return _check_literal(expected, value, path)
        case inspect.ListType():
            if not isinstance(value, list):
                return [_issue("array", _name_of(value), path)]
            return [
                issue
                for index, item in enumerate(value)
                for issue in _check(expected.item_type, item, [*path, str(index)])
            ]
        case inspect.DictType():
            if not isinstance(value, dict):
                return [_issue("record", _name_of(value), path)]
            return [
                issue
                for key, item in value.items()
                for issue in _check(expected.value_type, item, [*path, str(key)])
            ]
        case inspect.RawType() | inspect.AnyType():
            return [_issue("number", _name_of(value), path)] if value is _ABSENT else []
        case _:
            return _check_scalar(expected, value, path)


def _check_struct(expected: inspect.StructType, value: object, path: list[str]) -> list[Issue]:
    if not isinstance(value, dict):
        return [_issue("object", _name_of(value), path)]
    issues: list[Issue] = []
    for field in expected.fields:
        item = value.get(field.encode_name, _ABSENT)
        if item is _ABSENT and not field.required:
            continue
        issues += _check(field.type, item, [*path, field.encode_name])
    return issues


def _check_union(expected: inspect.UnionType, value: object, path: list[str]) -> list[Issue]:
    members = [member for member in expected.types if not isinstance(member, inspect.NoneType)]
    if value is None and len(members) < len(expected.types):
        return []
    outcomes = [_check(member, value, path) for member in members]
    return [] if any(not issues for issues in outcomes) else outcomes[0]


def _check_literal(expected: inspect.LiteralType, value: object, path: list[str]) -> list[Issue]:
    if value in expected.values:
        return []
    choices = "|".join(f'"{choice}"' for choice in expected.values)
    return [
        Issue(
            expected=choices,
            code="invalid_value",
            path=path,
            message=f"Invalid option: expected one of {choices}",
        )
    ]


def _check_scalar(expected: inspect.Type, value: object, path: list[str]) -> list[Issue]:
    match expected:
        case inspect.StrType():
            fits, name = isinstance(value, str), "string"
        case inspect.BoolType():
            fits, name = isinstance(value, bool), "boolean"
        case inspect.IntType():
            fits, name = isinstance(value, int) and not isinstance(value, bool), "number"
        case _:
            fits, name = value is None, "null"
    return [] if fits else [_issue(name, _name_of(value), path)]


def _issue(expected: str, received: str, path: list[str]) -> Issue:
    return Issue(
        expected=expected,
        code="invalid_type",
        path=path,
        message=f"Invalid input: expected {expected}, received {received}",
    )


def _name_of(value: Any) -> str:
    """The name that JavaScript programmers know a JSON value's type by."""
    if value is _ABSENT:
        return "undefined"
    names: dict[type, str] = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    return names[type(value)]
