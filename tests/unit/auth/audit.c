// SPDX-License-Identifier: Apache-2.0
/* The chain is broken in each way there is, behind the store's back. */
#define SUITE audit
#include "help.h"
#include <sqlite3.h>

static void entries_add(struct world *w, int n)
{
    for (int i = 0; i < n; i++) {
        struct audit_entry e = { .who = S("ann"),
                                 .action = S("datasets.create"),
                                 .project = S("default"),
                                 .kind = S("Dataset"),
                                 .name = fmt(w->a, "d%d", i),
                                 .outcome = S("ok"),
                                 .detail = S("{\"rev\":1}"),
                                 .request_id = S("r") };
        CHECK_OK(audit_write(w->auth, &e));
    }
}

static err verify(struct world *w)
{
    int64_t n;
    struct str head;
    return audit_verify(w->store, w->a, &n, &head);
}

/* Runs SQL on the database itself. */
static int damage(struct world *w, const char *sql)
{
    sqlite3 *db;
    CHECK(sqlite3_open(world_db(w), &db) == SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close(db);
    return rc;
}

TEST(a_whole_chain_holds)
{
    struct world w = world_new();
    int64_t n = -1;
    struct str head;
    CHECK_OK(audit_verify(w.store, w.a, &n, &head));
    CHECK(n == 0 && head.n == 0);
    entries_add(&w, 1200); /* more than a page */
    CHECK_OK(audit_verify(w.store, w.a, &n, &head));
    CHECK(n == 1200 && head.n == 64);
    world_free(&w);
}

TEST(the_table_refuses_changes)
{
    struct world w = world_new();
    entries_add(&w, 3);
    CHECK(damage(&w, "update audit set who = 'bob'") != SQLITE_OK);
    CHECK(damage(&w, "delete from audit") != SQLITE_OK);
    CHECK_OK(verify(&w));
    world_free(&w);
}

#define UNLOCK "drop trigger audit_no_update; drop trigger audit_no_delete; "
static const char *const damages[] = {
    UNLOCK "update audit set who = 'bob' where seq = 3",
    UNLOCK "update audit set detail = '{\"rev\":2}' where seq = 3",
    UNLOCK "update audit set time = time + 1 where seq = 1",
    UNLOCK "update audit set project = 'other' where seq = 5",
    UNLOCK "update audit set hash = replace(hash, substr(hash, 1, 1), 'x') where seq = 5",
    UNLOCK "update audit set prev = '' where seq = 4",
    UNLOCK "delete from audit where seq = 1",
    UNLOCK "delete from audit where seq = 3",
    UNLOCK "delete from audit where seq = 5",
    UNLOCK "delete from audit",
    UNLOCK "delete from audit where seq >= 4; update audit_head set seq = 3",
    "delete from audit_head",
    "update audit_head set hash = ''",
    UNLOCK
    "delete from audit where seq = 3; update audit set seq = seq - 1 where seq > 3; update audit_head set seq = 4",
    UNLOCK
    "update audit set seq = 99 where seq = 2; update audit set seq = 2 where seq = 3; update audit set seq = 3 where seq = 99",
    UNLOCK
    "insert into audit select 6, time, who, action, project, kind, name, outcome, detail, request_id, hash, hash from audit where seq = 5",
    UNLOCK
    "insert into audit select 0, time, who, action, project, kind, name, outcome, detail, request_id, '', hash from audit where seq = 1",
};

TEST(each_damage_is_found)
{
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct world w = world_new();
        entries_add(&w, 5);
        CHECK_OK(verify(&w));
        CHECK(damage(&w, damages[i]) == SQLITE_OK);
        err e = verify(&w);
        cr_assert(e && e->code == INVALID, "not found: %s", damages[i]);
        world_free(&w);
    }
}

static const struct route reads = { M_GET, "/api/v1/x", .may = "datasets.read" };

static int64_t entries(struct world *w)
{
    int64_t n;
    struct str head;
    CHECK_OK(audit_verify(w->store, w->a, &n, &head));
    return n;
}

TEST(refusals_are_recorded_at_a_bounded_rate)
{
    struct world w = world_new();
    for (int i = 0; i < 5000; i++)
        CHECK_ERR(auth_before(w.auth, request(&w, &reads, S("dhow_wrong"))), UNAUTHORIZED);
    int64_t n = 0;
    for (int i = 0; i < 300 && (n = entries(&w)) == 0; i++)
        usleep(10000);
    CHECK(n > 0 && n <= 40);
    CHECK(entries(&w) <= 60);
    world_free(&w);
}

TEST(refusals_in_the_queue_are_written_at_the_end)
{
    struct world w = world_new();
    struct str viewer = token_of(&w, "*", 1u << ROLE_VIEWER, (struct strs){ 0 });
    static const struct route writes = { M_GET, "/api/v1/x", .may = "datasets.update" };
    CHECK_ERR(auth_before(w.auth, request(&w, &writes, viewer)), FORBIDDEN);
    auth_close(w.auth);
    CHECK_OK(auth_open(w.store, &w.auth));
    CHECK(entries(&w) == 2); /* the token, the refusal */
    world_free(&w);
}

static err on_text(void *arg, const struct row *row)
{
    struct str *to = arg;
    size_t n = row_str(row, 0).n;
    CHECK(n <= to->n);
    memcpy((char *)(uintptr_t)to->p, row_str(row, 0).p, n);
    to->n = n;
    return NULL;
}

TEST(a_hostile_path_stays_data)
{
    struct world w = world_new();
    struct req *r = request(&w, &reads, S(""));
    char room[2048];
    struct str detail = { room, sizeof room };
    r->path = S("/a\"},{\"x\":\"\n\x1b[31m\x7f/ü");
    CHECK_ERR(auth_before(w.auth, r), UNAUTHORIZED);
    auth_close(w.auth);
    CHECK_OK(auth_open(w.store, &w.auth));
    CHECK_OK(store_one(w.store, "select detail from audit", NO_BIND, on_text, &detail));
    yyjson_val *v;
    CHECK_OK(json_parse(w.a, detail, &v));
    CHECK_STR(yyjson_get_str(yyjson_obj_get(v, "path")), "/a\"},{\"x\":\"\n\x1b[31m\x7f/ü");
    CHECK_OK(verify(&w));
    world_free(&w);
}
