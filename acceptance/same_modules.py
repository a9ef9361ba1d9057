"""Small tool modules, written by hand, that use the language, the standard library and SQLite; for `jail_same`.

Each is `def name(db, n)`; `n` from 0 to 3 chooses a case. None uses files, clocks, randomness of the machine, or
addresses of objects, as those differ by design.
"""

from __future__ import annotations

from acceptance.same_language import LANGUAGE
from acceptance.same_library import LIBRARY
from envsynth.spec import Column, EnvironmentSpec, Provenance, Table, Tool, World

CASES = (0, 1, 2, 3)
SQL = """
### select_rows
def select_rows(db, n):
    return db.execute("SELECT * FROM people WHERE n IS NOT NULL ORDER BY n DESC, id LIMIT ?", (n,)).fetchall()
### joins
def joins(db, n):
    return [db.execute(f"SELECT p.name, o.total FROM people p {kind} JOIN orders o ON o.person_id = p.id ORDER BY p.id, o.id").fetchall() for kind in (["INNER", "LEFT", "CROSS", "FULL OUTER"][n],)]
### windows
def windows(db, n):
    return db.execute("SELECT id, total, row_number() OVER w AS r, sum(total) OVER (PARTITION BY person_id ORDER BY day) AS s, lag(total, ?) OVER w AS l, ntile(2) OVER w AS t FROM orders WINDOW w AS (ORDER BY total DESC, id)", (n,)).fetchall()
### recursive
def recursive(db, n):
    return db.execute("WITH RECURSIVE c(x, p) AS (SELECT 1, 1 UNION ALL SELECT x + 1, p * 2 FROM c WHERE x < ?) SELECT * FROM c", (n + 3,)).fetchall()
### upserts
def upserts(db, n):
    cursor = db.execute("INSERT INTO people (id, name, n) VALUES (?, 'new', 1) ON CONFLICT (id) DO UPDATE SET n = coalesce(n, 0) + 10, name = excluded.name RETURNING id, n", (n + 5,))
    return [cursor.fetchall(), db.execute("SELECT count(*) AS c FROM people").fetchone(), cursor.lastrowid]
### triggers
def triggers(db, n):
    if n == 0:
        db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT)")
        db.execute("CREATE TRIGGER noted AFTER UPDATE ON orders WHEN new.total > old.total BEGIN INSERT INTO log (what) VALUES (old.total || ' -> ' || new.total); END")
    db.execute("UPDATE orders SET total = total + ? WHERE id <= 2", (n * 1.5,))
    return db.execute("SELECT * FROM log").fetchall()
### raising_trigger
def raising_trigger(db, n):
    db.execute("CREATE TRIGGER refuses BEFORE DELETE ON people BEGIN SELECT RAISE(ABORT, 'people stay'); END")
    if n: db.execute("DELETE FROM people WHERE id = 1")
    db.execute("DROP TRIGGER refuses")
    return "kept"
### collation
def collation(db, n):
    order = ["name", "name COLLATE NOCASE", "name COLLATE RTRIM DESC", "lower(name), id"][n]
    return db.execute(f"SELECT name FROM people ORDER BY {order}, id").fetchall()
### nulls
def nulls(db, n):
    order = ["n", "n DESC", "n NULLS LAST", "n IS NULL, n"][n]
    return [db.execute(f"SELECT id, n FROM people ORDER BY {order}, id").fetchall(), db.execute("SELECT count(n) AS c, sum(n) AS s, avg(n) AS a, total(n) AS t, max(n) AS m FROM people WHERE id > ?", (n * 100,)).fetchone(), db.execute("SELECT NULL = NULL AS e, NULL IS NULL AS i").fetchone()]
### sql_dates
def sql_dates(db, n):
    return db.execute("SELECT day, date(day, ?) AS later, strftime('%w %j', day) AS w, julianday(day) AS j, date(day, 'start of month', '+1 month', '-1 day') AS last FROM orders ORDER BY id", (f"+{n} days",)).fetchall()
### scripts
def scripts(db, n):
    db.executescript(f"CREATE TABLE IF NOT EXISTS s (v TEXT); INSERT INTO s VALUES ('a;b'), ('{n}'); -- a; comment\\nUPDATE s SET v = v || '!' WHERE v = '{n}';")
    if n == 2: raise ValueError("undo it all")
    if n == 3: db.executescript("INSERT INTO s VALUES ('z'); INSERT INTO nowhere VALUES (1);")
    return db.execute("SELECT v FROM s").fetchall()
### with_db
def with_db(db, n):
    try:
        with db:
            db.execute("UPDATE people SET n = 77 WHERE id = 1")
            if n == 1: raise KeyError("x")
    except KeyError: pass
    if n == 2: raise ValueError("after")
    return db.execute("SELECT n FROM people WHERE id = 1").fetchone()
### commits
def commits(db, n):
    db.execute("UPDATE people SET note = 'first' WHERE id = 2")
    if n: db.commit()
    db.execute("UPDATE people SET note = 'second' WHERE id = 2")
    db.rollback()
    db.execute("UPDATE people SET n = ? WHERE id = 3", (n,))
    if n == 2: db.commit(); raise Refusal("late", "all is undone")
    return [db.execute("SELECT note FROM people WHERE id = 2").fetchone(), db.in_transaction]
### constraints
import sqlite3
def constraints(db, n):
    texts = ["INSERT INTO people (id, name) VALUES (1, 'twice')", "INSERT INTO orders VALUES (99, 12345, '2024-01-01', 1.0)", "INSERT INTO orders VALUES (99, 1, '2024-01-01', -1.0)", "INSERT INTO people (id, name) VALUES (50, NULL)"]
    try: db.execute(texts[n])
    except sqlite3.IntegrityError as error: return [str(error), error.sqlite_errorname]
### constraint_raised
def constraint_raised(db, n):
    db.execute("UPDATE people SET n = 1000 WHERE id = 2")
    db.execute(["DELETE FROM people WHERE id = 1", "INSERT INTO people (id, name) VALUES ('x', 'strict')", "SELECT * FROM nowhere", "SELECTED 1"][n])
### parameters
def parameters(db, n):
    if n == 3: db.execute("SELECT ?, ?", (1,))
    return [db.execute("SELECT :a AS a, :b AS b", {"a": n, "b": "x"}).fetchone(), db.execute("SELECT ?2 AS x, ?1 AS y", (1, 2)).fetchone(), db.execute("SELECT typeof(?) AS t", ([1, 1.0, "a", b"b"][n],)).fetchone()]
### many
def many(db, n):
    cursor = db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", [(200 + 10 * n + i, i % 2 + 1, "2024-05-01", i / 4) for i in range(n + 2)])
    return [cursor.rowcount, db.execute("UPDATE orders SET total = total * 2 WHERE id >= 200").rowcount, db.total_changes > 0]
### cursors
def cursors(db, n):
    cursor = db.cursor()
    found = []
    for row in cursor.execute("SELECT id FROM people ORDER BY id"):
        found.append(row["id"])
        if len(found) > n: break
    return [found, cursor.fetchmany(2), [column[0] for column in cursor.description], cursor.fetchone(), cursor.fetchall()[:2]]
### sql_functions
def sql_functions(db, n):
    db.create_function("twice", 1, lambda x: x * 2, deterministic=True)
    class Longest:
        def __init__(self): self.best = ""
        def step(self, text): self.best = max(self.best, text, key=len)
        def finalize(self): return self.best
    db.create_aggregate("longest", 1, Longest)
    db.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    return [db.execute("SELECT twice(?) AS t, longest(name) AS l FROM people", (n,)).fetchone(), db.execute("SELECT name FROM people ORDER BY name COLLATE backwards").fetchall()]
### text_search
def text_search(db, n):
    return db.execute("SELECT name, instr(name, 'a') AS i, substr(name, ?) AS s, replace(name, 'a', '_') AS r, printf('%05.1f|%s', id, name) AS p, hex(name) AS h, length(name) AS l FROM people WHERE name LIKE '%A%' OR name GLOB '*[z-\\u00e9]*' ORDER BY id", (n,)).fetchall()
### json_sql
def json_sql(db, n):
    return [db.execute("SELECT json_extract(?, '$.a[1]') AS e, json_type(?, '$.a') AS t", ('{"a": [1, "x"]}',) * 2).fetchone(), db.execute("SELECT json_group_array(name) AS g FROM (SELECT name FROM people ORDER BY id LIMIT ?)", (n,)).fetchone(), db.execute("SELECT key, value FROM json_each('[10, 20]')").fetchall()]
### groups
def groups(db, n):
    return db.execute("SELECT person_id, count(*) AS c, group_concat(id) AS ids, min(total) AS low FROM orders GROUP BY person_id HAVING count(*) > ? UNION SELECT 0, 0, '', NULL ORDER BY 1", (n,)).fetchall()
### blobs
def blobs(db, n):
    db.execute("CREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY, d BLOB)")
    db.execute("INSERT INTO b (d) VALUES (?)", (bytes(range(n)),))
    if n == 3: return db.execute("SELECT d FROM b").fetchall()
    return [row["d"].hex() for row in db.execute("SELECT d FROM b ORDER BY id")]
### schema_changes
def schema_changes(db, n):
    if n == 0: db.execute("CREATE TABLE extra (a INTEGER, b TEXT DEFAULT 'd', c GENERATED ALWAYS AS (a * 2))")
    if n == 1: db.execute("ALTER TABLE extra ADD COLUMN e REAL")
    if n == 2: db.execute("CREATE VIEW seen AS SELECT a, c FROM extra"); db.execute("CREATE UNIQUE INDEX one ON extra (a)")
    db.execute("INSERT INTO extra (a) VALUES (?)", (min(n, 2),))
    return [db.execute("SELECT * FROM extra").fetchall(), db.execute("PRAGMA table_info(extra)").fetchall()]
### savepoints
def savepoints(db, n):
    db.execute("SAVEPOINT mine")
    db.execute("UPDATE orders SET day = '2030-01-01' WHERE id = 1")
    if n % 2: db.execute("ROLLBACK TO mine")
    db.execute("RELEASE mine")
    if n == 2: raise LookupError("undo")
    return db.execute("SELECT day FROM orders WHERE id = 1").fetchone()
"""
PEOPLE = (
    (1, "Ann", 5, "x"),
    (2, "bob", None, None),
    (3, "Zo\u00e9 ", 2, ""),
    (4, "anna", 5, "n"),
    (5, "Bob", -1, None),
)
ORDERS = ((1, 1, "2024-02-28", 10.0), (2, 1, "2024-02-29", 2.5), (3, 3, "2023-12-31", 2.5), (4, 4, "2024-01-01", 0.1))


def modules() -> dict[str, str]:
    """Return the sources by name."""
    found: dict[str, str] = {}
    for part in (LANGUAGE + LIBRARY + SQL).split("\n### ")[1:]:
        name, _, source = part.partition("\n")
        found.setdefault(name, source + "\n")
    return found


def handmade() -> EnvironmentSpec:
    """Return an environment whose tools are these modules."""
    people = (
        Column(name="id", type="INTEGER"),
        Column(name="name", type="TEXT"),
        Column(name="n", type="INTEGER", nullable=True),
        Column(name="note", type="TEXT", nullable=True),
    )
    orders = (
        Column(name="id", type="INTEGER"),
        Column(name="person_id", type="INTEGER", references="people.id"),
        Column(name="day", type="TEXT"),
        Column(name="total", type="REAL"),
    )
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    return EnvironmentSpec(
        slug="handmade",
        title="Modules by hand",
        world=World(
            tables=(
                Table(name="people", columns=people, primary_key=("id",)),
                Table(name="orders", columns=orders, primary_key=("id",), checks=("total >= 0",)),
            ),
            rows={"people": PEOPLE, "orders": ORDERS},
            now="2024-01-01",
        ),
        tools=tuple(
            Tool(name=name, effect="write", description=name, parameters=schema, source=source)
            for name, source in modules().items()
        ),
        provenance=Provenance(author="acceptance", category="modules by hand", seed="0"),
    )
