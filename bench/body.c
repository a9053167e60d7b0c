// SPDX-License-Identifier: Apache-2.0
/* Bodies of predictions over REST: bench/body. One round of `read` takes a whole body apart into tensors: an MLP's 16
 * numbers, an image of 27,648 numbers in JSON (as numpy prints them rounded, and as doubles with all their digits), the
 * same image in binary; beside yyjson's time for the same JSON, which only makes a document of it. One round of `write`
 * is the JSON of an output of 1 or 1,000 numbers. Figures are the best of many rounds. */
#include "serve/rest.h"
#include <stdio.h>

enum { IMAGE = 27648, ROUNDS = 300 };

static void line(const char *name, double value, const char *unit, const char *peer, double peer_value)
{
    printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", ", name, value, unit);
    if (peer)
        printf("\"peer\": \"%s\", \"peer_value\": %.4g, \"ratio\": %.4g}\n", peer, peer_value,
               value / peer_value);
    else
        printf("\"peer\": null, \"peer_value\": null, \"ratio\": null}\n");
}

static err body_take(struct arena *a, struct str body, struct str json_bytes, struct infer **out)
{
    struct header *h = NEW(a, struct header);
    struct infer *c = *out = NEW(a, struct infer);
    *h = (struct header){ S("inference-header-content-length"), json_bytes };
    c->a = a;
    c->adapter = NEW(a, struct rest);
    c->r = NEW(a, struct req);
    *c->r = (struct req){ .a = a, .body = body, .headers = h, .headers_n = 1, .route = NEW(a, struct route) };
    return rest_read(c);
}

static double best_read(struct str body, struct str json_bytes)
{
    double best = INFINITY;
    auto_arena struct arena *a = arena_new(0);
    for (int i = 0; i < ROUNDS; i++) {
        struct infer *c;
        int64_t start = mono_ns();
        err e = body_take(a, body, json_bytes, &c);
        best = fmin(best, (double)(mono_ns() - start));
        if (e) {
            fprintf(stderr, "bench: %.*s\n", STR(e->text));
            return NAN;
        }
        arena_reset(a);
    }
    return best;
}

static double best_yyjson(struct str body)
{
    double best = INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t start = mono_ns();
        yyjson_doc *d = yyjson_read(body.p, body.n, 0);
        best = fmin(best, (double)(mono_ns() - start));
        yyjson_doc_free(d);
    }
    return best;
}

/* form is printf's, of numbers from 0 to 1; one that begins with a blank, of numbers from -1 to 1. */
static struct str numbers_body(struct arena *a, int n, const char *form)
{
    struct buf b = buf_new(a);
    uint64_t seed = 1;
    buf_fmt(&b, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,%d],\"datatype\":\"FP32\",\"data\":[", n);
    for (int i = 0; i < n; i++) {
        char number[64];
        double v = (double)((float)(splitmix(&seed) >> 40) / 16777216);
        snprintf(number, sizeof number, form, *form == ' ' ? 2 * v - 1 : v);
        buf_fmt(&b, "%s%s", i ? "," : "", number);
    }
    buf_str(&b, S("]}]}"));
    return buf_get(&b);
}

static void read_json(struct arena *a, const char *name, int n, const char *form)
{
    struct str body = numbers_body(a, n, form);
    double ours = best_read(body, S("")), peer = best_yyjson(body);
    line(fmtz(a, "body.read.%s", name), ours / 1000, "us", "yyjson", peer / 1000);
    line(fmtz(a, "body.read.%s.speed", name), (double)body.n / ours, "GB/s", "yyjson", (double)body.n / peer);
}

static void read_binary(struct arena *a)
{
    struct buf b = buf_new(a);
    buf_fmt(&b,
            "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,%d],\"datatype\":\"FP32\",\"parameters\":{"
            "\"binary_data_size\":%d}}]}",
            IMAGE, 4 * IMAGE);
    while (b.n % 4)
        buf_str(&b, S(" "));
    struct str json_bytes = fmt(a, "%zu", b.n);
    memset(buf_room(&b, (size_t)4 * IMAGE), 0, (size_t)4 * IMAGE);
    b.n += (size_t)4 * IMAGE;
    line("body.read.image.binary", best_read(buf_get(&b), json_bytes) / 1000, "us", NULL, 0);
}

static void write_output(struct arena *a, int64_t n)
{
    float *v = NEW_N(a, float, (size_t)n);
    uint64_t seed = 1;
    struct tensor t = {
        .type = TENSOR_F32, .rank = 2, .dims = { 1, n }, .data = v, .bytes = (size_t)n * sizeof *v
    };
    double best = INFINITY;
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(splitmix(&seed) >> 40) / 16777216;
    for (int i = 0; i < ROUNDS; i++) {
        auto_arena struct arena *r = arena_new(0);
        struct buf b = buf_new(r);
        (void)buf_room(&b, 256 + 3 * t.bytes);
        int64_t start = mono_ns();
        if (tensor_write(&b, S("y"), &t))
            return;
        best = fmin(best, (double)(mono_ns() - start));
    }
    line(fmtz(a, "body.write.%lld", (long long)n), best / (double)n, "ns", NULL, 0);
}

int main(void)
{
    auto_arena struct arena *a = arena_new(0);
    read_json(a, "mlp", 16, "%.6f");
    read_json(a, "image", IMAGE, "%.6f");
    read_json(a, "image.short", IMAGE, "%.4f");
    read_json(a, "image.signed", IMAGE, " %.4f");
    read_json(a, "image.long", IMAGE, "%.17g");
    read_json(a, "image.exponent", IMAGE, "%.4e");
    read_binary(a);
    write_output(a, 1);
    write_output(a, 1000);
    return 0;
}
