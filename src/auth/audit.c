// SPDX-License-Identifier: Apache-2.0
/* audit: one row per write and refusal, each hashed together with the hash of the row before it. The end
 * of the chain is kept a second time in audit_head, so that a cut tail shows. Rows are never changed:
 * triggers refuse it, and what goes around them breaks the chain. */
#include "auth/internal.h"

static const char audit_ddl[] =
    "create table if not exists audit("
    " seq integer primary key,"
    " time integer not null,"
    " who text not null,"
    " action text not null,"
    " project text not null,"
    " kind text not null,"
    " name text not null,"
    " outcome text not null,"
    " detail text not null,"
    " request_id text not null,"
    " prev text not null,"
    " hash text not null);"
    "create index if not exists audit_project on audit(project, seq);"
    "create table if not exists audit_head(id integer primary key, seq integer not null, hash text not null);"
    "insert into audit_head(id, seq, hash) select 1, 0, '' where not exists (select 1 from audit_head)"
    " and not exists (select 1 from audit);"
    "create trigger if not exists audit_no_update before update on audit"
    " begin select raise(abort, 'the audit log is append-only'); end;"
    "create trigger if not exists audit_no_delete before delete on audit"
    " begin select raise(abort, 'the audit log is append-only'); end;";

#define AUDIT_COLUMNS "seq, time, who, action, project, kind, name, outcome, detail, request_id, prev, hash"
// clang-format off
#define AUDIT_SQL(Q)                                                                                          \
    Q(head,   "select seq, hash from audit_head where id = 1")                                                \
    Q(insert, "insert into audit(" AUDIT_COLUMNS ")"                                                          \
              " values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")                                   \
    Q(advance, "update audit_head set seq = ?1, hash = ?2 where id = 1 and seq = ?1 - 1")                     \
    Q(walk,   "select " AUDIT_COLUMNS " from audit where seq > ?1 order by seq limit ?2")
// clang-format on
SQL_TABLE(audit, AUDIT_SQL);

err audit_tables(struct store *store)
{
    return store_ddl(store, "auth-audit", audit_ddl);
}

/* The hash of a row: SHA-256 over the previous hash and the fields in this order, as JSON. */
static struct str audit_hash(struct arena *a, int64_t seq, int64_t time, const struct audit_entry *e,
                             struct str prev)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "seq", seq);
    json_ki64(&j, "time", time);
    json_kstr(&j, "who", e->who);
    json_kstr(&j, "action", e->action);
    json_kstr(&j, "project", e->project);
    json_kstr(&j, "kind", e->kind);
    json_kstr(&j, "name", e->name);
    json_kstr(&j, "outcome", e->outcome);
    json_kstr(&j, "detail", e->detail);
    json_kstr(&j, "requestId", e->request_id);
    json_obj_end(&j);
    struct buf b = buf_new(a);
    buf_str(&b, prev);
    buf_str(&b, json_get(&j));
    return sha256_hex(a, buf_get(&b));
}

struct audit_head {
    struct arena *a;
    int64_t seq;
    struct str hash;
};

static err on_head(void *arg, const struct row *row)
{
    struct audit_head *h = arg;
    h->seq = row_i64(row, 0);
    h->hash = str_dup(h->a, row_str(row, 1));
    return NULL;
}

err audit_append(struct tx *tx, const struct audit_entry *e)
{
    struct arena *a = tx_arena(tx);
    struct audit_head h = { .a = a };
    TRY_AS(tx_one(tx, audit_sql.head, NO_BIND, on_head, &h), "reading the end of the audit log");
    struct audit_entry in = *e;
    if (in.detail.n == 0)
        in.detail = S("{}");
    int64_t seq = h.seq + 1, time = tx_now(tx);
    struct str hash = audit_hash(a, seq, time, &in, h.hash);
    TRY_AS(tx_exec(tx, audit_sql.insert,
                   BIND(B_I(seq), B_I(time), B_S(in.who), B_S(in.action), B_S(in.project), B_S(in.kind),
                        B_S(in.name), B_S(in.outcome), B_S(in.detail), B_S(in.request_id), B_S(h.hash),
                        B_S(hash)),
                   NULL),
           "appending to the audit log");
    int64_t moved = 0;
    TRY(tx_exec(tx, audit_sql.advance, BIND(B_I(seq), B_S(hash)), &moved));
    if (moved != 1)
        FAIL(INTERNAL, "the head of the audit log is damaged");
    return NULL;
}

static err append_one(struct tx *tx, void *arg)
{
    return audit_append(tx, arg);
}

err audit_write(struct auth *auth, const struct audit_entry *e)
{
    struct audit_entry in = *e;
    return store_write(auth->store, append_one, &in);
}

/* ---- verifying ---- */

struct walk {
    struct arena *a; /* of one page */
    int64_t seq;
    char hash[HASH_HEX];
    size_t hash_n, rows;
    const struct audit_head *head; /* as it was before the walk */
};

static err walk_row(struct walk *w, int64_t seq, int64_t time, const struct audit_entry *e,
                    struct str row_prev, struct str row_hash)
{
    struct str prev = { w->hash, w->hash_n };
    if (seq != w->seq + 1)
        FAIL(INVALID, "audit entry %lld is missing: after %lld comes %lld", (long long)w->seq + 1,
             (long long)w->seq, (long long)seq);
    if (!str_eq(row_prev, prev))
        FAIL(INVALID, "audit entry %lld does not follow the one before it", (long long)seq);
    if (!str_eq(row_hash, audit_hash(w->a, seq, time, e, prev)))
        FAIL(INVALID, "audit entry %lld was changed: its hash does not fit", (long long)seq);
    if (seq == w->head->seq && !str_eq(row_hash, w->head->hash))
        FAIL(INVALID, "audit entry %lld is not the one that the head names", (long long)seq);
    return NULL;
}

static err on_walked(void *arg, const struct row *row)
{
    struct walk *w = arg;
    struct audit_entry e = {
        .who = str_dup(w->a, row_str(row, 2)),
        .action = str_dup(w->a, row_str(row, 3)),
        .project = str_dup(w->a, row_str(row, 4)),
        .kind = str_dup(w->a, row_str(row, 5)),
        .name = str_dup(w->a, row_str(row, 6)),
        .outcome = str_dup(w->a, row_str(row, 7)),
        .detail = str_dup(w->a, row_str(row, 8)),
        .request_id = str_dup(w->a, row_str(row, 9)),
    };
    struct str prev = str_dup(w->a, row_str(row, 10)), hash = str_dup(w->a, row_str(row, 11));
    TRY(walk_row(w, row_i64(row, 0), row_i64(row, 1), &e, prev, hash));
    memcpy(w->hash, hash.p, HASH_HEX);
    w->hash_n = HASH_HEX;
    w->seq = row_i64(row, 0);
    w->rows++;
    return NULL;
}

static err head_read(struct store *store, struct audit_head *out)
{
    err e = store_one(store, audit_sql.head, NO_BIND, on_head, out);
    if (e && e->code == NOT_FOUND)
        FAIL(INVALID, "the head of the audit log is gone");
    return e;
}

/* In pages, so that no snapshot is held for long. Entries may come meanwhile: the walk must reach the head
 * as it was before, and not go beyond the head as it is after. */
err audit_verify(struct store *store, struct arena *a, int64_t *entries, struct str *head)
{
    enum { PAGE = 1000 };
    struct audit_head before = { .a = a }, after = { .a = a };
    TRY(head_read(store, &before));
    struct walk w = { .head = &before, .rows = PAGE };
    while (w.rows == PAGE) {
        auto_arena struct arena *page = arena_new(0);
        w.a = page;
        w.rows = 0;
        TRY(store_query(store, audit_sql.walk, BIND(B_I(w.seq ? w.seq : INT64_MIN), B_I(PAGE)), on_walked,
                        &w));
    }
    if (w.seq < before.seq)
        FAIL(INVALID, "audit entry %lld is missing: the log ends at %lld, its head names %lld",
             (long long)w.seq + 1, (long long)w.seq, (long long)before.seq);
    TRY(head_read(store, &after));
    if (w.seq > after.seq)
        FAIL(INVALID, "audit entry %lld was inserted: the head names %lld", (long long)after.seq + 1,
             (long long)after.seq);
    *entries = w.seq;
    *head = str_dup(a, (struct str){ w.hash, w.hash_n });
    return NULL;
}
