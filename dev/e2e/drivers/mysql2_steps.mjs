// mysql2 for Node.js.

import fs from "node:fs";
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createRequire } from "node:module";

// Beside the folder that it was installed to, and not beside this file.
const require = createRequire(`${process.env.NODE_DRIVERS}/`);
const mysql = require("mysql2/promise");

const LARGE = 20 << 20;
const facts = Object.fromEntries(process.argv.slice(2).map((argument) => {
  const [, name, value] = argument.match(/^--([^=]+)=(.*)$/s);
  return [name.replaceAll("-", "_"), value];
}));

function connect(more = {}) {
  const read = (name) => fs.readFileSync(facts[name]);
  const where = facts.socket
    ? { socketPath: facts.socket }
    : {
        host: facts.host,
        port: Number(facts.port),
        ssl: { ca: read("ssl_ca"), cert: read("ssl_cert"), key: read("ssl_key"), verifyIdentity: true },
      };
  return mysql.createConnection({ ...where, user: facts.user, database: facts.database, ...more });
}

const shared = await connect({ multipleStatements: false });

const steps = {
  async select() {
    const [rows] = await shared.query("SELECT 40 + 2 AS n, SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AS u");
    assert.deepEqual({ ...rows[0] }, { n: 42, u: facts.user });
  },
  async prepared() {
    for (let number = 0; number < 50; number += 1) {
      const [rows] = await shared.execute("SELECT ? * 2 AS n, ? AS t, ? AS nothing", [number, "text", null]);
      assert.deepEqual([Number(rows[0].n), rows[0].t, rows[0].nothing], [2 * number, "text", null]);
    }
    shared.unprepare("SELECT ? * 2 AS n, ? AS t, ? AS nothing");
  },
  async many_rows() {
    const [rows] = await shared.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_50000 WHERE seq > ?", [0]);
    assert.equal(rows.length, 50_000);
  },
  async several_statements() {
    const connection = await connect({ multipleStatements: true });
    const [found] = await connection.query("SELECT 1 AS n; SELECT 2 AS n; DO 3");
    assert.deepEqual([found[0][0].n, found[1][0].n, found[2].affectedRows], [1, 2, 0]);
    await connection.end();
  },
  async local_file() {
    await shared.query("CREATE OR REPLACE TEMPORARY TABLE loaded (n INT, t VARCHAR(20))");
    await shared.query({
      sql: "LOAD DATA LOCAL INFILE 'rows.csv' INTO TABLE loaded FIELDS TERMINATED BY ','",
      infileStreamFactory: () => fs.createReadStream(facts.file),
    });
    const [rows] = await shared.query("SELECT COUNT(*) AS c, MAX(n) AS m FROM loaded");
    assert.deepEqual({ ...rows[0] }, { c: 20_000, m: 19_999 });
  },
  async packets_over_16_mib() {
    const [lengths] = await shared.query("SELECT LENGTH(?) AS n", ["x".repeat(LARGE)]);
    assert.equal(lengths[0].n, LARGE);
    const [rows] = await shared.query(`SELECT REPEAT('y', ${LARGE}) AS y`);
    assert.ok(rows[0].y === "y".repeat(LARGE));
  },
  async compression_asked_for() {
    const connection = await connect({ compress: true });
    const [rows] = await connection.query("SHOW SESSION STATUS LIKE 'Compression'");
    assert.equal(rows[0].Value, "OFF");
    await connection.end();
  },
  async error_midway() {
    const sql =
      "SELECT seq, REPEAT('x', 1000), IF(seq < 5000, 1, (SELECT 1 UNION SELECT 2)) FROM seq_1_to_10000";
    await assert.rejects(shared.query(sql), { errno: 1242 });
    await steps.select();
  },
  async other_database() {
    const of = async () => (await shared.query("SELECT DATABASE() AS d"))[0][0].d;
    await shared.query("USE archive");
    assert.equal(await of(), "archive");
    await shared.query(`USE ${facts.database}`);
    assert.equal(await of(), facts.database);
  },
  async reset() {
    await shared.query("SET @kept = 7");
    await shared.reset();
    const [rows] = await shared.query("SELECT @kept AS kept");
    assert.equal(rows[0].kept, null);
  },
  async ping() {
    await shared.ping();
  },
  async sent_ahead() {
    // Several statements are queued in the driver and follow each other without waiting for more.
    const sums = await Promise.all(Array.from({ length: 200 }, (_, n) => shared.query("SELECT ? + 1 AS n", [n])));
    assert.deepEqual(sums.map(([rows]) => rows[0].n), Array.from({ length: 200 }, (_, n) => n + 1));
  },
  async change_of_user_is_refused() {
    const connection = await connect();
    connection.on("error", () => {}); // the session ends
    await assert.rejects(connection.changeUser({ user: "root" }), (error) => {
      assert.equal(error.errno, 1045, error);
      assert.match(error.message, /the user of a session cannot be changed/);
      return true;
    });
  },
  async kill_by_number() {
    const busy = await connect();
    const [[{ number }]] = await busy.query("SELECT CONNECTION_ID() AS number");
    const kill = (async () => {
      await sleep(500);
      const other = await connect();
      await other.query(`KILL QUERY ${number}`);
      await other.end();
    })();
    await assert.rejects(busy.query("SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b"), { errno: 1317 });
    await kill;
    await busy.end();
  },
  async kill_by_the_greetings_number() {
    // A client of the proxy's port was greeted with a number that the server does not know, and says so.
    const busy = await connect();
    const kill = (async () => {
      await sleep(500);
      const other = await connect();
      const killing = other.query(`KILL QUERY ${busy.threadId}`);
      await (facts.socket ? killing : assert.rejects(killing, { errno: 1094 }));
      await other.end();
    })();
    await assert.rejects(busy.query("SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b"), { errno: 1317 });
    await kill;
    await busy.end();
  },
};

for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log("ok", name);
  } catch (error) {
    console.log("failed", name, String(error.stack ?? error).replaceAll("\n", " "));
  }
}
await shared.end();
