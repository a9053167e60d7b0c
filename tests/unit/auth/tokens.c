// SPDX-License-Identifier: Apache-2.0
#define SUITE tokens
#include "help.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

static const struct route reads = { M_GET, "/api/v1/x", .may = "datasets.read" };
static const struct route writes = { M_PUT, "/api/v1/x", .may = "datasets.update" };

TEST(the_first_token_is_made_once)
{
    struct world w = world_new();
    struct str first, second;
    CHECK_OK(auth_first_token(w.auth, w.a, &first));
    CHECK(str_starts(first, S("dhow_")));
    CHECK(first.n == 5 + 12 + 1 + 43);
    CHECK_OK(auth_first_token(w.auth, w.a, &second));
    CHECK(second.n == 0);
    CHECK_OK(auth_before(w.auth, request(&w, &writes, first)));
    world_free(&w);
}

TEST(only_the_hash_is_kept)
{
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_ADMIN, (struct strs){ 0 }), bytes;
    struct strs names;
    CHECK_OK(dir_list(w.a, w.dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        const char *path = fmtz(w.a, "%s/%.*s", w.dir, STR(names.v[i]));
        if (!str_starts(names.v[i], S("meta.db")) || file_read(w.a, path, 64 << 20, &bytes))
            continue;
        CHECK(memmem(bytes.p, bytes.n, secret.p + 18, 43) == NULL);
    }
    world_free(&w);
}

TEST(a_revoked_token_dies_at_once)
{
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_EDITOR, (struct strs){ 0 });
    struct token *list;
    size_t n;
    CHECK_OK(auth_before(w.auth, request(&w, &writes, secret)));
    CHECK_OK(token_list(w.auth, w.a, S("*"), &list, &n));
    CHECK(n == 1 && !list[0].revoked);
    CHECK_ERR(token_revoke(w.auth, S("ann"), S("other"), list[0].id), NOT_FOUND);
    CHECK_OK(token_revoke(w.auth, S("ann"), S("*"), list[0].id));
    CHECK_ERR(auth_before(w.auth, request(&w, &writes, secret)), UNAUTHORIZED);
    CHECK_ERR(token_revoke(w.auth, S("ann"), S("*"), list[0].id), NOT_FOUND);
    CHECK_OK(token_list(w.auth, w.a, S("*"), &list, &n));
    CHECK(n == 1 && list[0].revoked);
    world_free(&w);
}

/* What another process writes is seen through the event log. */
static err revoke_behind(struct tx *tx, void *arg)
{
    (void)arg;
    TRY(tx_exec(tx, "update token set revoked = 1", NO_BIND, NULL));
    return event_append(tx, &(struct event){ .type = S("token.revoked"), .kind = S("Token"), .name = S("x") },
                        NULL);
}

TEST(a_token_revoked_elsewhere_dies_soon)
{
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_EDITOR, (struct strs){ 0 });
    CHECK_OK(store_write(w.store, revoke_behind, NULL));
    err e = NULL;
    for (int i = 0; i < 500 && !(e = auth_before(w.auth, request(&w, &writes, secret))); i++)
        usleep(10000);
    CHECK_ERR(e, UNAUTHORIZED);
    world_free(&w);
}

TEST(an_expired_token_is_refused)
{
    struct world w = world_new();
    struct str secret;
    struct token t = { .name = S("short"), .project = S("*"), .roles = 1, .expires = now_us() + 300000 };
    CHECK_OK(token_create(w.auth, w.a, S("ann"), &t, &secret));
    CHECK_OK(auth_before(w.auth, request(&w, &reads, secret)));
    usleep(310000);
    CHECK_ERR(auth_before(w.auth, request(&w, &reads, secret)), UNAUTHORIZED);
    world_free(&w);
}

TEST(rules_of_a_token)
{
    struct world w = world_new();
    struct str s, wrong[] = { S("nothing"), S("a b.read"), S("datasets.dance"), S(".*") };
    struct token ok = { .name = S("n"), .project = S("*"), .roles = 1 }, t = ok;
    t.name = S("");
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    t = ok, t.name = S("two\nlines");
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    t = ok, t.roles = 0;
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    t = ok, t.project = S("Not A Name");
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    t = ok, t.project = S("missing");
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), NOT_FOUND);
    t = ok, t.expires = now_us() + 367ll * 86400 * 1000000;
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    t = ok, t.expires = 1;
    CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        t = ok, t.scopes = (struct strs){ &wrong[i], 1, 1 };
        CHECK_ERR(token_create(w.auth, w.a, S("ann"), &t, &s), INVALID);
    }
    world_free(&w);
}

TEST(nearly_a_token_is_none)
{
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_ADMIN, (struct strs){ 0 });
    CHECK_ERR(auth_before(w.auth, request(&w, &reads, S(""))), UNAUTHORIZED);
    for (size_t i = 0; i < secret.n; i++) {
        char *copy = (char *)(uintptr_t)str_z(w.a, secret);
        copy[i] ^= 1;
        CHECK_ERR(auth_before(w.auth, request(&w, &reads, str_of(copy))), UNAUTHORIZED);
        CHECK_ERR(auth_before(w.auth, request(&w, &reads, str_sub(secret, 0, i))), UNAUTHORIZED);
    }
    struct req *r = request(&w, &reads, secret);
    r->headers[0].value = fmt(w.a, "Basic %.*s", STR(secret));
    CHECK_ERR(auth_before(w.auth, r), UNAUTHORIZED);
    r->headers[0].value = fmt(w.a, "bearer   %.*s ", STR(secret));
    CHECK_OK(auth_before(w.auth, r));
    world_free(&w);
}

TEST(last_used_is_written_when_auth_closes)
{
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_ADMIN, (struct strs){ 0 });
    struct token *list;
    size_t n;
    CHECK_OK(auth_before(w.auth, request(&w, &reads, secret)));
    token_of(&w, "*", 1u << ROLE_ADMIN, (struct strs){ 0 }); /* a reload on the way loses nothing */
    auth_close(w.auth);
    CHECK_OK(auth_open(w.store, &w.auth));
    CHECK_OK(token_list(w.auth, w.a, S("*"), &list, &n));
    CHECK(n == 2 && list[0].last_used > 0 && list[1].last_used == 0);
    world_free(&w);
}

/* ---- many threads, one token that comes and goes ---- */

struct checker {
    struct world *w;
    struct str token;
    _Atomic bool *stop;
    int64_t ok, refused;
};

static void *check_often(void *arg)
{
    struct checker *c = arg;
    auto_arena struct arena *a = arena_new(0);
    struct world mine = *c->w;
    mine.a = a;
    while (!*c->stop) {
        if (auth_before(mine.auth, request(&mine, &reads, c->token)))
            c->refused++;
        else
            c->ok++;
        arena_reset(a);
        err_reset();
    }
    return NULL;
}

TEST(checks_go_on_while_tokens_change)
{
    enum { N = 4 };
    struct world w = world_new();
    _Atomic bool stop = false;
    struct checker c[N];
    pthread_t t[N];
    struct str token = token_of(&w, "*", 1u << ROLE_VIEWER, (struct strs){ 0 });
    for (int i = 0; i < N; i++) {
        c[i] = (struct checker){ &w, token, &stop, 0, 0 };
        CHECK(pthread_create(&t[i], NULL, check_often, &c[i]) == 0);
    }
    for (int i = 0; i < 20; i++)
        token_of(&w, "*", 1u << ROLE_VIEWER, (struct strs){ 0 });
    stop = true;
    for (int i = 0; i < N; i++) {
        pthread_join(t[i], NULL);
        CHECK(c[i].ok > 0 && c[i].refused == 0);
    }
    world_free(&w);
}

/* ---- over a connection that sends one head again and again: what is known of it is known only while it holds ---- */

static err say_who(struct req *r)
{
    struct req_memo *memo = req_memo(r);
    return req_reply(r, 200, "text/plain",
                     fmt(r->a, "%.*s%s", STR(req_who(r)->name), memo && memo->before ? " again" : ""));
}
static err auth_of_app(struct req *r)
{
    return auth_before(r->app, r);
}

static int ask(int fd, struct str token, char *got, size_t size)
{
    char text[400];
    int status = 0, n = snprintf(text, sizeof text,
                                 "GET /who HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %.*s\r\n\r\n",
                                 STR(token));
    CHECK(send(fd, text, (size_t)n, MSG_NOSIGNAL) == n);
    ssize_t more = recv(fd, got, size - 1, 0);
    CHECK(more > 0);
    got[more] = 0;
    CHECK(sscanf(got, "HTTP/1.1 %d", &status) == 1);
    return status;
}

TEST(a_token_that_a_connection_knows_dies_at_once)
{
    static const struct route rows[] = { { M_GET, "/who", say_who, .may = "datasets.read", .on_loop = true },
                                         { 0 } };
    static const struct route *const tables[] = { rows, NULL };
    struct world w = world_new();
    struct str secret = token_of(&w, "*", 1u << ROLE_EDITOR, (struct strs){ 0 }), other;
    struct net *net;
    char got[2000];
    CHECK_OK(net_start(
        &(struct net_config){
            .listen = S("127.0.0.1:0"), .routes = tables, .app = w.auth, .before = auth_of_app },
        &net));
    int64_t port;
    struct str at = net_address(net);
    CHECK(str_i64(str_sub(at, str_find(at, ':') + 1, at.n), &port));
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    for (int i = 0; i < 5; i++) {
        CHECK(ask(fd, secret, got, sizeof got) == 200);
        CHECK((strstr(got, "again") != NULL) == (i >= 2));
    }
    other = token_of(&w, "*", 1u << ROLE_EDITOR, (struct strs){ 0 }); /* the table is another one */
    CHECK(ask(fd, secret, got, sizeof got) == 200 && ask(fd, secret, got, sizeof got) == 200);
    struct token *list;
    size_t n;
    CHECK_OK(token_list(w.auth, w.a, S("*"), &list, &n));
    CHECK(n == 2);
    for (size_t i = 0; i < n; i++)
        CHECK_OK(token_revoke(w.auth, S("ann"), S("*"), list[i].id));
    for (int i = 0; i < 5; i++)
        CHECK(ask(fd, i % 2 ? other : secret, got, sizeof got) == 401);
    close(fd);
    net_stop(net);
    world_free(&w);
}
