"""Invalid parameters are described as Zod does: both SDKs read that shape."""

import json
from typing import Any

import msgspec
import pytest

from skerry.protocol import deno_params as params
from skerry.protocol.deno_validation import issues_of, one_of_issue, zod_data


def issues(value: object, expected: type[msgspec.Struct]) -> list[Any]:
    text = json.dumps(value).encode()
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=expected)
    return list(issues_of(text, expected))


def test_the_document_s_own_example() -> None:
    data = zod_data(issues_of(b"{}", params.ReadFile))
    assert data["constructorName"] == "ZodError"
    assert json.loads(data["message"]) == [
        {
            "expected": "string",
            "code": "invalid_type",
            "path": ["path"],
            "message": "Invalid input: expected string, received undefined",
        }
    ]


@pytest.mark.parametrize(
    ("value", "expected", "path", "wanted"),
    [
        ({"path": 7}, params.ReadFile, ["path"], "string"),
        ({"path": None}, params.Path, ["path"], "string"),
        ({"pid": "7"}, params.ProcessWait, ["pid"], "number"),
        ({"pid": 1.5}, params.ProcessWait, ["pid"], "number"),
        ({"pid": True}, params.ProcessWait, ["pid"], "number"),
        ([], params.Path, [], "object"),
        ({"path": "a", "options": {"recursive": "yes"}}, params.Mkdir, ["options", "recursive"], "boolean"),
        ({"path": "a", "options": []}, params.Mkdir, ["options"], "object"),
        (
            {"command": "x", "stdout": "piped", "stderr": "x"},
            params.Spawn,
            ["stderr"],
            '"inherit"|"null"|"piped"',
        ),
        (
            {"command": "x", "stdout": "piped", "stderr": "null", "args": ["a", 1]},
            params.Spawn,
            ["args", "1"],
            "string",
        ),
        (
            {"command": "x", "stdout": "null", "stderr": "null", "env": {"A": 1}},
            params.Spawn,
            ["env", "A"],
            "string",
        ),
        ({"command": "x", "stdout": "null", "stderr": "null", "args": "a"}, params.Spawn, ["args"], "array"),
    ],
)
def test_one_wrong_member(
    value: object, expected: type[msgspec.Struct], path: list[str], wanted: str
) -> None:
    found = issues(value, expected)
    assert [(issue["path"], issue["expected"]) for issue in found] == [(path, wanted)]


def test_every_member_of_every_issue_is_a_string() -> None:
    found = issues({"args": [1, {}], "env": {"A": [], "B": None}, "stdout": 1}, params.Spawn)
    assert len(found) == 7
    for issue in found:
        assert set(issue) == {"expected", "code", "path", "message"}
        assert all(isinstance(part, str) for part in [*issue["path"], issue["expected"], issue["message"]])


def test_what_is_no_json_is_an_issue_too() -> None:
    assert issues_of(b'{"path":"\\ud800"}', params.Path)[0]["expected"] == "object"


def test_exactly_one_of_two() -> None:
    assert one_of_issue(["content", "contentStreamId"])[0]["path"] == ["content"]


def test_null_and_unknown_members_pass() -> None:
    text = (
        b'{"command":"x","stdout":"piped","stderr":"null","args":null,"cwd":null,"stdin":"piped","signal":{}}'
    )
    given = msgspec.json.decode(text, type=params.Spawn)
    assert given.args is None
