"""Starts the command line, which takes a moment to import. Ctrl-C in that moment ends it without a traceback."""

import signal


def main() -> None:
    """Run the command line."""
    # Ignored, as in a shell's background job, it stays ignored.
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from headrace.cli import main as run

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
