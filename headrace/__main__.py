"""Starts the command line, which takes a moment to import. Ctrl-C in that moment ends it without a traceback."""

import codecs
import gc
import io
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main() -> None:
    """Run the command line."""
    from headrace.errors import ConfigError

    try:
        with _importing():
            from headrace.cli import LazyGroup
            from headrace.cli import main as run
    except ConfigError as error:  # Of the list of plugins.
        sys.exit(f"Error: {error}")
    run.importing, LazyGroup.program = _importing, _program()
    for stream in (sys.stdout, sys.stderr):
        _escape_unknown(stream)
    run(prog_name=LazyGroup.program, complete_var="_HEADRACE_COMPLETE")


def _program() -> str:
    """What the user can type: `headrace` where a shell finds it, or else the checkout's `bin/headrace`, from here."""
    script = Path(__file__).resolve().parents[1] / "bin" / "headrace"
    if shutil.which("headrace") or not script.exists():
        return "headrace"
    try:
        return shlex.quote(min(os.path.relpath(script), str(script), key=len))
    except FileNotFoundError:  # The folder that the shell is in was removed.
        return shlex.quote(str(script))


@contextmanager
def _importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once. Ignored, as in a shell's background job, it stays ignored.

    The garbage collector pauses: it would traverse the imported modules again and again, for a third of the time.
    """
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _escape_unknown(stream: object) -> None:
    """Write a character that the terminal does not know as `\\u2026`. A command would end with a traceback instead.

    A stream in UTF-8 knows all characters, and is left alone.
    """
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
