// SPDX-License-Identifier: Apache-2.0
// Kernels that move elements and change none: by the size of an element, whatever its type. Nearly all of them are a
// copy between two strided places (struct nest); only what adds (gradients of indices, ScatterElements) looks at types.
#include "engine/cpu/cpu.h"
#include "engine/cpu/rows.h"

#include <math.h>

/* ---- nests: a copy of n[0] × n[1] × … elements, each axis with a stride of its own on both sides ---- */

enum { NEST_MAX = 2 * TENSOR_RANK_MAX };
struct nest {
    int rank;                                          /* at least 2 */
    int64_t n[NEST_MAX], from[NEST_MAX], to[NEST_MAX]; /* strides in bytes */
    int64_t from_at, to_at;
    size_t size;                                                    /* of an element */
    void (*inner)(const struct nest *, const char *from, char *to); /* the last two axes */
};

/* The last axis lies dense on both sides: `run` bytes at once. */
static void inner_runs(const struct nest *s, const char *from, char *to)
{
    int64_t n = s->n[s->rank - 2], f = s->from[s->rank - 2], t = s->to[s->rank - 2];
    size_t run = (size_t)s->n[s->rank - 1] * s->size;
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * t, from + i * f, run);
}

#define INNER(type)                                                                                                       \
    static void inner_any_##type(const struct nest *s, const char *from, char *to)                                        \
    {                                                                                                                     \
        int64_t n0 = s->n[s->rank - 2], f0 = s->from[s->rank - 2], t0 = s->to[s->rank - 2];                               \
        int64_t n1 = s->n[s->rank - 1], f1 = s->from[s->rank - 1], t1 = s->to[s->rank - 1];                               \
        for (int64_t i = 0; i < n0; i++)                                                                                  \
            for (int64_t k = 0; k < n1; k++)                                                                              \
                *(type *)(to + i * t0 + k * t1) = *(const type *)(from + i * f0 + k * f1);                                \
    }                                                                                                                     \
    /* One element, written along a dense axis. */                                                                        \
    static void inner_fill_##type(const struct nest *s, const char *from, char *to)                                       \
    {                                                                                                                     \
        int64_t n0 = s->n[s->rank - 2], f0 = s->from[s->rank - 2], t0 = s->to[s->rank - 2];                               \
        int64_t n1 = s->n[s->rank - 1];                                                                                   \
        for (int64_t i = 0; i < n0; i++) {                                                                                \
            type v = *(const type *)(from + i * f0), *row = (type *)(to + i * t0);                                        \
            for (int64_t k = 0; k < n1; k++)                                                                              \
                row[k] = v;                                                                                               \
        }                                                                                                                 \
    }                                                                                                                     \
    /* A matrix turned: the last axis is dense where it is written, the one before where it is read. In blocks, so that \
     * the lines of both sides stay in the first cache. */ \
    static void inner_turn_##type(const struct nest *s, const char *from, char *to)                                       \
    {                                                                                                                     \
        enum { BLOCK = 32 };                                                                                              \
        int64_t n0 = s->n[s->rank - 2], t0 = s->to[s->rank - 2], n1 = s->n[s->rank - 1],                                  \
                f1 = s->from[s->rank - 1];                                                                                \
        for (int64_t i0 = 0; i0 < n0; i0 += BLOCK)                                                                        \
            for (int64_t k0 = 0; k0 < n1; k0 += BLOCK)                                                                    \
                turn_##type(from + i0 * (int64_t)sizeof(type) + k0 * f1, f1,                                              \
                            to + i0 * t0 + k0 * (int64_t)sizeof(type), t0,                                                \
                            n0 - i0 < BLOCK ? n0 - i0 : BLOCK, n1 - k0 < BLOCK ? n1 - k0 : BLOCK);                        \
    }
#define TURN(type)                                                                                           \
    static void turn_##type(const char *from, int64_t f, char *to, int64_t t, int64_t rows, int64_t columns) \
    {                                                                                                        \
        for (int64_t i = 0; i < rows; i++)                                                                   \
            for (int64_t k = 0; k < columns; k++)                                                            \
                ((type *)(to + i * t))[k] = ((const type *)(from + k * f))[i];                               \
    }
TURN(uint8_t)
TURN(uint16_t)
TURN(uint64_t)

/* Four by four in registers. */
typedef uint32_t four __attribute__((vector_size(16)));
typedef uint32_t four_anywhere __attribute__((vector_size(16), aligned(4)));
typedef uint64_t two __attribute__((vector_size(16)));
static inline void turn_4x4(const char *from, int64_t f, char *to, int64_t t)
{
    four a = *(const four_anywhere *)from, b = *(const four_anywhere *)(from + f);
    four c = *(const four_anywhere *)(from + 2 * f), d = *(const four_anywhere *)(from + 3 * f);
    four ab0 = { a[0], b[0], a[1], b[1] }, ab1 = { a[2], b[2], a[3], b[3] };
    four cd0 = { c[0], d[0], c[1], d[1] }, cd1 = { c[2], d[2], c[3], d[3] };
    two x = (two)ab0, y = (two)cd0, z = (two)ab1, w = (two)cd1;
    *(four_anywhere *)to = (four)(two){ x[0], y[0] };
    *(four_anywhere *)(to + t) = (four)(two){ x[1], y[1] };
    *(four_anywhere *)(to + 2 * t) = (four)(two){ z[0], w[0] };
    *(four_anywhere *)(to + 3 * t) = (four)(two){ z[1], w[1] };
}
static void turn_uint32_t(const char *from, int64_t f, char *to, int64_t t, int64_t rows, int64_t columns)
{
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
        int64_t k = 0;
        for (; k + 4 <= columns; k += 4)
            turn_4x4(from + 4 * i + k * f, f, to + i * t + 4 * k, t);
        for (; k < columns; k++)
            for (int64_t r = i; r < i + 4; r++)
                ((uint32_t *)(to + r * t))[k] = ((const uint32_t *)(from + k * f))[r];
    }
    for (; i < rows; i++)
        for (int64_t k = 0; k < columns; k++)
            ((uint32_t *)(to + i * t))[k] = ((const uint32_t *)(from + k * f))[i];
}
INNER(uint8_t)
INNER(uint16_t)
INNER(uint32_t)
INNER(uint64_t)

static void nest_swap(struct nest *s, int i, int k)
{
    int64_t n = s->n[i], from = s->from[i], to = s->to[i];
    s->n[i] = s->n[k], s->from[i] = s->from[k], s->to[i] = s->to[k];
    s->n[k] = n, s->from[k] = from, s->to[k] = to;
}

static void nest_inner(struct nest *s)
{
#define BY_SIZE(kind)                 \
    (s->size == 1   ? kind##_uint8_t  \
     : s->size == 2 ? kind##_uint16_t \
     : s->size == 4 ? kind##_uint32_t \
                    : kind##_uint64_t)
    int last = s->rank - 1;
    int64_t size = (int64_t)s->size;
    if (s->to[last] == size && s->from[last] == size) {
        s->inner = inner_runs;
    } else if (s->to[last] == size && s->from[last] == 0) {
        s->inner = BY_SIZE(inner_fill);
    } else {
        s->inner = BY_SIZE(inner_any);
        for (int i = 0; i < last && s->to[last] == size; i++)
            if (s->from[i] == size) {
                nest_swap(s, i, last - 1);
                s->inner = BY_SIZE(inner_turn);
                break;
            }
    }
#undef BY_SIZE
}

/* Axes of one element go, axes that lie behind each other on both sides become one, the way to copy is chosen. Strides
 * come in elements. */
static void nest_make(struct nest *s, size_t size)
{
    int rank = 0;
    s->size = size;
    s->from_at *= (int64_t)size;
    s->to_at *= (int64_t)size;
    for (int i = 0; i < s->rank; i++) {
        int64_t n = s->n[i], from = s->from[i] * (int64_t)size, to = s->to[i] * (int64_t)size;
        if (n == 1)
            continue;
        if (rank > 0 && s->from[rank - 1] == from * n && s->to[rank - 1] == to * n) {
            s->n[rank - 1] *= n, s->from[rank - 1] = from, s->to[rank - 1] = to;
            continue;
        }
        s->n[rank] = n, s->from[rank] = from, s->to[rank] = to;
        rank++;
    }
    if (rank == 0) { /* one element */
        s->n[0] = 1, s->from[0] = s->to[0] = (int64_t)size;
        rank = 1;
    }
    if (rank == 1) { /* an axis before it */
        s->n[1] = s->n[0], s->from[1] = s->from[0], s->to[1] = s->to[0];
        s->n[0] = 1, s->from[0] = s->to[0] = 0;
        rank = 2;
    }
    s->rank = rank;
    nest_inner(s);
}

static void nest_run(const struct nest *s, const void *from_start, void *to_start)
{
    const char *from = (const char *)from_start + s->from_at;
    char *to = (char *)to_start + s->to_at;
    int64_t at[NEST_MAX] = { 0 };
    for (int i = 0; i < s->rank; i++)
        if (s->n[i] == 0)
            return;
    for (;;) {
        s->inner(s, from, to);
        int i = s->rank - 3;
        for (; i >= 0; i--) {
            from += s->from[i];
            to += s->to[i];
            if (++at[i] < s->n[i])
                break;
            from -= s->from[i] * s->n[i];
            to -= s->to[i] * s->n[i];
            at[i] = 0;
        }
        if (i < 0)
            return;
    }
}

/* Strides in elements of a dense tensor. */
static void strides_of(const struct tensor *t, int64_t *out)
{
    int64_t n = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        out[i] = n;
        n *= t->d[i];
    }
}

/* ---- what bind functions need ---- */

static err type_ok(struct bind *b, const struct tensor *t)
{
    if (tensor_size(t->type) == 0)
        FAIL(UNSUPPORTED, "%s '%.*s': no kernel for elements of type %.*s", b->n->op->name, STR(b->n->name),
             STR(tensor_onnx_name(t->type)));
    return NULL;
}

static err no_kernel(struct bind *b, const struct tensor *t)
{
    FAIL(UNSUPPORTED, "%s '%.*s': no kernel for the type %.*s", b->n->op->name, STR(b->n->name),
         STR(tensor_onnx_name(t->type)));
}

static double bytes_moved(const struct step *s)
{
    double n = 0;
    for (int i = 0; i < s->n_in; i++)
        n += s->in[i] ? (double)s->in[i]->n * (double)tensor_size(s->in[i]->type) : 0;
    for (int i = 0; i < s->n_out; i++)
        n += s->out[i] ? (double)s->out[i]->n * (double)tensor_size(s->out[i]->type) : 0;
    return n;
}

/* One nest between input 0 and output 0. */
static void run_nest(const struct step *s, struct rank *r)
{
    (void)r;
    nest_run(s->state, s->in[0]->p, s->out[0]->p);
}
static err bind_nest(struct bind *b, struct nest *nest)
{
    TRY(type_ok(b, b->step->in[0]));
    struct nest *own = NEW(b->a, struct nest);
    *own = *nest;
    nest_make(own, tensor_size(b->step->in[0]->type));
    b->step->state = own;
    b->step->run = run_nest;
    b->step->bytes = 2 * (double)b->step->out[0]->n * (double)own->size;
    return NULL;
}

/* ---- Reshape, Flatten, Squeeze, Unsqueeze, Identity: nothing at all where memory is shared ---- */

static void run_copy(const struct step *s, struct rank *r)
{
    (void)r;
    if (s->in[0]->p != s->out[0]->p)
        memcpy(s->out[0]->p, s->in[0]->p, (size_t)s->out[0]->n * tensor_size(s->out[0]->type));
}
static err bind_copy(struct bind *b)
{
    TRY(type_ok(b, b->step->in[0]));
    b->step->run = run_copy;
    return NULL;
}

/* ---- Transpose, Slice, Expand, Tile, DepthToSpace, SpaceToDepth ---- */

static err bind_transpose(struct bind *b)
{
    const struct tensor *x = b->step->in[0], *y = b->step->out[0];
    const struct attr *perm = attr_find(b->n, "perm");
    int64_t from[TENSOR_RANK_MAX];
    struct nest s = { .rank = y->rank };
    strides_of(x, from);
    strides_of(y, s.to);
    for (int i = 0; i < y->rank; i++) {
        s.n[i] = y->d[i];
        s.from[i] = from[perm ? perm->is[i] : y->rank - 1 - i];
    }
    return bind_nest(b, &s);
}

static err bind_slice(struct bind *b)
{
    struct slice cut;
    bool known;
    TRY(slice_read((struct graph *)b->g, b->n, &cut, &known));
    if (!known)
        return node_err(b->g, b->n, "its places are not known");
    int64_t from[TENSOR_RANK_MAX];
    struct nest s = { .rank = b->step->in[0]->rank };
    strides_of(b->step->in[0], from);
    strides_of(b->step->out[0], s.to);
    for (int i = 0; i < s.rank; i++) {
        s.n[i] = cut.size[i];
        s.from[i] = from[i] * cut.step[i];
        s.from_at += from[i] * cut.start[i];
    }
    return bind_nest(b, &s);
}

static err bind_expand(struct bind *b)
{
    const struct tensor *x = b->step->in[0], *y = b->step->out[0];
    int64_t from[TENSOR_RANK_MAX] = { 0 };
    struct nest s = { .rank = y->rank };
    strides_of(x, from);
    strides_of(y, s.to);
    for (int i = 0; i < y->rank; i++) {
        int of = i - (y->rank - x->rank);
        s.n[i] = y->d[i];
        s.from[i] = of < 0 || x->d[of] == 1 ? 0 : from[of];
    }
    return bind_nest(b, &s);
}

static err bind_tile(struct bind *b)
{
    const struct tensor *x = b->step->in[0], *y = b->step->out[0];
    int64_t from[TENSOR_RANK_MAX] = { 0 }, to[TENSOR_RANK_MAX] = { 0 };
    struct nest s = { .rank = 2 * x->rank };
    strides_of(x, from);
    strides_of(y, to);
    for (int i = 0; i < x->rank; i++) { /* the repeats of an axis, then the axis */
        s.n[2 * i] = x->d[i] ? y->d[i] / x->d[i] : 0;
        s.to[2 * i] = to[i] * x->d[i];
        s.n[2 * i + 1] = x->d[i];
        s.from[2 * i + 1] = from[i];
        s.to[2 * i + 1] = to[i];
    }
    return bind_nest(b, &s);
}

/* big: [N, C, H b, W b], small: [N, C b b, H, W], walked as N, C, H, b, W, b. */
static void blocks(const struct tensor *big, const struct tensor *small, int64_t b, bool crd, int64_t *n,
                   int64_t *of_big, int64_t *of_small)
{
    int64_t g[TENSOR_RANK_MAX] = { 0 }, s[TENSOR_RANK_MAX] = { 0 }, channel = crd ? b * b : 1;
    strides_of(big, g);
    strides_of(small, s);
    int64_t block = crd ? 1 : big->d[1];
    int64_t size[] = { big->d[0], big->d[1], small->d[2], b, small->d[3], b };
    int64_t in_big[] = { g[0], g[1], g[2] * b, g[2], g[3] * b, g[3] };
    int64_t in_small[] = { s[0], s[1] * channel, s[2], s[1] * block * b, s[3], s[1] * block };
    memcpy(n, size, sizeof size);
    memcpy(of_big, in_big, sizeof in_big);
    memcpy(of_small, in_small, sizeof in_small);
}
static err bind_depth_to_space(struct bind *b)
{
    struct nest s = { .rank = 6 };
    blocks(b->step->out[0], b->step->in[0], attr_i(b->n, "blocksize", 1),
           str_is(attr_s(b->n, "mode", S("DCR")), "CRD"), s.n, s.to, s.from);
    return bind_nest(b, &s);
}
static err bind_space_to_depth(struct bind *b)
{
    struct nest s = { .rank = 6 };
    blocks(b->step->in[0], b->step->out[0], attr_i(b->n, "blocksize", 1),
           str_is(attr_s(b->n, "mode", S("DCR")), "CRD"), s.n, s.from, s.to);
    return bind_nest(b, &s);
}

/* ---- into zeros: SliceGrad, Pad with a constant ---- */

struct filled {
    struct nest nest;
    bool zero; /* by zeros, not by input 2 */
};
static void fill(void *to, int64_t n, const void *v, size_t size)
{
    struct nest s = { .rank = 1, .n = { n }, .to = { 1 } };
    nest_make(&s, size);
    nest_run(&s, v, to);
}
static void run_filled(const struct step *s, struct rank *r)
{
    (void)r;
    const struct filled *f = s->state;
    if (f->zero)
        memset(s->out[0]->p, 0, (size_t)s->out[0]->n * f->nest.size);
    else
        fill(s->out[0]->p, s->out[0]->n, s->in[2]->p, f->nest.size);
    nest_run(&f->nest, s->in[0]->p, s->out[0]->p);
}
static err bind_filled(struct bind *b, const struct nest *nest, bool zero)
{
    TRY(type_ok(b, b->step->in[0]));
    struct filled *f = NEW(b->a, struct filled);
    *f = (struct filled){ *nest, zero };
    nest_make(&f->nest, tensor_size(b->step->in[0]->type));
    b->step->state = f;
    b->step->run = run_filled;
    b->step->bytes = bytes_moved(b->step);
    return NULL;
}

static err bind_slice_grad(struct bind *b)
{
    const struct attr *starts = attr_find(b->n, "starts"), *steps = attr_find(b->n, "steps");
    const struct tensor *dy = b->step->in[0];
    int64_t to[TENSOR_RANK_MAX];
    struct nest s = { .rank = dy->rank };
    strides_of(b->step->out[0], to);
    strides_of(dy, s.from);
    for (int i = 0; i < dy->rank; i++) {
        s.n[i] = dy->d[i];
        s.to[i] = to[i] * steps->is[i];
        s.to_at += to[i] * starts->is[i];
    }
    return bind_filled(b, &s, true);
}

/* Where padded (rank as x) and x meet: x[i + cut] = padded[i + added]. */
static void pad_nest(const struct tensor *x, const struct tensor *padded, const int64_t *before,
                     const int64_t *after, int64_t *n, int64_t *x_at, int64_t *padded_at)
{
    int64_t xs[TENSOR_RANK_MAX], ps[TENSOR_RANK_MAX];
    strides_of(x, xs);
    strides_of(padded, ps);
    for (int i = 0; i < x->rank; i++) {
        int64_t cut = before[i] < 0 ? -before[i] : 0, cut_after = after[i] < 0 ? -after[i] : 0;
        n[i] = x->d[i] - cut - cut_after > 0 ? x->d[i] - cut - cut_after : 0;
        *x_at += xs[i] * cut;
        *padded_at += ps[i] * (before[i] > 0 ? before[i] : 0);
    }
}

/* ---- Pad from elements: a map for each axis ---- */

struct pad {
    int rank;
    size_t size;
    int64_t n[TENSOR_RANK_MAX], stride[TENSOR_RANK_MAX]; /* of the padded one; of the other, in elements */
    int64_t *map[TENSOR_RANK_MAX];                       /* place in the padded one → in the other */
    void (*add)(void *to, const int64_t *map, const void *from, int64_t n);
};

static int64_t pad_from(struct str mode, int64_t i, int64_t size)
{
    if (str_is(mode, "edge"))
        return i < 0 ? 0 : i >= size ? size - 1 : i;
    int64_t period = str_is(mode, "wrap") ? size : size > 1 ? 2 * (size - 1) : 1;
    i = (i % period + period) % period;
    return i < size ? i : period - i;
}

static struct pad *pad_new(struct arena *a, const struct tensor *x, const struct tensor *padded,
                           const int64_t *before, struct str mode)
{
    struct pad *p = NEW(a, struct pad);
    p->rank = x->rank;
    p->size = tensor_size(x->type);
    strides_of(x, p->stride);
    for (int i = 0; i < x->rank; i++) {
        p->n[i] = padded->d[i];
        p->map[i] = NEW_N(a, int64_t, padded->d[i] + 1);
        for (int64_t k = 0; k < padded->d[i]; k++)
            p->map[i][k] = pad_from(mode, k - before[i], x->d[i]) * p->stride[i];
    }
    return p;
}

static void copy_mapped(char *to, const int64_t *map, const char *from, int64_t n, size_t size)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * (int64_t)size, from + map[i] * (int64_t)size, size);
}

/* Row by row of the padded tensor; x is read (copied to it), or added to. */
static void pad_rows(const struct pad *p, char *x, char *padded)
{
    int last = p->rank - 1;
    int64_t at[TENSOR_RANK_MAX] = { 0 };
    for (;;) {
        int64_t base = 0;
        for (int i = 0; i < last; i++)
            base += p->map[i][at[i]];
        char *row = x + base * (int64_t)p->size;
        if (p->add)
            p->add(row, p->map[last], padded, p->n[last]);
        else
            copy_mapped(padded, p->map[last], row, p->n[last], p->size);
        padded += p->n[last] * (int64_t)p->size;
        int i = last - 1;
        for (; i >= 0; i--) {
            if (++at[i] < p->n[i])
                break;
            at[i] = 0;
        }
        if (i < 0)
            return;
    }
}
static void run_pad(const struct step *s, struct rank *r)
{
    (void)r;
    if (s->out[0]->n > 0)
        pad_rows(s->state, s->in[0]->p, s->out[0]->p);
}
static void run_pad_grad(const struct step *s, struct rank *r)
{
    (void)r;
    const struct pad *p = s->state;
    memset(s->out[0]->p, 0, (size_t)s->out[0]->n * p->size);
    if (s->in[0]->n > 0)
        pad_rows(p, s->out[0]->p, s->in[0]->p);
}

static err bind_pad(struct bind *b)
{
    const struct tensor *x = b->step->in[0], *y = b->step->out[0];
    int64_t before[TENSOR_RANK_MAX], after[TENSOR_RANK_MAX];
    struct str mode = attr_s(b->n, "mode", S("constant"));
    bool known;
    TRY(type_ok(b, x));
    TRY(pads_read((struct graph *)b->g, b->n, x->rank, before, after, &known));
    if (!known)
        return node_err(b->g, b->n, "its pads are not known");
    b->step->bytes = bytes_moved(b->step);
    if (str_is(mode, "constant")) {
        struct nest s = { .rank = x->rank };
        strides_of(x, s.from);
        strides_of(y, s.to);
        pad_nest(x, y, before, after, s.n, &s.from_at, &s.to_at);
        return bind_filled(b, &s, b->step->n_in < 3 || !b->step->in[2]);
    }
    b->step->state = pad_new(b->a, x, y, before, mode);
    b->step->run = x->rank ? run_pad : run_copy;
    return NULL;
}

/* ---- adding ---- */

/* name, type in memory, type to count in, reading, writing */
#define ADDING(A)                                        \
    A(f32, float, float, (float), (float))               \
    A(f64, double, double, (double), (double))           \
    A(i64, int64_t, uint64_t, (uint64_t), (int64_t))     \
    A(i32, int32_t, uint32_t, (uint32_t), (int32_t))     \
    A(bf16, uint16_t, float, rows_of_bf16, rows_to_bf16) \
    A(f16, uint16_t, float, rows_of_f16, rows_to_f16)

#define A(name, type, wide, rd, wr)                                                          \
    static void add_mapped_##name(void *to, const int64_t *map, const void *from, int64_t n) \
    {                                                                                        \
        type *y = to;                                                                        \
        const type *x = from;                                                                \
        for (int64_t i = 0; i < n; i++)                                                      \
            y[map[i]] = wr((wide)(rd(y[map[i]]) + rd(x[i])));                                \
    }                                                                                        \
    static void add_row_##name(void *to, const void *from, int64_t n)                        \
    {                                                                                        \
        type *restrict y = to;                                                               \
        const type *restrict x = from;                                                       \
        for (int64_t i = 0; i < n; i++)                                                      \
            y[i] = wr((wide)(rd(y[i]) + rd(x[i])));                                          \
    }
ADDING(A)
#undef A
#define ADD_WIDE(name)                                                      \
    static void add_row_##name##_f32(void *to, const void *from, int64_t n) \
    {                                                                       \
        float *restrict y = to;                                             \
        const uint16_t *restrict x = from;                                  \
        for (int64_t i = 0; i < n; i++)                                     \
            y[i] += rows_of_##name(x[i]);                                   \
    }
ADD_WIDE(bf16)
ADD_WIDE(f16)

static int adding_of(enum tensor_type t)
{
    switch (t) {
    case TENSOR_F32:
        return 0;
    case TENSOR_F64:
        return 1;
    case TENSOR_I64:
        return 2;
    case TENSOR_I32:
        return 3;
    case TENSOR_BF16:
        return 4;
    case TENSOR_F16:
        return 5;
    default:
        return -1;
    }
}

static err bind_pad_grad(struct bind *b)
{
    static void (*const add[])(void *, const int64_t *, const void *, int64_t) = {
#define A(name, ...) add_mapped_##name,
        ADDING(A)
#undef A
    };
    const struct tensor *dy = b->step->in[0], *x = b->step->out[0];
    const int64_t *pads = attr_find(b->n, "pads")->is;
    struct str mode = attr_s(b->n, "mode", S("constant"));
    if (str_is(mode, "constant")) {
        struct nest s = { .rank = x->rank };
        strides_of(dy, s.from);
        strides_of(x, s.to);
        pad_nest(x, dy, pads, pads + x->rank, s.n, &s.to_at, &s.from_at);
        return bind_filled(b, &s, true);
    }
    if (adding_of(dy->type) < 0)
        return no_kernel(b, dy);
    struct pad *p = pad_new(b->a, x, dy, pads, mode);
    p->add = add[adding_of(dy->type)];
    b->step->state = p;
    b->step->run = x->rank ? run_pad_grad : run_copy;
    return NULL;
}

/* ---- Concat, Split ---- */

static void run_concat(const struct step *s, struct rank *r)
{
    (void)r;
    const struct nest *nests = s->state;
    for (int i = 0; i < s->n_in; i++)
        nest_run(&nests[i], s->in[i]->p, s->out[0]->p);
}
static void run_split(const struct step *s, struct rank *r)
{
    (void)r;
    const struct nest *nests = s->state;
    for (int i = 0; i < s->n_out; i++)
        if (s->out[i])
            nest_run(&nests[i], s->in[0]->p, s->out[i]->p);
}

/* The tensor with its axes in the order in which they lie; axis: where it is then. */
static struct tensor lying(const struct tensor *t, bool nhwc, int *axis)
{
    static const int order[] = { 0, 2, 3, 1 }, place[] = { 0, 3, 1, 2 };
    struct tensor to = *t;
    for (int i = 0; nhwc && i < 4; i++)
        to.d[i] = t->d[order[i]];
    if (nhwc)
        *axis = place[*axis];
    return to;
}

/* Pieces of `whole` along the axis, one behind the other. */
static err bind_pieces(struct bind *b, const struct tensor *whole, struct tensor **pieces, int n, bool join)
{
    int axis;
    struct nest *nests = NEW_N(b->a, struct nest, n);
    int64_t at = 0, stride[TENSOR_RANK_MAX];
    TRY(type_ok(b, whole));
    TRY(attr_axis(b->n, "axis", 0, whole->rank, &axis));
    const int given = axis;
    const struct tensor all = lying(whole, whole->nhwc, &axis);
    strides_of(&all, stride);
    for (int i = 0; i < n; i++) {
        struct nest *s = &nests[i];
        const struct value *v = join ? node_in(b->g, b->n, i) : node_out(b->g, b->n, i);
        if (!pieces[i] || !v) /* what nobody reads has no shape: only the last ones may be so */
            break;
        axis = given;
        const struct tensor piece = lying(pieces[i], whole->nhwc, &axis);
        s->rank = whole->rank;
        memcpy(s->n, piece.d, sizeof piece.d);
        strides_of(&piece, join ? s->from : s->to);
        memcpy(join ? s->to : s->from, stride, sizeof stride);
        *(join ? &s->to_at : &s->from_at) = at * stride[axis];
        at += piece.d[axis];
        nest_make(s, tensor_size(whole->type));
    }
    b->step->state = nests;
    b->step->run = join ? run_concat : run_split;
    b->step->bytes = bytes_moved(b->step);
    return NULL;
}
static err bind_concat(struct bind *b)
{
    return bind_pieces(b, b->step->out[0], b->step->in, b->step->n_in, true);
}
static err bind_split(struct bind *b)
{
    return bind_pieces(b, b->step->in[0], b->step->out, b->step->n_out, false);
}

/* ---- by index ---- */

/* Index i of I32 or I64 made non-negative; −1, and counted, if it is outside of the axis: nothing is read or written
 * there. */
static inline int64_t index_at(const struct tensor *t, int64_t i, int64_t size, struct rank *r)
{
    int64_t v = t->type == TENSOR_I64 ? ((const int64_t *)t->p)[i] : ((const int32_t *)t->p)[i];
    if (v < 0)
        v += size;
    if ((uint64_t)v < (uint64_t)size)
        return v;
    r->bad_indices++;
    return -1;
}

struct gather {
    int64_t outer, size, run; /* before the axis, along it, bytes behind it */
    int64_t n;                /* elements of a run */
    void (*add)(void *to, const void *from, int64_t n);
    size_t add_size; /* bytes of an element of dy */
};
static void axis_cut(const int64_t *d, int rank, int axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int i = 0; i < rank; i++)
        *(i < axis ? outer : inner) *= i == axis ? 1 : d[i];
}

static void run_gather(const struct step *s, struct rank *r)
{
    const struct gather *k = s->state;
    const char *from = s->in[0]->p;
    char *to = s->out[0]->p;
    for (int64_t o = 0; o < k->outer; o++, from += k->size * k->run)
        for (int64_t i = 0; i < s->in[1]->n; i++, to += k->run) {
            int64_t row = index_at(s->in[1], i, k->size, r);
            if (row < 0)
                memset(to, 0, (size_t)k->run);
            else
                memcpy(to, from + row * k->run, (size_t)k->run);
        }
}
static err bind_gather(struct bind *b)
{
    struct gather *k = NEW(b->a, struct gather);
    const struct tensor *x = b->step->in[0];
    int axis;
    TRY(type_ok(b, x));
    TRY(attr_axis(b->n, "axis", 0, x->rank, &axis));
    axis_cut(x->d, x->rank, axis, &k->outer, &k->n);
    k->size = x->d[axis];
    k->run = k->n * (int64_t)tensor_size(x->type);
    b->step->state = k;
    b->step->run = run_gather;
    b->step->bytes = 2 * (double)b->step->out[0]->n * (double)tensor_size(x->type);
    return NULL;
}

static void run_gather_grad(const struct step *s, struct rank *r)
{
    const struct gather *k = s->state;
    char *to = s->out[0]->p;
    const char *dy = s->in[1]->p;
    int64_t from_run = k->n * (int64_t)k->add_size;
    memset(to, 0, (size_t)(k->outer * k->size * k->run));
    for (int64_t o = 0; o < k->outer; o++, to += k->size * k->run)
        for (int64_t i = 0; i < s->in[0]->n; i++, dy += from_run) {
            int64_t row = index_at(s->in[0], i, k->size, r);
            if (row >= 0)
                k->add(to + row * k->run, dy, k->n);
        }
}
static err bind_gather_grad(struct bind *b)
{
    static void (*const add[])(void *, const void *, int64_t) = {
#define A(name, ...) add_row_##name,
        ADDING(A)
#undef A
    };
    struct gather *k = NEW(b->a, struct gather);
    const struct tensor *dy = b->step->in[1], *x = b->step->out[0];
    int axis;
    TRY(attr_axis(b->n, "axis", 0, x->rank, &axis));
    axis_cut(x->d, x->rank, axis, &k->outer, &k->n);
    k->size = x->d[axis];
    k->run = k->n * (int64_t)tensor_size(x->type);
    k->add_size = tensor_size(dy->type);
    if (dy->type == TENSOR_BF16 && x->type == TENSOR_F32)
        k->add = add_row_bf16_f32;
    else if (dy->type == TENSOR_F16 && x->type == TENSOR_F32)
        k->add = add_row_f16_f32;
    else if (dy->type == x->type && adding_of(x->type) >= 0)
        k->add = add[adding_of(x->type)];
    else
        return no_kernel(b, dy);
    b->step->state = k;
    b->step->run = run_gather_grad;
    b->step->bytes = bytes_moved(b->step);
    return NULL;
}

/* Walks over all elements of a tensor of indices, in order, and says where along another tensor each lies: by its own
 * place on all axes but one, by its index on that. */
struct elements {
    int rank, axis;
    int64_t n[TENSOR_RANK_MAX], stride[TENSOR_RANK_MAX], size; /* of the axis */
    size_t bytes;
    void (*put)(void *to, const void *from, int64_t n);
};
static err elements_new(struct bind *b, const struct tensor *data, const struct tensor *index,
                        struct elements **out)
{
    struct elements *e = NEW(b->a, struct elements);
    TRY(type_ok(b, data));
    TRY(attr_axis(b->n, "axis", 0, data->rank, &e->axis));
    e->rank = data->rank;
    memcpy(e->n, index->d, sizeof e->n);
    strides_of(data, e->stride);
    e->size = data->d[e->axis];
    e->bytes = tensor_size(data->type);
    *out = e;
    return NULL;
}
/* The next place; at[] starts as zeros. *base: where the element would lie at index 0. */
static void elements_next(const struct elements *e, int64_t *at, int64_t *base)
{
    for (int i = e->rank - 1; i >= 0; i--) {
        int64_t stride = i == e->axis ? 0 : e->stride[i];
        *base += stride;
        if (++at[i] < e->n[i])
            return;
        *base -= stride * e->n[i];
        at[i] = 0;
    }
}

static void run_gather_elements(const struct step *s, struct rank *r)
{
    const struct elements *e = s->state;
    const char *from = s->in[0]->p;
    char *to = s->out[0]->p;
    int64_t at[TENSOR_RANK_MAX] = { 0 }, base = 0;
    for (int64_t i = 0; i < s->in[1]->n; i++, to += e->bytes) {
        int64_t row = index_at(s->in[1], i, e->size, r);
        if (row < 0)
            memset(to, 0, e->bytes);
        else
            memcpy(to, from + (base + row * e->stride[e->axis]) * (int64_t)e->bytes, e->bytes);
        elements_next(e, at, &base);
    }
}
static err bind_gather_elements(struct bind *b)
{
    struct elements *e;
    TRY(elements_new(b, b->step->in[0], b->step->in[1], &e));
    b->step->state = e;
    b->step->run = run_gather_elements;
    return NULL;
}

/* What Scatter does with an element that is there and one that comes. Rows: type by adding_of(). */
#define REDUCE(R, name, type, wide, rd, wr)                                 \
    R(add, name, type, wr((wide)(rd(y[i]) + rd(x[i]))))                     \
    R(mul, name, type, wr((wide)(rd(y[i]) * rd(x[i]))))                     \
    R(max, name, type, ((double)rd(x[i]) > (double)rd(y[i]) ? x[i] : y[i])) \
    R(min, name, type, ((double)rd(x[i]) < (double)rd(y[i]) ? x[i] : y[i]))
#define R(how, name, type, value)                                         \
    static void put_##how##_##name(void *to, const void *from, int64_t n) \
    {                                                                     \
        type *y = to;                                                     \
        const type *x = from;                                             \
        for (int64_t i = 0; i < n; i++)                                   \
            y[i] = value;                                                 \
    }
REDUCE(R, f32, float, float, (float), (float))
REDUCE(R, f64, double, double, (double), (double))
REDUCE(R, bf16, uint16_t, float, rows_of_bf16, rows_to_bf16)
REDUCE(R, f16, uint16_t, float, rows_of_f16, rows_to_f16)
#undef R
#define R(how, name, type, value) put_##how##_##name,
typedef void putter(void *, const void *, int64_t);
static void put_add_i64(void *to, const void *from, int64_t n)
{
    add_row_i64(to, from, n);
}
static void put_add_i32(void *to, const void *from, int64_t n)
{
    add_row_i32(to, from, n);
}
static putter *const putters[][4] = {
    { REDUCE(R, f32, , , , ) },  { REDUCE(R, f64, , , , ) }, { put_add_i64 }, { put_add_i32 },
    { REDUCE(R, bf16, , , , ) }, { REDUCE(R, f16, , , , ) },
};
#undef R

/* NULL: a plain copy. */
static err putter_of(struct bind *b, putter **out)
{
    static const struct str hows[] = { S_INIT("add"), S_INIT("mul"), S_INIT("max"), S_INIT("min") };
    struct str how = attr_s(b->n, "reduction", S("none"));
    int type = adding_of(b->step->in[0]->type);
    *out = NULL;
    for (int i = 0; i < 4; i++)
        if (str_eq(how, hows[i])) {
            *out = type < 0 ? NULL : putters[type][i];
            if (!*out)
                return no_kernel(b, b->step->in[0]);
        }
    return NULL;
}

static void run_scatter_elements(const struct step *s, struct rank *r)
{
    const struct elements *e = s->state;
    char *to = s->out[0]->p;
    const char *from = s->in[2]->p;
    int64_t at[TENSOR_RANK_MAX] = { 0 }, base = 0;
    run_copy(s, r);
    for (int64_t i = 0; i < s->in[1]->n; i++, from += e->bytes) {
        int64_t row = index_at(s->in[1], i, e->size, r);
        char *place = to + (base + row * e->stride[e->axis]) * (int64_t)e->bytes;
        if (row >= 0 && e->put)
            e->put(place, from, 1);
        else if (row >= 0)
            memcpy(place, from, e->bytes);
        elements_next(e, at, &base);
    }
}
static err bind_scatter_elements(struct bind *b)
{
    struct elements *e;
    TRY(elements_new(b, b->step->in[0], b->step->in[1], &e));
    TRY(putter_of(b, &e->put));
    b->step->state = e;
    b->step->run = run_scatter_elements;
    return NULL;
}

/* GatherND, ScatterND: each tuple of indices names a dense slice. */
struct tuples {
    int64_t n, width;                       /* tuples, and indices in each */
    int64_t batch, per_batch, batch_stride; /* tuples of one item of the batch; elements of the data in it */
    int64_t size[TENSOR_RANK_MAX], stride[TENSOR_RANK_MAX]; /* of the data's axes that they name */
    int64_t run;                                            /* elements of a slice */
    size_t bytes;
    putter *put;
};
static struct tuples *tuples_new(struct bind *b, const struct tensor *data, const struct tensor *index,
                                 int batch)
{
    struct tuples *t = NEW(b->a, struct tuples);
    int64_t stride[TENSOR_RANK_MAX];
    strides_of(data, stride);
    t->width = index->d[index->rank - 1];
    t->n = index->n / t->width;
    t->batch = t->batch_stride = 1;
    for (int i = 0; i < data->rank; i++)
        *(i < batch ? &t->batch : &t->batch_stride) *= data->d[i];
    t->per_batch = t->batch ? t->n / t->batch : 0;
    t->run = t->batch_stride;
    for (int i = 0; i < t->width; i++) {
        t->size[i] = data->d[batch + i];
        t->stride[i] = stride[batch + i];
        t->run = stride[batch + i];
    }
    t->bytes = tensor_size(data->type);
    return t;
}
/* Where the slice of tuple i begins, in elements; −1: outside. */
static int64_t tuple_at(const struct tuples *t, const struct tensor *index, int64_t i, struct rank *r)
{
    int64_t at = t->per_batch ? i / t->per_batch * t->batch_stride : 0;
    for (int64_t k = 0; k < t->width; k++) {
        int64_t place = index_at(index, i * t->width + k, t->size[k], r);
        if (place < 0)
            return -1;
        at += place * t->stride[k];
    }
    return at;
}
static void run_gather_nd(const struct step *s, struct rank *r)
{
    const struct tuples *t = s->state;
    size_t run = (size_t)t->run * t->bytes;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t at = tuple_at(t, s->in[1], i, r);
        char *to = (char *)s->out[0]->p + (size_t)i * run;
        if (at < 0)
            memset(to, 0, run);
        else
            memcpy(to, (const char *)s->in[0]->p + at * (int64_t)t->bytes, run);
    }
}
static err bind_gather_nd(struct bind *b)
{
    TRY(type_ok(b, b->step->in[0]));
    b->step->state = tuples_new(b, b->step->in[0], b->step->in[1], (int)attr_i(b->n, "batch_dims", 0));
    b->step->run = run_gather_nd;
    return NULL;
}
static void run_scatter_nd(const struct step *s, struct rank *r)
{
    const struct tuples *t = s->state;
    run_copy(s, r);
    for (int64_t i = 0; i < t->n; i++) {
        int64_t at = tuple_at(t, s->in[1], i, r);
        char *to = (char *)s->out[0]->p + at * (int64_t)t->bytes;
        const char *from = (const char *)s->in[2]->p + i * t->run * (int64_t)t->bytes;
        if (at >= 0 && t->put)
            t->put(to, from, t->run);
        else if (at >= 0)
            memcpy(to, from, (size_t)t->run * t->bytes);
    }
}
static err bind_scatter_nd(struct bind *b)
{
    TRY(type_ok(b, b->step->in[0]));
    struct tuples *t = tuples_new(b, b->step->in[0], b->step->in[1], 0);
    TRY(putter_of(b, &t->put));
    b->step->state = t;
    b->step->run = run_scatter_nd;
    return NULL;
}

/* ---- Trilu ---- */

struct trilu {
    bool upper;
};
static void run_trilu(const struct step *s, struct rank *r)
{
    (void)r;
    const struct tensor *x = s->in[0];
    const struct trilu *t = s->state;
    int64_t k = s->n_in > 1 && s->in[1] ? *(const int64_t *)s->in[1]->p : 0;
    int64_t rows = x->d[x->rank - 2], columns = x->d[x->rank - 1], size = (int64_t)tensor_size(x->type);
    int64_t all = x->n > 0 ? x->n / columns : 0;
    run_copy(s, r);
    k = k > columns ? columns : k < -rows ? -rows : k;
    for (int64_t i = 0; i < all; i++) { /* zeros before column `cut`, or from it on */
        int64_t cut = i % rows + k + (t->upper ? 0 : 1);
        cut = cut < 0 ? 0 : cut > columns ? columns : cut;
        char *row = (char *)s->out[0]->p + i * columns * size;
        if (t->upper)
            memset(row, 0, (size_t)(cut * size));
        else
            memset(row + cut * size, 0, (size_t)((columns - cut) * size));
    }
}
static err bind_trilu(struct bind *b)
{
    TRY(type_ok(b, b->step->in[0]));
    struct trilu *t = NEW(b->a, struct trilu);
    t->upper = attr_i(b->n, "upper", 1) != 0;
    b->step->state = t;
    b->step->run = run_trilu;
    return NULL;
}

/* ---- numbers made ---- */

/* Shape, Size, Constant: the graph knows the answer (the shape rule put it there). */
static void run_known(const struct step *s, struct rank *r)
{
    (void)r;
    memcpy(s->out[0]->p, s->state, (size_t)s->out[0]->n * tensor_size(s->out[0]->type));
}
static err bind_known(struct bind *b)
{
    const struct value *v = node_out(b->g, b->n, 0);
    if (!v || !v->data)
        return node_err(b->g, b->n, "its value is not known");
    b->step->state = (void *)v->data;
    b->step->run = run_known;
    return NULL;
}

static void run_fill(const struct step *s, struct rank *r)
{
    (void)r;
    fill(s->out[0]->p, s->out[0]->n, s->state, tensor_size(s->out[0]->type));
}
static err bind_constant_of_shape(struct bind *b)
{
    static const int64_t zero;
    const struct attr *at = attr_find(b->n, "value");
    TRY(type_ok(b, b->step->out[0]));
    b->step->state = at ? (void *)value_at(b->g, (int)at->i)->data : (void *)&zero;
    b->step->run = run_fill;
    return NULL;
}

#define RANGE(type)                                                                                    \
    static void run_range_##type(const struct step *s, struct rank *r)                                 \
    {                                                                                                  \
        (void)r;                                                                                       \
        type start = *(const type *)s->in[0]->p, step = *(const type *)s->in[2]->p, *y = s->out[0]->p; \
        for (int64_t i = 0; i < s->out[0]->n; i++)                                                     \
            y[i] = (type)(start + (type)i * step);                                                     \
    }
RANGE(float)
RANGE(double)
RANGE(int64_t)
RANGE(int32_t)
RANGE(int16_t)
static err bind_range(struct bind *b)
{
    switch (b->step->in[0]->type) {
    case TENSOR_F32:
        b->step->run = run_range_float;
        return NULL;
    case TENSOR_F64:
        b->step->run = run_range_double;
        return NULL;
    case TENSOR_I64:
        b->step->run = run_range_int64_t;
        return NULL;
    case TENSOR_I32:
        b->step->run = run_range_int32_t;
        return NULL;
    case TENSOR_I16:
        b->step->run = run_range_int16_t;
        return NULL;
    default:
        return no_kernel(b, b->step->in[0]);
    }
}

/* A number of any type that indices are given in. */
static double number_at(const struct tensor *t, int64_t i)
{
    switch (t->type) {
    case TENSOR_I64:
        return (double)((const int64_t *)t->p)[i];
    case TENSOR_I32:
        return ((const int32_t *)t->p)[i];
    case TENSOR_F64:
        return ((const double *)t->p)[i];
    case TENSOR_U8:
        return ((const uint8_t *)t->p)[i];
    default:
        return ((const float *)t->p)[i];
    }
}
/* An index outside of the depth has no `on`: that is ONNX's word. */
static void run_one_hot(const struct step *s, struct rank *r)
{
    (void)r;
    const struct tensor *index = s->in[0], *y = s->out[0];
    size_t size = tensor_size(y->type);
    const struct gather *k = s->state;
    const char *on = (const char *)s->in[2]->p + size;
    fill(y->p, y->n, s->in[2]->p, size);
    for (int64_t o = 0; o < k->outer; o++)
        for (int64_t i = 0; i < k->n; i++) {
            double v = number_at(index, o * k->n + i);
            if (v < 0)
                v += (double)k->size;
            if (v >= 0 && v < (double)k->size)
                memcpy((char *)y->p + ((o * k->size + (int64_t)v) * k->n + i) * (int64_t)size, on, size);
        }
}
static err bind_one_hot(struct bind *b)
{
    struct gather *k = NEW(b->a, struct gather);
    const struct tensor *index = b->step->in[0], *y = b->step->out[0];
    enum tensor_type t = index->type;
    int axis;
    TRY(type_ok(b, y));
    if (t != TENSOR_I64 && t != TENSOR_I32 && t != TENSOR_F64 && t != TENSOR_F32 && t != TENSOR_U8)
        return no_kernel(b, index);
    TRY(attr_axis(b->n, "axis", -1, y->rank, &axis));
    axis_cut(y->d, y->rank, axis, &k->outer, &k->n);
    k->size = y->d[axis];
    b->step->state = k;
    b->step->run = run_one_hot;
    return NULL;
}

/* ---- TopK ---- */

struct top_k {
    int64_t outer, size, inner, k;
    bool largest;
};
/* Whether x[i] comes before x[j]; NaN counts as the largest, equal ones keep their order. */
#define TOP_K(type)                                                                                       \
    static inline bool before_##type(type x, type y, bool largest)                                        \
    {                                                                                                     \
        return largest ? x > y || (x != x && y == y) : x < y || (y != y && x == x);                       \
    }                                                                                                     \
    /* Merges sorted runs of indices, from width 1 up; the result lies in the one that is returned. */    \
    static int64_t *sort_##type(const type *x, int64_t stride, int64_t n, int64_t *v, int64_t *other,     \
                                bool largest)                                                             \
    {                                                                                                     \
        for (int64_t i = 0; i < n; i++)                                                                   \
            v[i] = i;                                                                                     \
        for (int64_t width = 1; width < n; width *= 2) {                                                  \
            for (int64_t at = 0; at < n; at += 2 * width) {                                               \
                int64_t i = at, mid = at + width < n ? at + width : n,                                    \
                        end = at + 2 * width < n ? at + 2 * width : n;                                    \
                for (int64_t j = mid, to = at; to < end; to++)                                            \
                    other[to] = j >= end || (i < mid &&                                                   \
                                             !before_##type(x[v[j] * stride], x[v[i] * stride], largest)) \
                                    ? v[i++]                                                              \
                                    : v[j++];                                                             \
            }                                                                                             \
            int64_t *done = other;                                                                        \
            other = v;                                                                                    \
            v = done;                                                                                     \
        }                                                                                                 \
        return v;                                                                                         \
    }                                                                                                     \
    static void run_top_k_##type(const struct step *s, struct rank *r)                                    \
    {                                                                                                     \
        const struct top_k *t = s->state;                                                                 \
        type *top = s->out[0] ? s->out[0]->p : NULL;                                                      \
        int64_t *where = s->out[1] ? s->out[1]->p : NULL, *scratch = r->scratch;                          \
        for (int64_t o = 0; o < t->outer * t->inner; o++) {                                               \
            int64_t block = o / t->inner, lane = o % t->inner;                                            \
            const type *x = (const type *)s->in[0]->p + block * t->size * t->inner + lane;                \
            const int64_t *order = sort_##type(x, t->inner, t->size, scratch, scratch + t->size,          \
                                               t->largest);                                               \
            for (int64_t i = 0; i < t->k; i++) {                                                          \
                int64_t to = (block * t->k + i) * t->inner + lane;                                        \
                if (top)                                                                                  \
                    top[to] = x[order[i] * t->inner];                                                     \
                if (where)                                                                                \
                    where[to] = order[i];                                                                 \
            }                                                                                             \
        }                                                                                                 \
    }
TOP_K(float)
TOP_K(double)
TOP_K(int64_t)
TOP_K(int32_t)
TOP_K(uint64_t)

static err bind_top_k(struct bind *b)
{
    struct top_k *t = NEW(b->a, struct top_k);
    const struct tensor *x = b->step->in[0], *y = b->step->out[0] ? b->step->out[0] : b->step->out[1];
    int axis;
    TRY(attr_axis(b->n, "axis", -1, x->rank, &axis));
    axis_cut(x->d, x->rank, axis, &t->outer, &t->inner);
    t->size = x->d[axis];
    t->k = y ? y->d[axis] : 0;
    t->largest = attr_i(b->n, "largest", 1) != 0;
    b->step->state = t;
    b->step->scratch = 2 * (size_t)t->size * sizeof(int64_t);
    switch (x->type) {
    case TENSOR_F32:
        b->step->run = run_top_k_float;
        return NULL;
    case TENSOR_F64:
        b->step->run = run_top_k_double;
        return NULL;
    case TENSOR_I64:
        b->step->run = run_top_k_int64_t;
        return NULL;
    case TENSOR_I32:
        b->step->run = run_top_k_int32_t;
        return NULL;
    case TENSOR_U64:
        b->step->run = run_top_k_uint64_t;
        return NULL;
    default:
        return no_kernel(b, x);
    }
}

const struct cpu_kernel cpu_shape[] = {
    { OP_Reshape, bind_copy, 1, true },
    { OP_Flatten, bind_copy, 1, true },
    { OP_Squeeze, bind_copy, 1, true },
    { OP_Unsqueeze, bind_copy, 1, true },
    { OP_Identity, bind_copy, 1, true },
    { OP_Transpose, bind_transpose, 0 },
    { OP_Concat, bind_concat, 0 },
    { OP_Split, bind_split, 0 },
    { OP_Slice, bind_slice, 0 },
    { OP_Pad, bind_pad, 0 },
    { OP_Expand, bind_expand, 0 },
    { OP_Tile, bind_tile, 0 },
    { OP_Trilu, bind_trilu, 1 },
    { OP_Gather, bind_gather, 0 },
    { OP_GatherElements, bind_gather_elements, 0 },
    { OP_GatherND, bind_gather_nd, 0 },
    { OP_ScatterElements, bind_scatter_elements, 1 },
    { OP_ScatterND, bind_scatter_nd, 1 },
    { OP_Shape, bind_known, 0 },
    { OP_Size, bind_known, 0 },
    { OP_Constant, bind_known, 0 },
    { OP_ConstantOfShape, bind_constant_of_shape, 0 },
    { OP_Range, bind_range, 0 },
    { OP_OneHot, bind_one_hot, 0 },
    { OP_TopK, bind_top_k, 0 },
    { OP_DepthToSpace, bind_depth_to_space, 0 },
    { OP_SpaceToDepth, bind_space_to_depth, 0 },
    { OP_GatherGrad, bind_gather_grad, 0 },
    { OP_SliceGrad, bind_slice_grad, 0 },
    { OP_PadGrad, bind_pad_grad, 0 },
    { 0 },
};
