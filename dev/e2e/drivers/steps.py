"""What the drivers' programs share: their arguments, and steps that are told one a line.

A program gets the options of MySQL's own clients (`--host=`, `--port=`, `--ssl-ca=`, `--ssl-cert=`, `--ssl-key=`, or
`--socket=`; `--user=`, `--database=`) and behind them `--file=`, rows for `LOAD DATA LOCAL`.
"""

import sys
import threading
import time


def facts():
    """The arguments by their names, with `_` for `-`."""
    pairs = (argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    return {pair[0].replace("-", "_"): pair[1] for pair in pairs}


def run(steps):
    """Runs every step, also behind one that failed, and says how each went."""
    for step in steps:
        try:
            step()
            print("ok", step.__name__, flush=True)
        except Exception as error:  # whatever it is, it is this step's outcome
            print("failed", step.__name__, f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)


def stops(statement, kill):
    """A statement that would run for hours is interrupted when `kill` runs beside it."""
    thread = threading.Thread(target=lambda: (time.sleep(0.5), kill()))
    thread.start()
    begun = time.monotonic()
    fails(statement, ER_QUERY_INTERRUPTED)
    assert time.monotonic() - begun < 30
    thread.join()


def fails(work, *numbers):
    """The error of what must fail with one of these numbers."""
    try:
        work()
    except Exception as error:
        found = getattr(error, "errno", None) or error.args[0]
        assert found in numbers, f"{found} and not {numbers}: {error}"
        return error
    raise AssertionError("it did not fail")


# The 5000th row cannot be made: the server finds out when it has sent those before.
ERROR_MIDWAY = (
    "SELECT seq, REPEAT('x', 1000), IF(seq < 5000, 1, (SELECT 1 UNION SELECT 2)) FROM seq_1_to_10000"
)
FOR_HOURS = "SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b"
ER_NO_SUCH_THREAD = 1094
ER_SUBQUERY_NO_1_ROW = 1242
ER_ACCESS_DENIED = 1045
ER_UNKNOWN_COM = 1047
ER_QUERY_INTERRUPTED = 1317
LARGE = 20 << 20
