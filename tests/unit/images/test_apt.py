"""The host's package sources are read in both of apt's formats, and only what fits is taken."""

from dure.images.apt import Source, fitting_sources, parse_deb822, parse_one_line

ONE_LINE = """
# deb http://commented/ bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror/debian bookworm main contrib  # ours
deb-src http://mirror/debian bookworm main
deb http://mirror/debian bookworm-security main
deb https://packages.vendor.example/apt cloud main
"""
DEB822 = """
Types: deb deb-src
URIs: http://a/debian http://b/debian
# between
Suites: bookworm bookworm-updates
Components: main non-free
Signed-By: /k.gpg

Enabled: no
Types: deb
URIs: http://off/
Suites: bookworm
Components: main

Types: deb
URIs: http://c/
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""


def test_one_line_sources() -> None:
    assert parse_one_line(ONE_LINE) == [
        Source("http://mirror/debian", "bookworm", ("main", "contrib"), "/usr/share/keyrings/k.gpg"),
        Source("http://mirror/debian", "bookworm-security", ("main",)),
        Source("https://packages.vendor.example/apt", "cloud", ("main",)),
    ]


def test_deb822_sources() -> None:
    found = parse_deb822(DEB822)
    assert [(source.uri, source.suite) for source in found] == [
        ("http://a/debian", "bookworm"),
        ("http://a/debian", "bookworm-updates"),
        ("http://b/debian", "bookworm"),
        ("http://b/debian", "bookworm-updates"),
        ("http://c/", "bookworm"),
    ]
    assert [source.signed_by for source in found] == ["/k.gpg"] * 4 + [""]


def test_only_the_release_itself_fits() -> None:
    assert fitting_sources(parse_one_line(ONE_LINE), "bookworm") == [
        Source("http://mirror/debian", "bookworm", ("main",), "/usr/share/keyrings/k.gpg"),
        Source("http://mirror/debian", "bookworm-security", ("main",)),
    ]
    assert fitting_sources(parse_one_line(ONE_LINE), "trixie") == []


def test_a_source_is_one_line() -> None:
    assert str(Source("http://m", "s", ("main", "universe"), "/k")) == "deb [signed-by=/k] http://m s main universe"
