// SPDX-License-Identifier: Apache-2.0
#define SUITE watch
#include "help.h"

/* A client in a thread of its own that reads until it has n events, or the stream ends. */
struct reader {
    struct world *w;
    struct str token;
    const char *path;
    struct buf text;
    _Atomic bool open;
    int events, want;
    pthread_t thread;
};

static bool on_line(void *arg, struct str line)
{
    struct reader *r = arg;
    buf_str(&r->text, line);
    buf_str(&r->text, S("\n"));
    if (str_starts(line, S(": watching")))
        r->open = true;
    if (str_starts(line, S("data:")))
        r->events++;
    return r->want == 0 || r->events < r->want;
}

static void *read_on(void *arg)
{
    struct reader *r = arg;
    struct http *http;
    auto_arena struct arena *a = arena_new(0);
    CHECK_OK(http_open(r->w->url, r->token, 30000, &http));
    (void)http_stream(http, a, str_of(r->path), on_line, r);
    http_close(http);
    return NULL;
}

static struct reader *reader_start(struct world *w, struct str token, const char *path, int want)
{
    struct reader *r = NEW(w->a, struct reader);
    *r = (struct reader){ .w = w, .token = token, .path = path, .want = want, .text = buf_new(arena_new(0)) };
    CHECK(pthread_create(&r->thread, NULL, read_on, r) == 0);
    for (int i = 0; i < 1000 && !r->open; i++)
        usleep(5000);
    CHECK(r->open);
    return r;
}

static struct str reader_end(struct reader *r)
{
    pthread_join(r->thread, NULL);
    struct str text = str_dup(r->w->a, buf_get(&r->text));
    arena_free(r->text.a);
    return text;
}

TEST(events_come_as_they_happen)
{
    struct world *w = world_new();
    struct reader *all = reader_start(w, w->admin, "/api/v1/watch", 3);
    struct reader *books = reader_start(w, w->admin, "/api/v1/watch?kind=bk", 2);
    struct reader *one = reader_start(w, w->admin, "/api/v1/watch?kind=Book&project=default&name=sea", 1);
    admin(w, M_PUT, BOOKS "/lake", BOOK("lake", "{\"title\":\"t\"}"), 201);
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 201);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\"}"), 201);
    struct str text = reader_end(all);
    CHECK(contains(text, "\"name\":\"lake\"") && contains(text, "\"kind\":\"Author\"") &&
          contains(text, "event: created\n"));
    text = reader_end(books);
    CHECK(contains(text, "\"name\":\"lake\"") && contains(text, "\"name\":\"sea\"") &&
          !contains(text, "Author"));
    text = reader_end(one);
    CHECK(contains(text, "\"name\":\"sea\"") && !contains(text, "lake"));
    world_free(w);
}

TEST(a_watch_goes_on_where_it_was)
{
    struct world *w = world_new();
    for (int i = 0; i < 30; i++)
        CHECK(call(w, w->admin, M_POST, AUTHORS, fmt(w->a, AUTHOR("a%d"), i)).status == 201);
    struct http_reply r = admin(w, M_GET, "/api/v1/events?kind=authors&limit=10", NULL, 200);
    yyjson_val *items = member(w, r.body, "items");
    CHECK(yyjson_arr_size(items) == 10);
    int64_t seq = yyjson_get_sint(yyjson_obj_get(yyjson_arr_get(items, 9), "seq"));
    const char *path = fmtz(w->a, "/api/v1/watch?kind=Author&after=%lld", (long long)seq);
    struct reader *reader = reader_start(w, w->admin, path, 21);
    CHECK(call(w, w->admin, M_POST, AUTHORS, S(AUTHOR("last"))).status == 201);
    struct str text = reader_end(reader);
    CHECK(!contains(text, "\"a9\"") && contains(text, "\"a10\"") && contains(text, "\"a29\"") &&
          contains(text, "\"last\""));
    CHECK(reader->events == 21);
    world_free(w);
}

TEST(others_projects_are_not_seen)
{
    struct world *w = world_new();
    struct str mine = token_for(w, "default", 1u << ROLE_VIEWER);
    struct reader *reader = reader_start(w, mine, "/api/v1/watch?after=0", 1);
    admin(w, M_PUT, "/api/v1/projects/side", PROJECT("side"), 201);
    admin(w, M_PUT, "/api/v1/projects/side/authors/bob", AUTHOR("bob"), 201);
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 201);
    struct str text = reader_end(reader);
    CHECK(!contains(text, "side") && !contains(text, "bob"));
    CHECK(call(w, mine, M_GET, "/api/v1/watch?project=side", S("")).status == 404);
    CHECK(call(w, mine, M_GET, "/api/v1/watch?after=-1", S("")).status == 400);
    world_free(w);
}

TEST(a_revoked_token_ends_its_streams)
{
    struct world *w = world_new();
    struct str token = token_for(w, "default", 1u << ROLE_VIEWER);
    struct reader *reader = reader_start(w, token, "/api/v1/watch?kind=Author", 0);
    CHECK_OK(token_revoke(w->auth, S("ann"), S("*"), str_sub(token, 5, 17)));
    reader_end(reader); /* returns only because the server ended it */
    world_free(w);
}

TEST(many_watchers_and_a_stop_in_their_midst)
{
    enum { N = 40 };
    struct world *w = world_new();
    struct reader *r[N];
    for (int i = 0; i < N; i++)
        r[i] = reader_start(w, w->admin, "/api/v1/watch?kind=Author", 0);
    for (int i = 0; i < 20; i++)
        CHECK(call(w, w->admin, M_POST, AUTHORS, fmt(w->a, AUTHOR("a%d"), i)).status == 201);
    usleep(300000);
    net_stop(w->net);
    w->net = NULL;
    for (int i = 0; i < N; i++) {
        reader_end(r[i]);
        CHECK(r[i]->events == 20);
    }
    world_free(w);
}
