// SPDX-License-Identifier: Apache-2.0
/* Who answers what: weights and sticky keys. */
#define SUITE serve_traffic
#include "deploy.h"
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_MAX = 8192 };

/* ---- a client that sees headers ---- */

/* The whole reply to a prediction with these header lines ("X-User: a\r\n"). */
static struct str raw(struct world *w, const char *headers)
{
    struct str at = net_address(w->net), port = str_sub(at, str_find(at, ':') + 1, at.n);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct str body = S(
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[0,0]}]}");
    struct str text = fmt(w->l.a,
                          "POST /v2/models/late/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                          "Authorization: Bearer %.*s\r\n%sContent-Length: %zu\r\n\r\n%.*s",
                          STR(w->admin), headers, body.n, STR(body));
    char *in = arena_alloc(w->l.a, HEAD_MAX, 1);
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)atoi(str_z(w->l.a, port)));
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK(send(fd, text.p, text.n, 0) == (ssize_t)text.n);
    for (ssize_t got; n < HEAD_MAX && (got = recv(fd, in + n, HEAD_MAX - n, 0)) > 0;)
        n += (size_t)got;
    close(fd);
    CHECK(has((struct str){ in, n }, "200 OK"));
    return (struct str){ in, n };
}

static const char *version_in(struct str reply)
{
    return has(reply, "\"model_version\":\"1\"") ? "1" : has(reply, "\"model_version\":\"2\"") ? "2" : "?";
}

/* ---- weights ---- */

TEST(weights_split_by_their_sum)
{
    struct world *w = versions(3);
    int hits[10];
    spec_put(w,
             "{\"model\":\"late\",\"traffic\":[{\"version\":\"late.1\",\"share\":1},"
             "{\"version\":\"late.2\",\"share\":2},{\"version\":\"late.3\",\"share\":5}]}",
             201);
    wait_traffic(w, 3);
    counts(w, "r", 800, hits);
    cr_assert(hits[1] > 60 && hits[1] < 140 && hits[2] > 150 && hits[2] < 250 && hits[3] > 430 &&
                  hits[3] < 570,
              "%d %d %d", hits[1], hits[2], hits[3]);
    struct deployment_status s = deployment_now(w);
    CHECK(((const struct traffic *)s.traffic.v)[2].share == 0.625 && s.phase == DEPLOYMENT_SERVING);
    want(w, M_POST, "/api/v1/projects/default/deployments/late/rollback", "{}", 409);
    world_free(w);
}

static err refuse_tx(struct tx *tx, void *arg)
{
    (void)arg;
    return registry_refuse(tx, S("t"), S("default"), S("late.2"), S("no good"));
}

TEST(a_version_that_may_not_be_served_leaves_its_share_to_the_others)
{
    struct world *w = versions(2);
    int hits[10];
    spec_put(w,
             "{\"model\":\"late\",\"traffic\":[{\"version\":\"late.2\",\"share\":9},"
             "{\"version\":\"late.1\",\"share\":1}]}",
             201);
    wait_traffic(w, 2);
    CHECK_OK(store_write(w->l.store, refuse_tx, NULL));
    wait_traffic(w, 1);
    counts(w, "r", 50, hits);
    CHECK(hits[1] == 50);
    CHECK(has(deployment_now(w).message, "version late.2 is refused"));
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.2\"}", 200);
    for (int i = 0; i < 2000 && ((const struct traffic *)deployment_now(w).traffic.v)->share < 1; i++)
        nap();
    counts(w, "r", 50, hits); /* a slip of the pen takes nobody's answers away */
    CHECK(hits[1] == 50);
    world_free(w);
}

TEST(what_contradicts_itself_is_refused)
{
    struct world *w = versions(2);
    const char *const wrong[] = {
        "{\"service\":\"x\"}",
        "{\"model\":\"late\",\"version\":\"late.1\",\"traffic\":[{\"version\":\"late.1\",\"share\":1}]}",
        "{\"model\":\"late\",\"traffic\":[{\"version\":\"late.1\",\"share\":0}]}",
        "{\"model\":\"late\",\"traffic\":[{\"version\":\"late.1\",\"share\":1},"
        "{\"version\":\"late.1\",\"share\":1}]}",
        "{\"model\":\"late\",\"abTest\":{\"a\":\"late.1\"}}",
        "{\"model\":\"late\",\"abTest\":{\"a\":\"late.1\",\"b\":\"late.1\"}}",
        "{\"model\":\"late\",\"sticky\":{\"cookie\":\"a b\"}}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        spec_put(w, wrong[i], 400);
    world_free(w);
}

/* ---- sticky keys ---- */

#define HALVES \
    "\"model\":\"late\",\"traffic\":[{\"version\":\"late.1\",\"share\":1},{\"version\":\"late.2\",\"share\":1}]"

TEST(a_header_chooses_before_a_cookie_before_an_id)
{
    struct world *w = versions(2);
    int seen[3] = { 0 };
    spec_put(w, "{" HALVES ",\"sticky\":{\"header\":\"X-User\",\"cookie\":\"arm\"}}", 201);
    wait_traffic(w, 2);
    for (int i = 0; i < 40; i++) {
        const char *user = fmtz(w->l.a, "x-user: u%d\r\n", i);
        const char *v = version_in(raw(w, user));
        seen[*v - '0']++;
        CHECK_STR(version_in(raw(w, user)), v); /* each request has an id of its own */
        CHECK_STR(version_in(raw(w, fmtz(w->l.a, "Cookie: arm=c%d\r\n%s", i, user))), v);
        CHECK(!has(raw(w, user), "Set-Cookie"));
    }
    CHECK(seen[1] > 5 && seen[2] > 5);
    world_free(w);
}

TEST(who_has_no_cookie_is_given_one_that_holds)
{
    struct world *w = versions(2);
    int seen[3] = { 0 };
    spec_put(w, "{" HALVES ",\"sticky\":{\"cookie\":\"arm\"}}", 201);
    wait_traffic(w, 2);
    for (int i = 0; i < 30; i++) {
        struct str first = raw(w, ""), mark = S("Set-Cookie: arm=");
        const char *at = memmem(first.p, first.n, mark.p, mark.n);
        CHECK(at);
        struct str rest = str_sub(first, (size_t)(at - first.p) + mark.n, first.n);
        struct str value = str_sub(rest, 0, str_find(rest, ';'));
        CHECK(value.n == 26 && has(rest, "HttpOnly; SameSite=Lax"));
        seen[*version_in(first) - '0']++;
        for (int k = 0; k < 3; k++) {
            struct str next = raw(w, fmtz(w->l.a, "Cookie: other=1; arm=%.*s\r\n", STR(value)));
            CHECK_STR(version_in(next), version_in(first));
            CHECK(!has(next, "Set-Cookie"));
        }
    }
    CHECK(seen[1] > 3 && seen[2] > 3);
    world_free(w);
}

/* ---- what runs it ---- */

static struct traffic the_one(struct world *w)
{
    wait_traffic(w, 1);
    return *(const struct traffic *)deployment_now(w).traffic.v;
}

TEST(its_traffic_says_what_runs_it_and_where)
{
    struct world *w = versions(1);
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\"}", 201);
    CHECK_STR(the_one(w).runtime, "onnx");
    CHECK_STR(the_one(w).device, "cpu");
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\",\"device\":\"cpu\",\"runtime\":\"auto\"}", 200);
    for (int i = 0; i < 2000 && !the_one(w).why.n; i++)
        nap();
    CHECK_STR(the_one(w).runtime, "onnx");
    world_free(w);
}

TEST(a_device_or_runtime_that_is_not_there_is_told)
{
    static const char *const specs[] = { "\"device\":\"abacus\"", "\"runtime\":\"native\"" };
    for (size_t i = 0; i < 2; i++) {
        struct world *w = versions(1);
        int status;
        spec_put(w, fmtz(w->l.a, "{\"model\":\"late\",\"version\":\"late.1\",%s}", specs[i]), 201);
        wait_phase(w, DEPLOYMENT_FAILED);
        CHECK(has(deployment_now(w).message, i ? "runtime native" : "no device 'abacus'"));
        (void)answered_by(w, "x", 0, &status);
        CHECK(status == 503);
        world_free(w);
    }
}
