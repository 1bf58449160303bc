"""MySQL Connector/Python, the part of it that is written in Python."""

import io

import mysql.connector

from steps import ERROR_MIDWAY, ER_ACCESS_DENIED, ER_NO_SUCH_THREAD, ER_SUBQUERY_NO_1_ROW, ER_UNKNOWN_COM
from steps import FOR_HOURS, LARGE, facts, fails, run, stops

FACTS = facts()


def connect(**more):
    if "socket" in FACTS:
        where = {"unix_socket": FACTS["socket"], "ssl_disabled": True}
    else:
        where = {
            "host": FACTS["host"], "port": int(FACTS["port"]), "ssl_ca": FACTS["ssl_ca"],
            "ssl_cert": FACTS["ssl_cert"], "ssl_key": FACTS["ssl_key"], "ssl_verify_identity": True,
            # By the proxy's greeting it takes every server for MySQL 8.0, whose own collation MariaDB does not have.
            "collation": "utf8mb4_general_ci",
        }
    who = {"user": FACTS["user"], "database": FACTS["database"], "use_pure": True}
    return mysql.connector.connect(**where, **who, allow_local_infile=True, **more)


def one(connection, sql, parameters=(), **kind):
    with connection.cursor(**kind) as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone() if cursor.with_rows else None


shared = connect(autocommit=True)


def select():
    assert one(shared, "SELECT 40 + 2, SUBSTRING_INDEX(CURRENT_USER(), '@', 1)") == (42, FACTS["user"])


def prepared():
    with shared.cursor(prepared=True) as cursor:
        for number in range(50):
            cursor.execute("SELECT ? * 2, ?, ?", (number, "text", None))
            assert cursor.fetchall() == [(2 * number, "text", None)]


def many_rows():
    with shared.cursor(prepared=True) as cursor:
        cursor.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_50000 WHERE seq > ?", (0,))
        assert len(cursor.fetchall()) == 50_000


def cursor_of_the_server():
    statement = shared.cmd_stmt_prepare(b"SELECT seq FROM seq_1_to_1000")
    number = statement["statement_id"]
    result = shared.cmd_stmt_execute(number, flags=1)  # CURSOR_TYPE_READ_ONLY
    columns = result[1]
    found = []
    for _ in range(4):
        shared.cmd_stmt_fetch(number, 250)
        rows, _ = shared.get_rows(binary=True, columns=columns)
        found += rows
    assert [row[0] for row in found] == list(range(1, 1001)), found[:5]
    shared.cmd_stmt_close(number)
    select()


def long_data():
    # A parameter that is read from a file goes to the server before the statement is executed.
    with shared.cursor(prepared=True) as cursor:
        cursor.execute("SELECT LENGTH(?)", (io.BytesIO(b"z" * (3 << 20)),))
        assert cursor.fetchall() == [(3 << 20,)]


def several_statements():
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2; DO 3")
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall() if cursor.with_rows else None)
    assert found == [[(1,)], [(2,)], None], found


def local_file():
    one(shared, "CREATE OR REPLACE TEMPORARY TABLE loaded (n INT, t VARCHAR(20))")
    one(shared, f"LOAD DATA LOCAL INFILE '{FACTS['file']}' INTO TABLE loaded FIELDS TERMINATED BY ','")
    assert one(shared, "SELECT COUNT(*), MAX(n) FROM loaded") == (20_000, 19_999)


def packets_over_16_mib():
    (length,) = one(shared, "SELECT LENGTH(%s)", ("x" * LARGE,))
    assert length == LARGE, length
    (row,) = one(shared, f"SELECT REPEAT('y', {LARGE})")
    assert row == "y" * LARGE


def compression_is_refused():
    # This driver compresses whatever the server says.
    error = fails(lambda: connect(compress=True), ER_UNKNOWN_COM)
    assert "without compression" in str(error), error


def error_midway():
    def read():
        with shared.cursor() as cursor:
            cursor.execute(ERROR_MIDWAY)
            cursor.fetchall()

    fails(read, ER_SUBQUERY_NO_1_ROW)
    select()


def other_database():
    shared.database = "archive"
    assert one(shared, "SELECT DATABASE()") == ("archive",)
    shared.cmd_init_db(FACTS["database"])
    assert one(shared, "SELECT DATABASE()") == (FACTS["database"],)


def reset():
    one(shared, "SET @kept = 7")
    shared.cmd_reset_connection()
    assert one(shared, "SELECT @kept") == (None,)
    one(shared, f"USE `{FACTS['database']}`")


def ping():
    shared.ping(reconnect=False)


def change_of_user_is_refused():
    connection = connect()
    error = fails(lambda: connection.cmd_change_user("root", "", FACTS["database"]), ER_ACCESS_DENIED)
    assert "the user of a session cannot be changed" in str(error), error


def kill_by_number():
    busy = connect()
    (number,) = one(busy, "SELECT CONNECTION_ID()")
    stops(lambda: one(busy, FOR_HOURS), lambda: one(connect(), f"KILL QUERY {number}"))


def kill_by_the_greetings_number():
    # A client of the proxy's port was greeted with a number that the server does not know, and says so.
    busy = connect()

    def kill():
        work = lambda: one(connect(), f"KILL QUERY {busy.connection_id}")
        work() if "socket" in FACTS else fails(work, ER_NO_SUCH_THREAD)

    stops(lambda: one(busy, FOR_HOURS), kill)


run([
    select, prepared, many_rows, cursor_of_the_server, long_data, several_statements, local_file,
    packets_over_16_mib, compression_is_refused, error_midway, other_database, reset, ping, change_of_user_is_refused,
    kill_by_number, kill_by_the_greetings_number,
])
