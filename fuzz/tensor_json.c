/* tensor_json: any bytes as a request's body through the REST adapter: JSON alone, or with binary tensors behind it, or
 * compressed. Tensors that are taken are whole; written again, as JSON and as bytes, they are read as the same.
 * The first byte chooses the coding, the next two the length of the JSON. */
// SPDX-License-Identifier: Apache-2.0
#include "serve/inflate.h"
#include "serve/rest.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void must(bool good)
{
    if (!good)
        abort();
}

static struct infer *read_body(struct arena *a, struct str body, const struct header *headers, size_t n,
                               err *e)
{
    struct infer *c = NEW(a, struct infer);
    c->a = a;
    c->adapter = NEW(a, struct rest);
    c->r = NEW(a, struct req);
    c->r->a = a;
    c->r->body = body;
    c->r->headers = (struct header *)(uintptr_t)headers;
    c->r->headers_n = n;
    c->r->route = NEW(a, struct route);
    *e = rest_read(c);
    return c;
}

static bool same_real(double x, double y)
{
    return x == y || (!isfinite(x) && isnan(y)); /* infinities are written as null */
}

static void check_same(const struct tensor *t, const struct tensor *u, bool json)
{
    must(t->type == u->type && t->rank == u->rank && t->bytes == u->bytes);
    must(!memcmp(t->dims, u->dims, t->rank * sizeof *t->dims));
    const struct str *x = t->data, *y = u->data;
    for (size_t i = 0; t->type == TENSOR_TEXT && i < t->bytes / sizeof *x; i++)
        must(str_eq(x[i], y[i]) || (json && !str_utf8_ok(x[i])));
    if (t->type == TENSOR_TEXT)
        return;
    if (!json || !(t->type == TENSOR_F32 || t->type == TENSOR_F64)) {
        must(!memcmp(t->data, u->data, t->bytes));
        return;
    }
    for (size_t i = 0; t->type == TENSOR_F32 && i < t->bytes / sizeof(float); i++)
        must(same_real((double)((float *)t->data)[i], (double)((float *)u->data)[i]));
    for (size_t i = 0; t->type == TENSOR_F64 && i < t->bytes / sizeof(double); i++)
        must(same_real(((double *)t->data)[i], ((double *)u->data)[i]));
}

static void check_tensor(struct arena *a, struct str name, const struct tensor *t)
{
    int64_t count;
    size_t size = t->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(t->type);
    must(t->rank <= TENSOR_RANK_MAX && tensor_count(t->dims, t->rank, INT32_MAX, &count));
    must(t->bytes == (size_t)count * size);
    struct buf b = buf_new(a);
    struct tensor u = { .type = t->type, .rank = t->rank };
    memcpy(u.dims, t->dims, sizeof u.dims);
    tensor_put(&b, t);
    must(b.n == tensor_bytes(t) && !tensor_of_bytes(a, name, buf_get(&b), &u));
    check_same(t, &u, false);
    if (t->type == TENSOR_F16 || t->type == TENSOR_BF16)
        return;
    struct buf j = buf_new(a);
    err e;
    buf_str(&j, S("{\"inputs\":["));
    must(!tensor_write(&j, S("x"), t));
    buf_str(&j, S("]}"));
    struct infer *again = read_body(a, buf_get(&j), NULL, 0, &e);
    must(!e && again->inputs_n == 1);
    check_same(t, &again->inputs[0].t, true);
    struct tensor_spec spec = { .name = name };
    if (t->type != TENSOR_TEXT)
        must(!classes_of(a, &(struct session_info){ .outputs = &spec, .n_outputs = 1 }, t, 3, &u));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const codings[] = { "", "gzip", "deflate", "identity" };
    if (n < 3 || n > 1 << 16)
        return 0;
    auto_arena struct arena *a = arena_new(0);
    unsigned length = bytes[1] | (unsigned)bytes[2] << 8;
    struct header headers[] = { { S("content-encoding"), str_of(codings[bytes[0] % 4]) },
                                { S("inference-header-content-length"), fmt(a, "%u", length) } };
    err e;
    struct infer *c = read_body(a, (struct str){ (const char *)bytes + 3, n - 3 }, headers,
                                bytes[0] & 4 ? 2 : 1, &e);
    must(!e || e->code == INVALID || e->code == TOO_LARGE);
    for (size_t i = 0; !e && i < c->inputs_n; i++)
        check_tensor(a, c->inputs[i].name, &c->inputs[i].t);
    err_reset();
    return 0;
}
