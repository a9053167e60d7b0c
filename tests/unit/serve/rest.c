// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_rest
#include "help.h"
#include "serve/inflate.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define INFER "/v2/models/late/infer"
#define INPUT "{\"name\":\"features\",\"shape\":[2,2],\"datatype\":\"FP32\","
#define JSON_DATA "\"data\":[0.1,2,0.75,-3]}"
#define BINARY_DATA "\"parameters\":{\"binary_data_size\":16}}"

static const float rows[] = { 0.1f, 2, 0.75f, -3 };
#define ROWS ((struct str){ (const char *)rows, sizeof rows })

static struct world *one_version(void)
{
    struct world *w = world_new();
    struct str out;
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return w;
}

/* ---- an exchange with headers of its own ---- */

struct reply {
    int status;
    struct str head, body;
};

static struct str all_of(struct arena *a, int fd)
{
    struct buf b = buf_new(a);
    for (ssize_t n; (n = recv(fd, buf_room(&b, 65536), 65536, 0)) > 0;)
        b.n += (size_t)n;
    return buf_get(&b);
}

static struct reply post(struct world *w, const char *path, const char *headers, struct str body)
{
    struct buf b = buf_new(w->l.a);
    struct sockaddr_in at = { .sin_family = AF_INET };
    int64_t port, status;
    CHECK(str_i64(str_sub(w->url, strlen("http://127.0.0.1:"), w->url.n), &port));
    at.sin_port = htons((uint16_t)port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    buf_fmt(&b,
            "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer %.*s\r\n%s"
            "Content-Length: %zu\r\n\r\n",
            path, STR(w->admin), headers, body.n);
    buf_str(&b, body);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(send(fd, b.p, b.n, MSG_NOSIGNAL) == (ssize_t)b.n);
    struct str got = all_of(w->l.a, fd);
    close(fd);
    char *end = memmem(got.p, got.n, "\r\n\r\n", 4);
    CHECK(end && str_i64(str_sub(got, 9, 12), &status));
    size_t n = (size_t)(end - got.p) + 4;
    return (struct reply){ (int)status, str_sub(got, 0, n), str_sub(got, n, got.n) };
}

/* With a part of JSON and a part of bytes. */
static struct reply post_binary(struct world *w, const char *json, struct str bytes)
{
    struct buf b = buf_new(w->l.a);
    buf_str(&b, str_of(json));
    buf_str(&b, bytes);
    return post(w, INFER, fmtz(w->l.a, "Inference-Header-Content-Length: %zu\r\n", strlen(json)),
                buf_get(&b));
}

static size_t json_length(const struct reply *r)
{
    const char *at = memmem(r->head.p, r->head.n, "Inference-Header-Content-Length: ", 33);
    CHECK(at);
    return strtoul(at + 33, NULL, 10);
}

/* ---- tests ---- */

TEST(json_and_binary_give_the_same_scores)
{
    struct world *w = one_version();
    struct http_reply j = want(w, M_POST, INFER, "{\"inputs\":[" INPUT JSON_DATA "]}", 200);
    static const char *const asks[] = {
        ",\"outputs\":[{\"name\":\"probability\",\"parameters\":{\"binary_data\":true}}]",
        ",\"parameters\":{\"binary_data_output\":true}",
        ",\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":"
        "\"probability\"}]"
    };
    const float *scores = NULL;
    for (int i = 0; i < 3; i++) {
        struct reply r = post_binary(w, fmtz(w->l.a, "{\"inputs\":[" INPUT BINARY_DATA "]%s}", asks[i]),
                                     ROWS);
        CHECK(r.status == 200 && has(r.head, "Content-Type: application/octet-stream\r\n"));
        size_t n = json_length(&r);
        CHECK_STR(
            str_sub(r.body, 0, n),
            "{\"model_name\":\"late\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"probability\",\"datatype\":"
            "\"FP32\",\"shape\":[2,1],\"parameters\":{\"binary_data_size\":8}}]}");
        CHECK(r.body.n == n + 8);
        scores = (const float *)str_dup(w->l.a, str_sub(r.body, n, r.body.n)).p;
    }
    float both[2];
    memcpy(both, scores, sizeof both);
    struct buf b = buf_new(w->l.a);
    write_f32(&b, both[0]);
    buf_str(&b, S(","));
    write_f32(&b, both[1]);
    CHECK(has(j.body, fmtz(w->l.a, "\"data\":[%.*s]", STR(buf_get(&b)))));
    struct reply mixed = post_binary(w, "{\"inputs\":[" INPUT BINARY_DATA "]}", ROWS);
    CHECK(mixed.status == 200 && has(mixed.head, "application/json"));
    CHECK_STR(mixed.body, j.body);
    world_free(w);
}

TEST(a_body_may_be_the_tensor_alone)
{
    struct world *w = one_version();
    struct reply r = post(w, INFER, "Inference-Header-Content-Length: 0\r\n", ROWS);
    CHECK(r.status == 200 && has(r.body, "\"shape\":[2,1],\"parameters\":{\"binary_data_size\":8}"));
    r = post(w, INFER, "Inference-Header-Content-Length: 0\r\n", str_sub(ROWS, 0, 8));
    CHECK(r.status == 200 && has(r.body, "\"shape\":[1,1],\"parameters\":{\"binary_data_size\":4}"));
    CHECK(post(w, INFER, "Inference-Header-Content-Length: 0\r\n", str_sub(ROWS, 0, 7)).status == 400);
    CHECK(post(w, INFER, "Inference-Header-Content-Length: 0\r\n", str_sub(ROWS, 0, 12)).status == 400);
    CHECK(post(w, INFER, "Inference-Header-Content-Length: 0\r\n", S("")).status == 400);
    CHECK(post(w, "/v2/models/none/infer", "Inference-Header-Content-Length: 0\r\n", ROWS).status == 404);
    world_free(w);
}

TEST(classes_come_in_place_of_scores)
{
    struct world *w = one_version();
#define CLASSES(more) "\"outputs\":[{\"name\":\"probability\",\"parameters\":{\"classification\":2" more "}}]"
    struct http_reply j = want(w, M_POST, INFER, "{\"inputs\":[" INPUT JSON_DATA "]," CLASSES("") "}", 200);
    CHECK(has(j.body, "\"datatype\":\"BYTES\",\"shape\":[2,1],\"data\":[\"0.268941:0\",\"0.731059:0\"]"));
    struct reply r = post_binary(
        w, "{\"inputs\":[" INPUT BINARY_DATA "]," CLASSES(",\"binary_data\":true") "}", ROWS);
    CHECK(r.status == 200 && has(r.body, "\"parameters\":{\"binary_data_size\":28}}]}\x0a"));
    size_t n = json_length(&r);
    CHECK(r.body.n == n + 28 && !memcmp(r.body.p + n,
                                        "\x0a\0\0\0"
                                        "0.268941:0\x0a\0\0\0"
                                        "0.731059:0",
                                        28));
    world_free(w);
}

TEST(bodies_may_be_compressed_both_ways)
{
    struct world *w = one_version();
    struct str plain = S("{\"inputs\":[" INPUT JSON_DATA "]}"), body;
    struct str want_body = want(w, M_POST, INFER, plain.p, 200).body;
    static const char *const codings[] = { "gzip", "deflate" };
    for (int i = 0; i < 2; i++) {
        CHECK_OK(body_deflate(w->l.a, str_of(codings[i]), plain, &body));
        const char *h = fmtz(w->l.a, "Content-Encoding: %s\r\nAccept-Encoding: %s\r\n", codings[i],
                             codings[i]);
        struct reply r = post(w, INFER, h, body);
        CHECK(r.status == 200 && !has(r.head, "Content-Encoding")); /* too short for it */
        CHECK_STR(r.body, want_body);
        CHECK(post(w, INFER, h, str_sub(body, 0, body.n - 1)).status == 400);
        CHECK(post(w, INFER, h, fmt(w->l.a, "%.*sx", 1, body.p)).status == 400);
        CHECK(post(w, INFER, h, plain).status == 400);
    }
    struct buf b = buf_new(w->l.a);
    buf_str(&b, S("{\"inputs\":[{\"name\":\"features\",\"shape\":[500,2],\"datatype\":\"FP32\",\"data\":[1"));
    for (int i = 1; i < 1000; i++)
        buf_fmt(&b, ",%d", i);
    buf_str(&b, S("]}]}"));
    struct reply r = post(w, INFER, "", buf_get(&b)), z;
    for (int i = 0; i < 2; i++) {
        z = post(w, INFER, fmtz(w->l.a, "Accept-Encoding: br, %s;q=0.5, x\r\n", codings[i]), buf_get(&b));
        CHECK(z.status == 200 && has(z.head, fmtz(w->l.a, "Content-Encoding: %s\r\n", codings[i])));
        CHECK(z.body.n < r.body.n / 4);
        CHECK_OK(body_inflate(w->l.a, str_of(codings[i]), z.body, 1 << 20, &body));
        CHECK_STR(body, r.body);
    }
    CHECK(!has(post(w, INFER, "Accept-Encoding: gzip;q=0, *\r\n", buf_get(&b)).head, "Content-Encoding"));
    r = post(w, INFER, "Content-Encoding: br\r\n", plain);
    CHECK(r.status == 415 && has(r.head, "Accept-Encoding: gzip, deflate\r\n") &&
          has(r.body, "{\"error\":\""));
    CHECK(post(w, INFER, "Content-Encoding: identity\r\n", plain).status == 200);
    world_free(w);
}

TEST(the_length_of_the_json_counts_what_was_inflated)
{
    struct world *w = one_version();
    struct buf b = buf_new(w->l.a);
    struct str json = S("{\"inputs\":[" INPUT BINARY_DATA "]}"), body;
    buf_str(&b, json);
    buf_str(&b, ROWS);
    CHECK_OK(body_deflate(w->l.a, S("gzip"), buf_get(&b), &body));
    struct reply r = post(
        w, INFER, fmtz(w->l.a, "Content-Encoding: gzip\r\nInference-Header-Content-Length: %zu\r\n", json.n),
        body);
    CHECK(r.status == 200);
    world_free(w);
}

TEST(a_bomb_is_found_while_it_inflates)
{
    struct world *w = one_version();
    struct buf b = buf_new(w->l.a);
    struct str body;
    memset(buf_room(&b, BODY_BYTES_MAX + 1), ' ', BODY_BYTES_MAX + 1);
    b.n = BODY_BYTES_MAX + 1;
    CHECK_OK(body_deflate(w->l.a, S("gzip"), buf_get(&b), &body));
    CHECK(body.n < 1 << 20);
    struct reply r = post(w, INFER, "Content-Encoding: gzip\r\n", body);
    CHECK(r.status == 413 && has(r.body, "{\"error\":\""));
    auto_arena struct arena *a = arena_new(1 << 20);
    CHECK_ERR(body_inflate(a, S("gzip"), body, 100000, &body), TOO_LARGE);
    world_free(w);
}

TEST(what_is_wrong_is_told_in_the_protocols_form)
{
    struct world *w = one_version();
    static const struct {
        const char *path, *headers, *body;
        int status;
        const char *says;
    } rows_[] = {
        { "/v2/models/none/infer", "", "{\"inputs\":[" INPUT JSON_DATA "]}", 404, "none" },
        { "/v2/models/none/infer", "", "{}", 404, "none" },
        { "/v2/models/none/infer", "", "{", 404, "none" },
        { INFER, "Inference-Header-Content-Length: -5\r\n", "{}", 400,
          "Unable to parse Inference-Header-Content-Length" },
        { INFER, "Inference-Header-Content-Length: 9\r\n", "{}", 400, "got: 9" },
        { INFER, "", "{\"inputs\":[" INPUT "\"data\":[1,2,3]}]}", 400,
          "Shape does not match true shape of 'data' field" },
        { INFER, "", "{\"inputs\":[", 400, "failed to parse the request JSON buffer" },
        { INFER, "",
          "{\"inputs\":[{\"name\":\"features\",\"shape\":[1],\"datatype\":\"BF16\",\"data\":[1]}]}", 400,
          "receiving BF16 data via JSON is not supported" },
        { INFER, "", "{\"inputs\":[" INPUT JSON_DATA "],\"parameters\":{\"triton_x\":1}}", 400,
          "reserved for Triton" },
    };
    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++) {
        struct reply r = post(w, rows_[i].path, rows_[i].headers, str_of(rows_[i].body));
        cr_assert(r.status == rows_[i].status && has(r.body, rows_[i].says) &&
                      str_starts(r.body, S("{\"error\":\"")),
                  "%zu: %.*s", i, STR(r.body));
    }
    world_free(w);
}
