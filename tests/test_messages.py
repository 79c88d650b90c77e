"""What a run says while it waits."""

from __future__ import annotations

import logging

from jaxphoton.messages import compiling_shown

COMPILING = logging.getLogger("jaxphoton.compiling")


def test_compiling_is_said_on_stderr_only_meanwhile(capsys):
    with compiling_shown("jaxphoton caption: "):
        COMPILING.info("compiling %d programs", 6)
    COMPILING.info("nobody is told this")
    captured = capsys.readouterr()
    assert captured.err == "jaxphoton caption: compiling 6 programs\n" and captured.out == ""
    assert not COMPILING.handlers


def test_compiling_is_said_once_though_a_library_sets_up_the_root_logger(capsys, caplog):
    with compiling_shown("x: "):
        COMPILING.info("compiling")
    assert capsys.readouterr().err == "x: compiling\n" and not caplog.records
    assert COMPILING.propagate
