// SPDX-License-Identifier: Apache-2.0
/* One kind through its life, over HTTP. */
#define SUITE resource
#include "help.h"

TEST(an_object_is_made_read_changed_listed_and_deleted)
{
    struct world *w = world_new();
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 201);
    struct http_reply r = admin(w, M_PUT, BOOKS "/sea",
                                BOOK("sea", "{\"title\":\"The Sea\",\"author\":\"ann\"}"), 201);
    CHECK_STR(member_str(w, r.body, "spec.title"), "The Sea");
    CHECK_STR(member_str(w, r.body, "metadata.project"), "default");
    CHECK(member_i64(w, r.body, "metadata.generation") == 1);
    int64_t rev = member_i64(w, r.body, "metadata.rev");
    r = admin(w, M_GET, BOOKS "/sea", NULL, 200);
    CHECK(member_i64(w, r.body, "metadata.rev") == rev);
    admin(w, M_PUT, BOOKS "/sea", str_z(w->a, r.body), 200); /* what was read may be applied as it is */
    CHECK(member_i64(w, admin(w, M_GET, BOOKS "/sea", NULL, 200).body, "metadata.rev") == rev);
    r = admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"The Lake\"}"), 200);
    CHECK(member_i64(w, r.body, "metadata.rev") > rev);
    r = admin(w, M_GET, BOOKS, NULL, 200);
    CHECK_STR(member_str(w, r.body, "kind"), "BookList");
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 1);
    admin(w, M_DELETE, BOOKS "/sea", NULL, 204);
    r = admin(w, M_GET, BOOKS "/sea", NULL, 404);
    CHECK_STR(member_str(w, r.body, "detail"), "there is no Book 'sea' in project 'default'");
    CHECK_STR(r.content_type, "application/problem+json");
    admin(w, M_DELETE, BOOKS "/sea", NULL, 404);
    world_free(w);
}

TEST(post_only_makes)
{
    struct world *w = world_new();
    admin(w, M_POST, AUTHORS, AUTHOR("ann"), 201);
    admin(w, M_POST, AUTHORS, AUTHOR("ann"), 409);
    admin(w, M_POST, AUTHORS, AUTHOR(""), 400);
    world_free(w);
}

TEST(an_old_rev_is_refused)
{
    struct world *w = world_new();
    struct http_reply r = admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"One\"}"), 201);
    struct str old = r.body;
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"Two\"}"), 200);
    r = admin(w, M_PUT, BOOKS "/sea", str_z(w->a, old), 409);
    CHECK_STR(member_str(w, r.body, "code"), "CONFLICT");
    admin(w, M_DELETE, BOOKS "/sea", NULL, 204);
    admin(w, M_PUT, BOOKS "/sea", str_z(w->a, old), 404); /* one that is gone has no rev */
    world_free(w);
}

static void refused(struct world *w, const char *body, const char *field, const char *detail)
{
    struct http_reply r = admin(w, M_PUT, BOOKS "/sea", body, 400);
    cr_assert(str_eq(member_str(w, r.body, "field"), str_of(field)), "field of %.*s", STR(r.body));
    cr_assert(contains(r.body, detail), "detail of %.*s", STR(r.body));
}

TEST(what_is_wrong_is_said_at_its_path)
{
    struct world *w = world_new();
    refused(w, BOOK("sea", "{\"titel\":\"x\"}"), "spec.titel", "title");
    refused(w, BOOK("sea", "{}"), "spec.title", "spec.title");
    refused(w, BOOK("sea", "{\"title\":7}"), "spec.title", "spec.title");
    refused(w, BOOK("sea", "{\"title\":\"t\",\"pages\":0}"), "spec.pages", "spec.pages");
    refused(w, BOOK("sea", "{\"title\":\"sea\"}"), "spec.title", "not called like its file");
    refused(w, BOOK("lake", "{\"title\":\"t\"}"), "metadata.name", "as in the path");
    refused(w, BOOK("sea", "{\"title\":\"t\",\"author\":\"bob\"}"), "spec.author",
            "spec.author: there is no Author 'bob' in project 'default'");
    refused(w, BOOK("sea", "{\"title\":\"t\",\"also\":[\"bob\"]}"), "spec.also[0]",
            "there is no Author 'bob'");
    refused(w, BOOK("sea", "{\"title\":\"t\",\"parts\":[{},{\"editor\":\"bob\"}]}"), "spec.parts[1].editor",
            "there is no Author 'bob'");
    refused(w, "{\"apiVersion\":\"dhow/v2\",\"kind\":\"Book\",\"metadata\":{},\"spec\":{}}", "apiVersion",
            "dhow/v1");
    refused(w, "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Author\",\"metadata\":{},\"spec\":{}}", "kind",
            "Book");
    refused(w, "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Book\",\"metadata\":{},\"specs\":{}}", "specs",
            "spec");
    admin(w, M_PUT, BOOKS "/sea", "{\"apiVersion\":", 400);
    admin(w, M_PUT, BOOKS "/sea", "", 400);
    admin(w, M_PUT, BOOKS "/Sea", BOOK("Sea", "{\"title\":\"t\"}"), 400);
    admin(w, M_PUT, BOOKS "/..%2fx", BOOK("", "{\"title\":\"t\"}"), 400);
    world_free(w);
}

TEST(frozen_fields_stay)
{
    struct world *w = world_new();
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\",\"pages\":7}"), 201);
    refused(w, BOOK("sea", "{\"title\":\"t\",\"pages\":8}"), "spec.pages", "spec.pages");
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"u\",\"pages\":7}"), 200);
    world_free(w);
}

TEST(secrets_are_never_shown_and_stay_when_left_out)
{
    struct world *w = world_new();
    struct http_reply r = admin(w, M_PUT, BOOKS "/sea",
                                BOOK("sea", "{\"title\":\"t\",\"secret\":\"hush\",\"owner\":\"ann\"}"), 201);
    CHECK(!contains(r.body, "hush"));
    r = admin(w, M_GET, BOOKS "/sea", NULL, 200);
    CHECK(!contains(r.body, "hush") && contains(r.body, "\"ann\""));
    admin(w, M_PUT, BOOKS "/sea", str_z(w->a, r.body), 200);
    r = admin(w, M_PUT, BOOKS "/sea?dryRun=1", BOOK("sea", "{\"title\":\"t\",\"secret\":\"louder\"}"), 200);
    CHECK(!contains(r.body, "hush") && !contains(r.body, "louder"));
    struct book_spec spec;
    CHECK_OK(resource_get(w->store, w->a, &book_resource, S("default"), S("sea"), NULL, &spec, NULL));
    CHECK_STR(spec.secret, "hush");
    r = call(w, token_for(w, "default", 1u << ROLE_VIEWER), M_GET, BOOKS "/sea", S(""));
    CHECK(r.status == 200 && contains(r.body, "***") && !contains(r.body, "\"ann\""));
    world_free(w);
}

TEST(people_do_not_write_status)
{
    struct world *w = world_new();
    admin(
        w, M_PUT, BOOKS "/sea",
        "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Book\",\"metadata\":{\"name\":\"sea\"},\"spec\":{\"title\":\"t\"},"
        "\"status\":{\"readers\":9}}",
        201);
    struct book_status status = { .readers = 3, .note = S("good") };
    CHECK_OK(resource_status(w->store, w->a, &book_resource, S("default"), S("sea"), 1, &status));
    struct http_reply r = admin(w, M_GET, BOOKS "/sea", NULL, 200);
    CHECK(member_i64(w, r.body, "status.readers") == 3);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"u\"}"), 200);
    CHECK(member_i64(w, admin(w, M_GET, BOOKS "/sea", NULL, 200).body, "status.readers") == 3);
    CHECK_ERR(resource_status(w->store, w->a, &book_resource, S("default"), S("sea"), 1, &status), CONFLICT);
    world_free(w);
}

TEST(a_dry_run_says_what_would_change)
{
    struct world *w = world_new();
    struct http_reply r = admin(w, M_PUT, BOOKS "/sea?dryRun=1", BOOK("sea", "{\"title\":\"t\"}"), 200);
    CHECK_STR(member_str(w, r.body, "change"), "created");
    admin(w, M_GET, BOOKS "/sea", NULL, 404);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\",\"owner\":\"ann\"}"), 201);
    r = admin(w, M_PUT, BOOKS "/sea?dryRun=1", BOOK("sea", "{\"title\":\"u\",\"parts\":[{}]}"), 200);
    CHECK_STR(member_str(w, r.body, "change"), "updated");
    CHECK(contains(r.body, "{\"path\":\"spec.title\",\"before\":\"t\",\"after\":\"u\"}"));
    CHECK(contains(r.body, "{\"path\":\"spec.owner\",\"before\":\"ann\"}"));
    CHECK(contains(r.body, "{\"path\":\"spec.parts\",\"after\":[{}]}"));
    CHECK(member_i64(w, r.body, "changesTotal") == 3);
    r = admin(w, M_PUT, BOOKS "/sea?dryRun=1", BOOK("sea", "{\"title\":\"t\",\"owner\":\"ann\"}"), 200);
    CHECK_STR(member_str(w, r.body, "change"), "unchanged");
    admin(w, M_PUT, BOOKS "/sea?dryRun=1", BOOK("sea", "{\"title\":\"t\",\"author\":\"bob\"}"), 400);
    admin(w, M_DELETE, BOOKS "/sea?dryRun=1", NULL, 204);
    admin(w, M_GET, BOOKS "/sea", NULL, 200);
    world_free(w);
}

TEST(what_is_referred_to_stays)
{
    struct world *w = world_new();
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 201);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\",\"parts\":[{\"editor\":\"ann\"}]}"), 201);
    admin(w, M_PUT, BOOKS "/lake", BOOK("lake", "{\"title\":\"t\",\"also\":[\"ann\"]}"), 201);
    struct http_reply r = admin(w, M_DELETE, AUTHORS "/ann", NULL, 409);
    CHECK_STR(member_str(w, r.body, "detail"), "Author 'ann' is still referred to by Book/lake, Book/sea");
    admin(w, M_DELETE, BOOKS "/sea", NULL, 204);
    admin(w, M_DELETE, BOOKS "/lake", NULL, 204);
    admin(w, M_DELETE, AUTHORS "/ann", NULL, 204);
    world_free(w);
}

TEST(lists_come_in_pages_and_by_label)
{
    struct world *w = world_new();
    for (int i = 0; i < 7; i++) {
        struct str body = fmt(
            w->a,
            "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Author\",\"metadata\":{\"name\":\"a%d\",\"labels\":"
            "{\"odd\":\"%s\",\"all\":\"1\"}},\"spec\":{}}",
            i, i % 2 ? "yes" : "no");
        CHECK(call(w, w->admin, M_POST, AUTHORS, body).status == 201);
    }
    struct http_reply r = admin(w, M_GET, AUTHORS "?limit=3", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 3);
    CHECK_STR(member_str(w, r.body, "next"), "a2");
    r = admin(w, M_GET, AUTHORS "?limit=4&after=a2", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 4 && !member(w, r.body, "next"));
    r = admin(w, M_GET, AUTHORS "?labels=odd=yes,all=1", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 3 && !member(w, r.body, "next"));
    r = admin(w, M_GET, AUTHORS "?labels=odd=yes&limit=2", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 2);
    CHECK_STR(member_str(w, r.body, "next"), "a4");
    r = admin(w, M_GET, AUTHORS "?labels=odd=yes&limit=2&after=a4", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 1 && !member(w, r.body, "next"));
    admin(w, M_GET, AUTHORS "?limit=0", NULL, 400);
    admin(w, M_GET, AUTHORS "?limit=x", NULL, 400);
    admin(w, M_GET, AUTHORS "?labels=x", NULL, 400);
    world_free(w);
}

TEST(actions_run_and_are_recorded)
{
    struct world *w = world_new();
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\"}"), 201);
    struct http_reply r = admin(w, M_POST, BOOKS "/sea/rename", "{\"to\":\"x\"}", 200);
    CHECK_STR(r.body, "{\"renamed\":\"sea\",\"to\":\"x\"}");
    admin(w, M_POST, BOOKS "/sea/rename", "{}", 400);
    admin(w, M_POST, BOOKS "/sea/rename", "{\"to\":\"bad\"}", 422);
    admin(w, M_POST, BOOKS "/lake/rename", "{\"to\":\"x\"}", 404);
    r = admin(w, M_GET, "/api/v1/audit?action=books.rename", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 3);
    CHECK(contains(r.body, "\"outcome\":\"GATE\"") && contains(r.body, "\"outcome\":\"ok\""));
    world_free(w);
}

TEST(what_is_internal_is_not_shown)
{
    struct world *w = world_new();
    log_setup(LOG_ERROR, true);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\"}"), 201);
    struct http_reply r = admin(w, M_POST, BOOKS "/sea/break", NULL, 500);
    CHECK(!contains(r.body, "/var/lib") && contains(r.body, "requestId"));
    world_free(w);
}

TEST(kinds_that_people_do_not_make)
{
    struct world *w = world_new();
    struct author_spec spec = { .about = S("grey") };
    CHECK_OK(resource_create(w->store, w->a, &stone_resource, S("rec"), S(""), S("one"), &spec));
    CHECK_OK(resource_create(w->store, w->a, &stone_resource, S("rec"), S(""), S("one"),
                             &spec)); /* the same: fine */
    spec.about = S("red");
    CHECK_ERR(resource_create(w->store, w->a, &stone_resource, S("rec"), S(""), S("one"), &spec), CONFLICT);
    struct http_reply r = admin(w, M_GET, "/api/v1/stones/one", NULL, 200);
    CHECK(!member(w, r.body, "metadata.project"));
    admin(w, M_PUT, "/api/v1/stones/one", "{}", 405);
    admin(w, M_DELETE, "/api/v1/stones/one", NULL, 405);
    CHECK_ERR(resource_create(w->store, w->a, &author_resource, S("rec"), S("nowhere"), S("x"), &spec),
              NOT_FOUND);
    CHECK_ERR(resource_create(w->store, w->a, &author_resource, S("rec"), S("default"), S("X"), &spec),
              INVALID);
    world_free(w);
}

/* ---- projects ---- */

TEST(projects)
{
    struct world *w = world_new();
    admin(w, M_GET, "/api/v1/projects/default", NULL, 200);
    admin(w, M_PUT, "/api/v1/projects/side", PROJECT("side"), 201);
    admin(w, M_PUT, "/api/v1/projects/side/authors/ann", AUTHOR("ann"), 201);
    admin(w, M_GET, AUTHORS "/ann", NULL, 404);
    struct http_reply r = admin(w, M_DELETE, "/api/v1/projects/side", NULL, 409);
    CHECK_STR(member_str(w, r.body, "detail"), "Project 'side' is not empty: Author/ann");
    admin(w, M_DELETE, "/api/v1/projects/side/authors/ann", NULL, 204);
    admin(w, M_DELETE, "/api/v1/projects/side", NULL, 204);
    admin(w, M_PUT, "/api/v1/projects/side/authors/ann", AUTHOR("ann"), 404);
    admin(w, M_GET, "/api/v1/projects/side/authors", NULL, 404);
    world_free(w);
}

TEST(what_is_not_yours_looks_like_what_is_not_there)
{
    struct world *w = world_new();
    admin(w, M_PUT, "/api/v1/projects/side", PROJECT("side"), 201);
    admin(w, M_PUT, "/api/v1/projects/side/authors/ann", AUTHOR("ann"), 201);
    struct str mine = token_for(w, "default", 1u << ROLE_ADMIN);
    const char *ends[] = { "", "/authors", "/authors/ann" }, *names[] = { "side", "none" };
    for (size_t i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            const char *path = fmtz(w->a, "/api/v1/projects/%s%s", names[k], ends[i]);
            struct http_reply r = call(w, mine, M_GET, path, S(""));
            CHECK(r.status == 404);
            CHECK_STR(member_str(w, r.body, "detail"), fmtz(w->a, "there is no Project '%s'", names[k]));
        }
    CHECK(call(w, mine, M_POST, "/api/v1/projects", S(PROJECT("more"))).status == 403);
    CHECK(call(w, mine, M_DELETE, "/api/v1/projects/default", S("")).status == 403);
    struct http_reply r = call(w, mine, M_GET, "/api/v1/projects", S(""));
    CHECK(r.status == 200 && !contains(r.body, "side") && contains(r.body, "default"));
    CHECK(call(w, mine, M_GET, "/api/v1/events?project=side", S("")).status == 404);
    r = call(w, mine, M_GET, "/api/v1/events", S(""));
    CHECK(r.status == 200 && !contains(r.body, "side"));
    world_free(w);
}

/* ---- two writers at once ---- */

struct writer {
    struct world *w;
    int made;
};

static void *put_often(void *arg)
{
    struct writer *me = arg;
    struct world mine = *me->w;
    mine.a = arena_new(0);
    for (int i = 0; i < 20; i++)
        me->made += call(&mine, mine.admin, M_POST, AUTHORS, fmt(mine.a, AUTHOR("n%d"), i)).status == 201;
    arena_free(mine.a);
    return NULL;
}

TEST(of_two_who_make_the_same_one_wins)
{
    struct world *w = world_new();
    struct writer v[3];
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        v[i] = (struct writer){ w, 0 };
        CHECK(pthread_create(&t[i], NULL, put_often, &v[i]) == 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    CHECK(v[0].made + v[1].made + v[2].made == 20);
    struct http_reply r = admin(w, M_GET, "/api/v1/audit?action=authors.create", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 20);
    r = admin(w, M_GET, "/api/v1/audit/verify", NULL, 200);
    CHECK(yyjson_get_bool(member(w, r.body, "ok")));
    world_free(w);
}
