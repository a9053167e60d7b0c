// SPDX-License-Identifier: Apache-2.0
/* Bodies that come again: a client's next one is mostly the last one but for the numbers. What a body says beside its
 * tensors' data is kept with the head that it came with (net's req_memo), and is not read again where the bytes are the
 * same. */
#include "serve/rest.h"

enum { PIECES_BYTES_MAX = 1024, MISSES = 16 /* before another body is kept */ };

struct form {
    size_t inputs_n, asked_n, cuts_n, bytes;
    struct named *inputs; /* without data */
    int64_t *binary;      /* of an input: bytes behind the JSON; -1: its data are in a gap */
    struct asked *asked;
    struct infer_params p;
    struct str id;
    bool raw_binary;   /* struct rest's */
    struct str *piece; /* of the JSON, with a gap between each two: cuts_n + 1 */
    unsigned misses;
};

/* ---- one that fits ---- */

static bool piece_take(struct json_in *in, struct str piece)
{
    if ((size_t)(in->end - in->p) < piece.n || memcmp(in->p, piece.p, piece.n) != 0)
        return false;
    in->p += piece.n;
    return true;
}

/* Nothing is read before both ends are as they should be. */
static bool ends_fit(const struct form *f, struct str text)
{
    struct str first = f->piece[0], last = f->piece[f->cuts_n];
    return text.n >= f->bytes && memcmp(text.p, first.p, first.n) == 0 &&
           memcmp(text.p + text.n - last.n, last.p, last.n) == 0;
}

static bool input_take(const struct form *f, size_t i, struct infer *c, struct json_in *in, size_t *cut,
                       struct str *raw)
{
    struct named *to = &c->inputs[i];
    *to = f->inputs[i];
    if (f->binary[i] < 0)
        return piece_take(in, f->piece[(*cut)++]) && !tensor_of_json(in, to->name, &to->t);
    size_t n = (size_t)f->binary[i];
    if (n > raw->n || tensor_of_bytes(c->a, to->name, str_sub(*raw, 0, n), &to->t))
        return false;
    *raw = str_sub(*raw, n, raw->n);
    return true;
}

static bool inputs_take(const struct form *f, struct infer *c, struct str text, struct str *raw)
{
    struct json_in in = json_in_new(c->a, text);
    size_t cut = 0;
    c->inputs = NEW_N(c->a, struct named, f->inputs_n);
    for (size_t i = 0; i < f->inputs_n; i++)
        if (!input_take(f, i, c, &in, &cut, raw))
            return false;
    return piece_take(&in, f->piece[cut]) && in.p == in.end && !raw->n;
}

bool form_take(struct infer *c, struct str text)
{
    struct req_memo *memo = req_memo(c->r);
    struct form *f = memo ? memo->handler : NULL;
    struct rest *rest = c->adapter;
    struct str raw = rest->raw;
    if (!f)
        return false;
    if (!ends_fit(f, text) || !inputs_take(f, c, text, &raw)) {
        if (++f->misses == MISSES)
            req_memo_drop(c->r);
        c->inputs = NULL;
        return false;
    }
    f->misses = 0;
    rest->raw = raw;
    rest->binary = f->raw_binary;
    c->inputs_n = f->inputs_n;
    c->asked = f->asked;
    c->asked_n = f->asked_n;
    c->p = f->p;
    c->id = f->id;
    return true;
}

/* ---- one to keep ---- */

void form_cut(struct rest *rest, size_t input, struct str data)
{
    if (rest->cuts_n < FORM_CUTS_MAX)
        rest->cut[rest->cuts_n] = (struct form_cut){ input, data };
    rest->cuts_n++;
}

/* The text around the data; *bytes is what it has. */
static struct str *pieces_of(struct arena *a, const struct rest *rest, struct str text, size_t *bytes)
{
    struct str *v = NEW_N(a, struct str, rest->cuts_n + 1);
    size_t from = 0;
    *bytes = 0;
    for (size_t i = 0; i <= rest->cuts_n; i++) {
        const struct str *data = i < rest->cuts_n ? &rest->cut[i].data : NULL;
        size_t to = data ? (size_t)(data->p - text.p) : text.n;
        v[i] = str_sub(text, from, to);
        *bytes += v[i].n;
        from = data ? to + data->n : to;
    }
    return v;
}

static void inputs_keep(struct form *f, struct arena *a, const struct infer *c)
{
    const struct rest *rest = c->adapter;
    f->inputs_n = c->inputs_n;
    f->inputs = NEW_N(a, struct named, c->inputs_n + 1);
    f->binary = NEW_N(a, int64_t, c->inputs_n + 1);
    for (size_t i = 0; i < c->inputs_n; i++) {
        f->inputs[i] = c->inputs[i];
        f->inputs[i].name = str_dup(a, c->inputs[i].name);
        f->inputs[i].t.data = NULL;
        f->binary[i] = (int64_t)c->inputs[i].t.bytes;
    }
    for (size_t i = 0; i < rest->cuts_n; i++)
        f->binary[rest->cut[i].input] = -1;
}

void form_keep(struct infer *c, struct str text)
{
    struct req_memo *memo = req_memo(c->r);
    const struct rest *rest = c->adapter;
    size_t bytes;
    if (!memo || memo->handler || c->entities || c->row_ids || rest->odd || rest->cuts_n > FORM_CUTS_MAX)
        return;
    struct str *piece = pieces_of(c->a, rest, text, &bytes);
    if (bytes > PIECES_BYTES_MAX)
        return;
    struct arena *a = memo->a;
    struct form *f = NEW(a, struct form);
    f->cuts_n = rest->cuts_n;
    f->bytes = bytes;
    f->piece = NEW_N(a, struct str, f->cuts_n + 1);
    for (size_t i = 0; i <= f->cuts_n; i++)
        f->piece[i] = str_dup(a, piece[i]);
    inputs_keep(f, a, c);
    f->asked_n = c->asked_n;
    f->asked = c->asked_n ? NEW_N(a, struct asked, c->asked_n) : NULL;
    for (size_t i = 0; i < c->asked_n; i++) {
        f->asked[i] = c->asked[i];
        f->asked[i].name = str_dup(a, c->asked[i].name);
    }
    f->p = c->p;
    f->p.version = str_dup(a, c->p.version);
    f->p.sequence = str_dup(a, c->p.sequence);
    f->id = str_dup(a, c->id);
    f->raw_binary = rest->binary;
    memo->handler = f;
}
