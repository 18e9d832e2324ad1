"""Dockerfiles are parsed as the reference says; what is wrong names its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.images.builder.build import needed_stages
from dure.images.builder.parser import parse_dockerfile
from dure.images.builder.words import expand, expand_words, parse_pairs
from dure.images.errors import BuildFailed, DockerfileError


def instructions(text: str) -> list[str]:
    return [str(step) for step in parse_dockerfile("FROM x\n" + text).stages[0].instructions]


def test_continued_lines_lose_comments_and_blank_lines() -> None:
    assert instructions("RUN a && \\\n  # why\n\n  b\n# end\nUSER x") == ["RUN a &&   b", "USER x"]


def test_escape_directive_changes_the_continuation() -> None:
    parsed = parse_dockerfile("# escape=`\nFROM x\nRUN a `\n b\nCOPY x c:\\\n")
    assert [str(step) for step in parsed.stages[0].instructions] == ["RUN a  b", "COPY x c:\\"]


def test_a_comment_ends_the_directives() -> None:
    assert parse_dockerfile("# hello\n# escape=`\nFROM x").escape == "\\"


def test_exec_and_shell_forms_are_told_apart() -> None:
    first, second, third = (
        parse_dockerfile('FROM x\nCMD ["a", "b c"]\nCMD [ -f x ] && y\nRUN echo').stages[0].instructions
    )
    assert (first.words, second.words, third.words) == (("a", "b c"), None, None)


def test_heredocs_belong_to_their_instruction() -> None:
    step, after = parse_dockerfile("FROM x\nRUN <<EOF cat\n a $b\nEOF\nUSER y").stages[0].instructions
    assert (step.heredocs[0].content, step.heredocs[0].expand, after.name) == (" a $b\n", True, "USER")


def test_quoted_and_dashed_heredocs() -> None:
    (step,) = parse_dockerfile("FROM x\nCOPY <<-'A' <<B /etc/\n\tone\n\tA\n two\nB\n").stages[0].instructions
    assert [(doc.name, doc.content, doc.expand) for doc in step.heredocs] == [
        ("A", "one\n", False),
        ("B", " two\n", True),
    ]


def test_flags_come_before_the_arguments() -> None:
    (step,) = parse_dockerfile("FROM x\ncopy --from=a --chown=1:2 src --not /dst").stages[0].instructions
    assert (step.name, step.flag("from"), step.flag("chown"), step.text) == ("COPY", "a", "1:2", "src --not /dst")


def test_stages_have_names_and_numbers() -> None:
    parsed = parse_dockerfile("ARG V=1\nFROM a AS One\nFROM b\nFROM One as three")
    assert [(stage.index, stage.base, stage.name) for stage in parsed.stages] == [
        (0, "a", "one"),
        (1, "b", ""),
        (2, "One", "three"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "no FROM"),
        ("RUN x", 1, "no build stage"),
        ("FROM x\n\nFOO bar", 3, "unknown instruction: FOO"),
        ("FROM x\nCOPY", 2, "COPY requires at least one argument"),
        ("FROM x y", 1, "one or three"),
        ("FROM x AS 1a", 1, "invalid name for build stage"),
        ("FROM x\nSHELL sh", 2, "JSON form"),
        ("FROM x\nRUN <<EOF\nabc", 2, "unterminated heredoc EOF"),
        ("# escape=x\nFROM y", 1, "ESCAPE"),
        ("FROM x\0", 0, "NUL"),
    ],
)
def test_errors_name_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(DockerfileError, match=words) as refused:
        parse_dockerfile(text)
    assert refused.value.line == line


@given(st.text(alphabet="FROM x\nRUNCOPY<<E$\\\"'[]{}#=`\t-", max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_dockerfile("FROM x\n" + text)
    except DockerfileError:
        return
    for stage in parsed.stages:
        for step in stage.instructions:
            try:
                expand_words(step.text, {"a": "b"}, parsed.escape, step.line)
            except DockerfileError as error:
                assert error.line == step.line


VALUES = {"a": "1", "empty": "", "two": "x y", "n": "a"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a-${a}", "1-1"),
        ("$missing|", "|"),
        ("${missing:-d}${a:-d}${empty:-e}${empty-e}", "d1e"),
        ("${a:+yes}${missing:+no}${empty:+no}${empty+set}", "yesset"),
        ("${missing:-${a}${n}}", "1a"),
        ("'$a'", "$a"),
        ('"$a b"', "1 b"),
        (r"\$a \\", r"$a \ ".strip()),
        (r'"\"q\" \n"', r'"q" \n'),
        ("100%$", "100%$"),
    ],
)
def test_variables_are_replaced(text: str, result: str) -> None:
    assert expand(text, VALUES) == result


@pytest.mark.parametrize("text", ["${a", "'a", '"a', "${a%b}", "${:-x}", "${missing:?gone}", "${a:" + "-${a:" * 40])
def test_broken_variables_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        expand(text, VALUES)


def test_words_split_before_variables_are_replaced() -> None:
    assert expand_words("$two 'b c' \"d\"e f\\ g", VALUES) == ["x y", "b c", "de", "f g"]


def test_pairs_have_a_new_and_an_old_form() -> None:
    assert parse_pairs("ENV", 'A=1 B="x y" C=', 1) == [("A", "1"), ("B", '"x y"'), ("C", "")]
    assert parse_pairs("ENV", "A some  text", 1) == [("A", "some  text")]
    with pytest.raises(DockerfileError, match="two arguments"):
        parse_pairs("ENV", "A", 7)


def stage_numbers(text: str, target: str = "") -> list[int]:
    return [stage.index for stage in needed_stages(parse_dockerfile(text), target)]


def test_only_needed_stages_are_built() -> None:
    text = "FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=0 x y\nFROM c\nCOPY --from=three x y"
    assert stage_numbers(text) == [0, 2, 3]
    assert stage_numbers(text, "two") == [1]
    with pytest.raises(BuildFailed, match="could not be found"):
        stage_numbers(text, "nope")
