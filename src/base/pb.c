// SPDX-License-Identifier: Apache-2.0
#include "base/pb.h"

/* ---- reading ---- */

static bool varint(struct str *in, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < in->n && i < 10; i++) {
        uint8_t byte = (uint8_t)in->p[i];
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out = v;
            *in = (struct str){ in->p + i + 1, in->n - i - 1 };
            return i < 9 || byte <= 1;
        }
    }
    return false;
}

static bool fixed(struct str *in, size_t n, uint64_t *out)
{
    if (in->n < n)
        return false;
    *out = 0;
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)(uint8_t)in->p[i] << (8 * i);
    *in = (struct str){ in->p + n, in->n - n };
    return true;
}

/* NULL, or what is wrong. */
static const char *field_read(struct str *in, struct pb_field *out)
{
    uint64_t tag, n;
    if (!varint(in, &tag))
        return "a field's number cannot be read";
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return "a field's number is out of range";
    *out = (struct pb_field){ .number = (int)(tag >> 3), .wire = (enum pb_wire)(tag & 7) };
    switch (tag & 7) {
    case PB_VARINT:
        return varint(in, &out->value) ? NULL : "a number is cut short";
    case PB_I64:
        return fixed(in, 8, &out->value) ? NULL : "a number is cut short";
    case PB_I32:
        return fixed(in, 4, &out->value) ? NULL : "a number is cut short";
    case PB_BYTES:
        if (!varint(in, &n))
            return "a length cannot be read";
        if (n > in->n)
            return "it claims more bytes than there are";
        out->bytes = (struct str){ in->p, (size_t)n };
        *in = (struct str){ in->p + n, in->n - (size_t)n };
        return NULL;
    default:
        return "a field has an unknown wire type";
    }
}

static bool wire_fits(const struct pb_rule *r, enum pb_wire wire)
{
    switch (r->kind) {
    case PB_VARINTS:
        return wire == PB_BYTES || wire == PB_VARINT;
    case PB_FLOATS:
        return wire == PB_BYTES || wire == PB_I32;
    case PB_DOUBLES:
        return wire == PB_BYTES || wire == PB_I64;
    default:
        return wire == r->wire;
    }
}

err pb_walk(const struct pb_rules *rules, struct str bytes, err (*on)(void *, const struct pb_field *),
            void *arg)
{
    const char *start = bytes.p;
    uint64_t seen = 0;
    while (bytes.n > 0) {
        size_t at = (size_t)(bytes.p - start);
        struct pb_field f;
        const char *wrong = field_read(&bytes, &f);
        if (wrong)
            FAIL(INVALID, "%s: %s (at byte %zu of it)", rules->message, wrong, at);
        size_t i = 0;
        while (i < rules->n && rules->v[i].number != f.number)
            i++;
        if (i == rules->n)
            continue;
        const struct pb_rule *r = &rules->v[i];
        if (!wire_fits(r, f.wire))
            FAIL(INVALID, "%s: %s has the wrong wire type", rules->message, r->name);
        if (r->kind == PB_ONE && (seen >> i & 1))
            FAIL(INVALID, "%s: %s is there twice", rules->message, r->name);
        seen |= (uint64_t)1 << i;
        TRY(on(arg, &f));
    }
    return NULL;
}

struct str pb_find(struct str bytes, int number)
{
    struct str found = { 0 };
    struct pb_field f;
    while (bytes.n > 0 && !field_read(&bytes, &f))
        if (f.number == number && f.wire == PB_BYTES)
            found = f.bytes;
    return found;
}

bool pb_next(struct str *in, struct pb_field *out, const char **wrong)
{
    *wrong = NULL;
    if (!in->n)
        return false;
    *wrong = field_read(in, out);
    return !*wrong;
}

bool pb_next_varint(struct str *packed, uint64_t *out)
{
    return packed->n > 0 && varint(packed, out);
}

err pb_count(const struct pb_field *f, enum pb_kind kind, int64_t *out)
{
    *out = 1;
    if (f->wire != PB_BYTES)
        return NULL;
    size_t width = kind == PB_FLOATS ? 4 : 8;
    if (kind != PB_VARINTS) {
        *out = (int64_t)(f->bytes.n / width);
        if (f->bytes.n % width)
            FAIL(INVALID, "a packed list of numbers is cut short");
        return NULL;
    }
    *out = 0;
    uint64_t v;
    for (struct str rest = f->bytes; rest.n > 0; (*out)++)
        if (!varint(&rest, &v))
            FAIL(INVALID, "a packed list of numbers is cut short");
    return NULL;
}

/* ---- writing ---- */

static void put_varint(struct buf *b, uint64_t v)
{
    char *p = buf_room(b, 10);
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (char)(v | 0x80);
    p[n++] = (char)v;
    b->n += n;
}

static void put_tag(struct buf *b, int field, enum pb_wire wire)
{
    put_varint(b, (uint64_t)field << 3 | wire);
}

static void put_fixed32(struct buf *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    char *p = buf_room(b, 4);
    for (int i = 0; i < 4; i++)
        p[i] = (char)(bits >> (8 * i));
    b->n += 4;
}

void pb_varint(struct buf *b, int field, int64_t v)
{
    put_tag(b, field, PB_VARINT);
    put_varint(b, (uint64_t)v);
}

void pb_float(struct buf *b, int field, float v)
{
    put_tag(b, field, PB_I32);
    put_fixed32(b, v);
}

void pb_bytes(struct buf *b, int field, struct str v)
{
    put_tag(b, field, PB_BYTES);
    put_varint(b, v.n);
    buf_put(b, v.p, v.n);
}

void pb_floats(struct buf *b, int field, const float *v, size_t n)
{
    put_tag(b, field, PB_BYTES);
    put_varint(b, n * 4);
    for (size_t i = 0; i < n; i++)
        put_fixed32(b, v[i]);
}

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

void pb_varints(struct buf *b, int field, const int64_t *v, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += varint_size((uint64_t)v[i]);
    put_tag(b, field, PB_BYTES);
    put_varint(b, bytes);
    for (size_t i = 0; i < n; i++)
        put_varint(b, (uint64_t)v[i]);
}

void pb_double(struct buf *b, int field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    put_tag(b, field, PB_I64);
    char *p = buf_room(b, 8);
    for (int i = 0; i < 8; i++)
        p[i] = (char)(bits >> (8 * i));
    b->n += 8;
}

char *pb_room(struct buf *b, int field, size_t n)
{
    put_tag(b, field, PB_BYTES);
    put_varint(b, n);
    char *p = buf_room(b, n);
    b->n += n;
    return p;
}

/* One byte is left for the length; a longer one moves what was written. */
size_t pb_open(struct buf *b, int field)
{
    put_tag(b, field, PB_BYTES);
    (void)buf_room(b, 1);
    return ++b->n;
}

void pb_close(struct buf *b, size_t at)
{
    size_t n = b->n - at, more = varint_size(n) - 1;
    (void)buf_room(b, more);
    memmove(b->p + at + more, b->p + at, n);
    b->n = at - 1;
    put_varint(b, n);
    b->n += n;
}
