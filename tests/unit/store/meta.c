// SPDX-License-Identifier: Apache-2.0
/* The conformance test of SQL backends. */
#define SUITE store_meta
#include "help.h"
#include "store/meta.h"
#include <math.h>

static err run(struct meta_conn *c, const char *sql, const struct bind *b, size_t n, struct query *q)
{
    struct query mine;
    q = q ? q : &mine;
    q->sql = sql, q->bind = b, q->bind_n = n;
    if (q == &mine)
        mine.rows_max = 0, mine.on_row = NULL, mine.arg = NULL;
    return c->ops->run(c, q);
}

static int64_t number(struct meta_conn *c, const char *sql)
{
    int64_t n = -1;
    struct query q = { .on_row = on_number, .arg = &n };
    CHECK_OK(run(c, sql, NO_BIND, &q));
    return n;
}

static err on_types(void *arg, const struct row *r)
{
    (void)arg;
    CHECK(row_i64(r, 0) == INT64_MIN && row_f64(r, 1) == 0.1);
    CHECK_STR(row_str(r, 2), "gr\xc3\xbc\xc3\x9f");
    CHECK(str_eq(row_str(r, 3), S("\0\1\2")));
    CHECK(row_null(r, 4) && row_i64(r, 4) == 0 && isnan(row_f64(r, 4)) && row_str(r, 4).n == 0);
    CHECK(!row_null(r, 5) && row_str(r, 5).n == 0);
    return NULL;
}

static void check_types(struct meta_conn *c)
{
    struct query q = { .on_row = on_types };
    struct bind none = { .type = BIND_NULL };
    CHECK_OK(run(c, "select ?1, ?2, ?3, ?4, ?5, ?6",
                 BIND(B_I(INT64_MIN), B_F(0.1), B_S(S("gr\xc3\xbc\xc3\x9f")), B_B(S("\0\1\2")), none,
                      B_S(((struct str){ NULL, 0 }))),
                 &q));
    CHECK(q.rows == 1);
}

static void check_transactions(struct meta_conn *c)
{
    const struct meta_ops *m = c->ops;
    CHECK_OK(m->begin(c));
    CHECK(m->in_tx(c));
    CHECK_OK(m->script(c, "create table t(x integer primary key, y text not null);"));
    CHECK_OK(m->mark(c));
    CHECK_OK(run(c, "insert into t values(1, 'a')", NO_BIND, NULL));
    CHECK_OK(m->keep(c));
    CHECK_OK(m->mark(c));
    CHECK_OK(run(c, "insert into t values(2, 'b')", NO_BIND, NULL));
    CHECK_OK(m->undo(c));
    CHECK_OK(m->commit(c));
    CHECK(!m->in_tx(c));
    CHECK(number(c, "select count(*) from t") == 1);
    CHECK_OK(m->begin(c));
    CHECK_OK(run(c, "delete from t", NO_BIND, NULL));
    m->rollback(c);
    m->rollback(c);
    CHECK(number(c, "select count(*) from t") == 1);
}

static void check_errors(struct meta_conn *c)
{
    struct query q = { 0 };
    CHECK_ERR(run(c, "insert into t values(1, 'again')", NO_BIND, NULL), CONFLICT);
    CHECK_ERR(run(c, "insert into t values(3, null)", NO_BIND, NULL), INVALID);
    CHECK_ERR(run(c, "select nonsense", NO_BIND, NULL), INTERNAL);
    CHECK_ERR(run(c, "select 1; select 2", NO_BIND, NULL), INTERNAL);
    CHECK_ERR(run(c, "update event set who = 'x'", BIND(B_I(1)), NULL), INTERNAL);
    CHECK_OK(run(c, "update t set y = ?1 where x < ?2", BIND(B_S(S("z")), B_I(9)), &q));
    CHECK(q.changes == 1);
    CHECK_OK(run(c, "update t set y = ?1 where x < ?2", BIND(B_S(S("z")), B_I(0)), &q));
    CHECK(q.changes == 0);
}

/* The same statement inside itself, more statements than the cache has places, and one place reused for another text. */
static err on_nested(void *arg, const struct row *r)
{
    struct meta_conn *c = arg;
    if (row_i64(r, 0) < 3) {
        struct query q = { .on_row = on_nested, .arg = c };
        return run(c, "select ?1 + 1", BIND(B_I(row_i64(r, 0))), &q);
    }
    return NULL;
}

static void check_cache(struct meta_conn *c, struct arena *a)
{
    struct query q = { .on_row = on_nested, .arg = c };
    CHECK_OK(run(c, "select ?1 + 1", BIND(B_I(0)), &q));
    for (int i = 0; i < 2000; i++)
        CHECK(number(c, fmtz(a, "select %d", i)) == i);
    char text[] = "select 1";
    CHECK(number(c, text) == 1);
    text[7] = '2';
    CHECK(number(c, text) == 2);
}

static void conforms(const struct meta_ops *ops)
{
    auto_arena struct arena *a = arena_new(0);
    struct str where = fmt(a, "%s/meta.db", folder_new(a));
    struct meta_conn *c, *reader;
    struct strs faults = { 0 };
    CHECK_ERR(ops->open(where, false, &c), NOT_FOUND);
    CHECK_OK(ops->open(where, true, &c));
    CHECK_OK(ops->open(where, false, &reader));
    check_types(c);
    check_transactions(c);
    check_errors(c);
    check_cache(c, a);
    if (ops->tidy)
        ops->tidy(c);
    CHECK_ERR(run(reader, "delete from t", NO_BIND, NULL), INTERNAL);
    CHECK(number(reader, "select count(*) from t") == 1);
    CHECK_OK(ops->check(reader, a, &faults));
    CHECK(faults.n == 0);
    ops->close(reader);
    ops->close(c);
    ops->close(NULL);
    CHECK_OK(ops->open(where, true, &c));
    CHECK(number(c, "select count(*) from t") == 1);
    ops->close(c);
}

TEST(every_backend_conforms)
{
    for (size_t i = 0; meta_backends[i]; i++)
        conforms(meta_backends[i]);
}

TEST(a_database_of_another_version_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    struct str where = fmt(a, "%s/meta.db", folder_new(a));
    struct meta_conn *c;
    CHECK_OK(meta_sqlite.open(where, true, &c));
    CHECK_OK(meta_sqlite.script(c, "pragma user_version = 9"));
    meta_sqlite.close(c);
    err e = meta_sqlite.open(where, true, &c);
    CHECK(e && e->code == INVALID && strstr(e->text.p, "version 9"));
    CHECK_ERR(meta_sqlite.open(where, false, &c), INVALID);
}
