"""PyMySQL, which knows the text protocol alone."""

import pymysql
import pymysql.cursors
from pymysql.constants import CLIENT

from steps import ERROR_MIDWAY, ER_NO_SUCH_THREAD, ER_SUBQUERY_NO_1_ROW, FOR_HOURS, LARGE
from steps import facts, fails, run, stops

FACTS = facts()


def connect(**more):
    if "socket" in FACTS:
        where = {"unix_socket": FACTS["socket"]}
    else:
        tls = {"ca": FACTS["ssl_ca"], "cert": FACTS["ssl_cert"], "key": FACTS["ssl_key"], "check_hostname": True}
        where = {"host": FACTS["host"], "port": int(FACTS["port"]), "ssl": tls}
    who = {"user": FACTS["user"], "database": FACTS["database"]}
    return pymysql.connect(**where, **who, local_infile=True, max_allowed_packet=64 << 20, **more)


def one(connection, sql, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchone()


shared = connect(autocommit=True)


def select():
    assert one(shared, "SELECT 40 + 2, SUBSTRING_INDEX(CURRENT_USER(), '@', 1)") == (42, FACTS["user"])


def parameters():
    assert one(shared, "SELECT %s, %s", "it's", None) == ("it's", None)


def many_rows():
    with shared.cursor() as cursor:
        cursor.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000")
        assert len(cursor.fetchall()) == 100_000


def unbuffered_rows():
    with shared.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_100000")
        assert sum(1 for _ in cursor) == 100_000


def several_statements():
    connection = connect(client_flag=CLIENT.MULTI_STATEMENTS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2; DO 3")
        found = [cursor.fetchone()]
        while cursor.nextset():
            found.append(cursor.fetchone())
    assert found == [(1,), (2,), None], found


def local_file():
    one(shared, "CREATE OR REPLACE TEMPORARY TABLE loaded (n INT, t VARCHAR(20))")
    with shared.cursor() as cursor:
        cursor.execute("LOAD DATA LOCAL INFILE %s INTO TABLE loaded FIELDS TERMINATED BY ','", [FACTS["file"]])
    assert one(shared, "SELECT COUNT(*), MAX(n) FROM loaded") == (20_000, 19_999)


def packets_over_16_mib():
    (length,) = one(shared, "SELECT LENGTH(%s)", "x" * LARGE)
    assert length == LARGE, length
    (row,) = one(shared, f"SELECT REPEAT('y', {LARGE})")
    assert row == "y" * LARGE


def error_midway():
    def read():
        with shared.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(ERROR_MIDWAY)
            for _ in cursor:
                pass

    fails(read, ER_SUBQUERY_NO_1_ROW)
    select()


def other_database():
    shared.select_db("archive")
    assert one(shared, "SELECT DATABASE()") == ("archive",)
    shared.select_db(FACTS["database"])


def ping():
    shared.ping(reconnect=False)


def kill_by_number():
    busy = connect()
    (number,) = one(busy, "SELECT CONNECTION_ID()")
    stops(lambda: one(busy, FOR_HOURS), lambda: one(connect(), f"KILL QUERY {number}"))


def kill_by_the_greetings_number():
    # A client of the proxy's port was greeted with a number that the server does not know, and says so.
    busy = connect()

    def kill():
        work = lambda: one(connect(), f"KILL QUERY {busy.thread_id()}")
        work() if "socket" in FACTS else fails(work, ER_NO_SUCH_THREAD)

    stops(lambda: one(busy, FOR_HOURS), kill)


run([
    select, parameters, many_rows, unbuffered_rows, several_statements, local_file, packets_over_16_mib, error_midway,
    other_database, ping, kill_by_number, kill_by_the_greetings_number,
])
