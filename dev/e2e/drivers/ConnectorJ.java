// MariaDB Connector/J 2.7, which is what Debian has, by a socket file: over TLS it does not name the server.

import java.sql.*;
import java.util.*;

public class ConnectorJ {
    static final int LARGE = 20 << 20;
    static final Map<String, String> facts = new HashMap<>();
    static Connection shared;

    interface Step { void run() throws Exception; }

    static Connection connect(String... more) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", facts.get("user"));
        properties.setProperty("localSocket", facts.get("socket"));
        properties.setProperty("allowLocalInfile", "true");
        for (int at = 0; at < more.length; at += 2) properties.setProperty(more[at], more[at + 1]);
        return DriverManager.getConnection("jdbc:mariadb:///" + facts.get("database"), properties);
    }

    static String row(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int at = 0; at < values.length; at++) statement.setObject(at + 1, values[at]);
            try (ResultSet rows = statement.executeQuery()) {
                if (!rows.next()) return "nothing";
                List<String> found = new ArrayList<>();
                for (int at = 1; at <= rows.getMetaData().getColumnCount(); at++) found.add(rows.getString(at));
                return String.join(",", found.stream().map(String::valueOf).toList());
            }
        }
    }

    static void plainly(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static void same(Object got, Object wanted) {
        if (!wanted.equals(got)) throw new AssertionError(got + " and not " + wanted);
    }

    static void fails(int number, Step work) throws Exception {
        try {
            work.run();
        } catch (SQLException error) {
            if (error.getErrorCode() == number) return;
            throw error;
        }
        throw new AssertionError("it did not fail");
    }

    static Map<String, Step> steps() {
        Map<String, Step> steps = new LinkedHashMap<>();
        steps.put("select", () -> same(
            row(shared, "SELECT 40 + 2, SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"), "42," + facts.get("user")));
        steps.put("prepared", () -> {
            try (Connection connection = connect("useServerPrepStmts", "true");
                 PreparedStatement statement = connection.prepareStatement("SELECT ? * 2, ?, ?")) {
                for (int number = 0; number < 50; number++) {
                    statement.setInt(1, number);
                    statement.setString(2, "text");
                    statement.setNull(3, Types.VARCHAR);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        same(rows.getInt(1) + rows.getString(2) + rows.getString(3), 2 * number + "textnull");
                    }
                }
            }
        });
        steps.put("batches", () -> {
            // With the server's statements these are MariaDB's bulk commands.
            for (String bulk : List.of("true", "false")) {
                try (Connection connection = connect("useServerPrepStmts", "true", "useBulkStmts", bulk)) {
                    plainly(connection, "CREATE OR REPLACE TEMPORARY TABLE batch (n INT PRIMARY KEY, t VARCHAR(20))");
                    try (PreparedStatement statement = connection.prepareStatement("INSERT INTO batch VALUES (?, ?)")) {
                        for (int number = 0; number < 5000; number++) {
                            statement.setInt(1, number);
                            statement.setString(2, "row " + number);
                            statement.addBatch();
                        }
                        same(statement.executeBatch().length, 5000);
                    }
                    same(row(connection, "SELECT COUNT(*), MAX(n) FROM batch"), "5000,4999");
                }
            }
        });
        steps.put("many_rows", () -> {
            try (Statement statement = shared.createStatement()) {
                statement.setFetchSize(100);
                int count = 0;
                try (ResultSet rows = statement.executeQuery("SELECT seq, REPEAT('x', 100) FROM seq_1_to_50000")) {
                    while (rows.next()) count++;
                }
                same(count, 50_000);
            }
        });
        steps.put("several_statements", () -> {
            try (Connection connection = connect("allowMultiQueries", "true"); Statement statement = connection.createStatement()) {
                statement.execute("SELECT 1; SELECT 2; DO 3");
                int found = 0;
                do {
                    try (ResultSet rows = statement.getResultSet()) {
                        if (rows != null && rows.next()) found = 10 * found + rows.getInt(1);
                    }
                } while (statement.getMoreResults() || statement.getUpdateCount() != -1);
                same(found, 12);
            }
        });
        steps.put("local_file", () -> {
            plainly(shared, "CREATE OR REPLACE TEMPORARY TABLE loaded (n INT, t VARCHAR(20))");
            plainly(shared, "LOAD DATA LOCAL INFILE '" + facts.get("file") + "' INTO TABLE loaded FIELDS TERMINATED BY ','");
            same(row(shared, "SELECT COUNT(*), MAX(n) FROM loaded"), "20000,19999");
        });
        steps.put("packets_over_16_mib", () -> {
            same(row(shared, "SELECT LENGTH(?)", "x".repeat(LARGE)), String.valueOf(LARGE));
            same(row(shared, "SELECT REPEAT('y', " + LARGE + ")"), "y".repeat(LARGE));
        });
        steps.put("compression_asked_for", () -> {
            try (Connection connection = connect("useCompression", "true")) {
                same(row(connection, "SHOW SESSION STATUS LIKE 'Compression'"), "Compression,OFF");
            }
        });
        steps.put("error_midway", () -> {
            String sql = "SELECT seq, REPEAT('x', 1000), IF(seq < 5000, 1, (SELECT 1 UNION SELECT 2)) FROM seq_1_to_10000";
            fails(1242, () -> row(shared, sql));
            same(row(shared, "SELECT 1"), "1");
        });
        steps.put("other_database", () -> {
            shared.setCatalog("archive");
            same(row(shared, "SELECT DATABASE()"), "archive");
            shared.setCatalog(facts.get("database"));
        });
        steps.put("ping", () -> same(shared.isValid(5), true));
        steps.put("kill_by_number", () -> {
            try (Connection busy = connect()) {
                String number = row(busy, "SELECT CONNECTION_ID()");
                Thread killer = new Thread(() -> {
                    try {
                        Thread.sleep(500);
                        try (Connection other = connect()) {
                            plainly(other, "KILL QUERY " + number);
                        }
                    } catch (Exception error) {
                        error.printStackTrace();
                    }
                });
                killer.start();
                fails(1317, () -> row(busy, "SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b"));
                killer.join();
            }
        });
        return steps;
    }

    public static void main(String[] arguments) throws Exception {
        for (String argument : arguments) {
            int sign = argument.indexOf('=');
            if (argument.startsWith("--") && sign > 0) facts.put(argument.substring(2, sign), argument.substring(sign + 1));
        }
        shared = connect();
        for (var step : steps().entrySet()) {
            try {
                step.getValue().run();
                System.out.println("ok " + step.getKey());
            } catch (Throwable error) {
                System.out.println("failed " + step.getKey() + " " + String.valueOf(error).replace("\n", " "));
            }
        }
        shared.close();
    }
}
