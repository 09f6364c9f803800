"""Control characters in names, keys, values and errors reach no terminal and no log raw (R21)."""

import json
import logging

import pytest

import kastor

NASTY = {
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "c1": "\x9b31m\x85\x90",
    "delete": "a\x7fb",
    "line feed": "a\nINFO forged",
    "carriage return": "a\rforged",
    "line separator": "a\u2028b\u2029c",
    "bidi": "a\u202egnp.exe\u2066x\u2069",
    "zero width": "a\u200bb\u200f\ufeffc",
    "null": "a\0b",
    "tab": "a\tb",
}
FORBIDDEN = {chr(c) for c in (*range(0x20), 0x7F, *range(0x80, 0xA0))} - {"\n"} | set(
    "\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


def harmless(text):
    return sorted({hex(ord(character)) for character in text if character in FORBIDDEN}) == []


@pytest.fixture
def filled():
    simple = kastor.SimpleReporter()
    tele = kastor.enable(simple)
    for text in NASTY.values():
        try:
            with tele(text, **{text: text}):
                tele.count(text, **{text: text})
                tele.gauge(text + "g", 1)
                raise type(text, (Exception,), {})(text) if "\0" not in text else ValueError(text)
        except Exception:
            pass
    return tele, simple


def test_the_simple_report_is_harmless(filled, capsys):
    _, simple = filled
    assert harmless(simple.get_report())
    simple.print_report()
    assert harmless(capsys.readouterr().out)


def test_a_line_feed_in_a_name_forges_no_row(filled):
    _, simple = filled
    assert not any(line.startswith("INFO forged") for line in simple.get_report().splitlines())


def test_the_contexts_report_is_harmless(filled):
    tele, _ = filled
    assert harmless(str(tele.report()))
    assert not any(line.strip().startswith("INFO forged") for line in str(tele.report()).splitlines())


def test_the_notebooks_html_is_escaped():
    tele = kastor.enable()
    nasty = "<script>alert(1)</script>&\"'"
    with tele(nasty):
        tele.count(nasty)
    html = tele.report()._repr_html_()
    assert "<script" not in html and "alert(1)" in html
    with tele("\x1b[31m\u202e"):
        pass
    assert harmless(tele.report()._repr_html_())


def test_the_open_scopes_are_harmless(filled):
    tele, _ = filled
    with tele("\x1b[31m\u202e\n"):
        shown = "".join(str(line) for line in tele.open_scopes())
    assert harmless(shown) and "\n" not in shown.strip()


def test_the_json_forms_keep_the_text_and_parse(filled):
    _, simple = filled
    text = json.dumps(simple.as_dict())
    assert json.loads(text) == json.loads(json.dumps(json.loads(text)))


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_the_log_of_a_failing_reporter_is_harmless(nasty, caplog):
    class Failing:
        def record_timing(self, scope, duration, **metadata):
            raise ValueError(nasty)

    with caplog.at_level(logging.DEBUG):
        with kastor.enable(Failing())(nasty):
            pass
    assert caplog.records
    for record in caplog.records:
        assert harmless(record.getMessage())


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_the_message_of_a_value_error_is_harmless(nasty, monkeypatch):
    monkeypatch.setenv("KASTOR_TELEMETRY_STRICT_SCOPES", "1")
    tele = kastor.enable()
    with pytest.raises(ValueError) as caught:
        tele(nasty).__enter__()
    assert harmless(str(caught.value)) and "\n" not in str(caught.value)


def test_reprs_are_harmless():
    tele = kastor.enable()
    for text in NASTY.values():
        assert harmless(repr(tele(text)))
    assert harmless(repr(tele))
