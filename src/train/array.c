// SPDX-License-Identifier: Apache-2.0
#include "train/array.h"

#include <stdlib.h>
#include <zlib.h>

enum { RANK_MAX = 4, NPY_HEADER_MAX = 1 << 16 };

/* Rank and sizes stand; rest is what is left of the bytes: exactly the numbers, or it is no such array. swap: other order. */
static err numbers_take(struct arena *a, struct str rest, bool swap, struct array *out)
{
    size_t size = tensor_size(out->type), want;
    if (!tensor_count(out->d, (size_t)out->rank, INT64_MAX / 16, &out->n))
        FAIL(INVALID, "its sizes make no array");
    want = (size_t)out->n * size;
    if (rest.n != want)
        FAIL(INVALID, "%zu bytes of numbers, its sizes ask for %zu", rest.n, want);
    if (!(swap && size > 1) && (uintptr_t)rest.p % size == 0) {
        out->p = rest.p;
        return NULL;
    }
    char *to = arena_alloc(a, want + !want, 64);
    memcpy(to, rest.p, want);
    for (size_t i = 0; swap && i < want; i += size)
        for (size_t k = 0; k < size / 2; k++) {
            char c = to[i + k];
            to[i + k] = to[i + size - 1 - k];
            to[i + size - 1 - k] = c;
        }
    out->p = to;
    return NULL;
}

/* ---- IDX ---- */

err array_idx(struct arena *a, struct str bytes, struct array *out)
{
    static const enum tensor_type types[16] = {
        [0x8] = TENSOR_U8,  [0x9] = TENSOR_I8,  [0xb] = TENSOR_I16,
        [0xc] = TENSOR_I32, [0xd] = TENSOR_F32, [0xe] = TENSOR_F64,
    };
    const unsigned char *p = (const unsigned char *)bytes.p;
    if (bytes.n < 4 || p[0] != 0 || p[1] != 0 || p[2] >= 16 || types[p[2]] == TENSOR_NONE)
        FAIL(INVALID, "it does not begin as IDX does");
    *out = (struct array){ .type = types[p[2]], .rank = p[3] };
    if (out->rank < 1 || out->rank > RANK_MAX)
        FAIL(INVALID, "%d dimensions, 1 to %d are read", out->rank, RANK_MAX);
    size_t head = 4 + 4 * (size_t)out->rank;
    if (bytes.n < head)
        FAIL(INVALID, "it ends within its head");
    for (int i = 0; i < out->rank; i++) {
        const unsigned char *q = p + 4 + 4 * i;
        out->d[i] = (int64_t)q[0] << 24 | q[1] << 16 | q[2] << 8 | q[3];
    }
    return numbers_take(a, str_sub(bytes, head, bytes.n), true, out);
}

/* ---- npy ---- */

/* The text behind 'key': in the head's dict; false if it is not there. */
static bool head_value(struct str head, const char *key, struct str *out)
{
    size_t n = strlen(key);
    for (size_t i = 0; i + n + 2 <= head.n; i++) {
        if ((head.p[i] != '\'' && head.p[i] != '"') || memcmp(head.p + i + 1, key, n) != 0 ||
            head.p[i + 1 + n] != head.p[i])
            continue;
        struct str rest = str_trim(str_sub(head, i + n + 2, head.n));
        if (!rest.n || rest.p[0] != ':')
            return false;
        *out = str_trim(str_sub(rest, 1, rest.n));
        return out->n > 0;
    }
    return false;
}

static err head_type(struct str head, struct array *out, bool *swap)
{
    static const struct {
        const char *name;
        enum tensor_type type;
    } types[] = { { "f4", TENSOR_F32 }, { "f8", TENSOR_F64 }, { "i1", TENSOR_I8 },  { "u1", TENSOR_U8 },
                  { "i2", TENSOR_I16 }, { "u2", TENSOR_U16 }, { "i4", TENSOR_I32 }, { "u4", TENSOR_U32 },
                  { "i8", TENSOR_I64 }, { "u8", TENSOR_U64 }, { "b1", TENSOR_BOOL } };
    struct str v, t;
    if (!head_value(head, "descr", &v))
        FAIL(INVALID, "its head has no 'descr'");
    if (v.p[0] != '\'' && v.p[0] != '"')
        FAIL(UNSUPPORTED, "its rows are records, one type of number is read");
    t = str_sub(v, 1, 1 + str_find(str_sub(v, 1, v.n), v.p[0]));
    *swap = t.n > 0 && t.p[0] == '>';
    for (size_t i = 0; t.n == 3 && i < sizeof types / sizeof *types; i++)
        if (str_eq(str_sub(t, 1, 3), str_of(types[i].name))) {
            out->type = types[i].type;
            return NULL;
        }
    FAIL(UNSUPPORTED, "type '%.*s' is not read: f4, f8, i1 to i8, u1 to u8, b1", STR(str_sub(t, 0, 20)));
}

static err head_shape(struct str head, struct array *out)
{
    struct str v, part;
    if (!head_value(head, "shape", &v) || v.p[0] != '(')
        FAIL(INVALID, "its head has no 'shape'");
    v = str_sub(v, 1, v.n);
    size_t end = str_find(v, ')');
    if (end == v.n)
        FAIL(INVALID, "its 'shape' has no end");
    v = str_sub(v, 0, end);
    while (str_cut(&v, ',', &part)) {
        part = str_trim(part);
        if (!part.n && !str_trim(v).n)
            break;
        int64_t d;
        if (!str_i64(part, &d) || d < 0)
            FAIL(INVALID, "size '%.*s' in its 'shape'", STR(str_sub(part, 0, 30)));
        if (out->rank == RANK_MAX)
            FAIL(INVALID, "more than %d dimensions", RANK_MAX);
        out->d[out->rank++] = d;
    }
    if (!out->rank)
        FAIL(INVALID, "it is a single number, no array");
    return NULL;
}

err array_npy(struct arena *a, struct str bytes, struct array *out)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    struct str head, fortran;
    bool swap;
    *out = (struct array){ 0 };
    if (bytes.n < 10 || memcmp(p, "\x93NUMPY", 6) != 0 || p[6] < 1 || p[6] > 3)
        FAIL(INVALID, "it does not begin as .npy does");
    size_t at = p[6] == 1 ? 10 : 12, n = p[8] | (size_t)p[9] << 8;
    if (p[6] > 1 && bytes.n >= 12)
        n |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (n > NPY_HEADER_MAX || bytes.n < at || n > bytes.n - at)
        FAIL(INVALID, "it ends within its head");
    head = str_sub(bytes, at, at + n);
    TRY(head_type(head, out, &swap));
    TRY(head_shape(head, out));
    if (!head_value(head, "fortran_order", &fortran))
        FAIL(INVALID, "its head has no 'fortran_order'");
    if (str_starts(fortran, S("True")) && out->rank > 1)
        return err_hint(err_new(UNSUPPORTED, "it lies in Fortran's order"),
                        "save numpy.ascontiguousarray(…)");
    return numbers_take(a, str_sub(bytes, at + n, bytes.n), swap, out);
}

/* ---- gzip ---- */

struct unpack {
    char *p;
    size_t n, cap, max;
};

/* More room, up to one byte over what may be; the first guess is what gzip's last four bytes say, as far as that can be. */
static err unpack_grow(struct unpack *u, struct str packed)
{
    const unsigned char *end = (const unsigned char *)packed.p + packed.n;
    size_t said = packed.n < 18 ? 0 : end[-4] | end[-3] << 8 | end[-2] << 16 | (size_t)end[-1] << 24;
    size_t cap = u->cap ? u->cap * 2 : said / 1100 > packed.n ? 4096 : said + 1;
    if (cap > u->max + 1)
        cap = u->max + 1;
    if (u->n > u->max)
        FAIL(TOO_LARGE, "unpacked it has more than %zu bytes", u->max);
    char *p = realloc(u->p, cap);
    if (!p)
        FAIL(TOO_LARGE, "there are no %zu bytes of memory to unpack it", cap);
    u->p = p;
    u->cap = cap;
    return NULL;
}

static err unpack_run(z_stream *z, struct str packed, struct unpack *u)
{
    for (int rc = Z_OK; rc != Z_STREAM_END;) {
        if (u->n == u->cap)
            TRY(unpack_grow(u, packed));
        size_t room = u->cap - u->n < 1 << 30 ? u->cap - u->n : 1 << 30;
        z->next_out = (Bytef *)u->p + u->n;
        z->avail_out = (uInt)room;
        rc = inflate(z, Z_NO_FLUSH);
        u->n += room - z->avail_out;
        if (rc == Z_STREAM_END && z->avail_in) /* another member follows */
            rc = inflateReset(z);
        else if (rc != Z_STREAM_END && (rc != Z_OK || (!z->avail_in && z->avail_out)))
            FAIL(INVALID, "its gzip is damaged or cut off");
    }
    return NULL;
}

err gunzip(struct arena *a, struct str packed, size_t bytes_max, struct str *out)
{
    struct unpack u = { .max = bytes_max };
    z_stream z = { .next_in = (Bytef *)packed.p, .avail_in = (uInt)packed.n };
    if (packed.n > UINT32_MAX || bytes_max > SIZE_MAX / 4)
        FAIL(TOO_LARGE, "%zu bytes of gzip", packed.n);
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        FAIL(INTERNAL, "zlib does not start");
    err e = unpack_run(&z, packed, &u);
    inflateEnd(&z);
    if (!e && u.n > bytes_max)
        e = err_new(TOO_LARGE, "unpacked it has more than %zu bytes", bytes_max);
    if (e) {
        free(u.p);
        return e;
    }
    arena_defer(a, free, u.p);
    *out = (struct str){ u.p, u.n };
    return NULL;
}
