// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/reduce.h"
#include "engine/cpu/elements.h"

#include <math.h>

enum {
    CHUNK = 1024,
    COLUMNS_MAX = 4096, /* of long rows: memory is read in longer runs */
    ROW_MAX = 4096,
    BLOCK = 64 /* steps that are summed before their sum is added to the whole */
};

enum post { POST_NONE, POST_SCALE, POST_SQRT, POST_LOG, POST_LOG_SUM_EXP };
struct axis {
    int64_t size, in, out; /* strides in elements; out: 0 if the axis is gone */
    bool gone;
};
struct reduce {
    const struct element_table *t;
    enum tensor_type from, to;
    bool native;
    int map; /* an element, or −1 */
    enum element combine;
    enum fold fold;
    enum post post;
    double share; /* 1 / elements that make one */
    int n;
    struct axis axis[TENSOR_RANK_MAX]; /* in the order of the input's memory, merged */
    int64_t kept, gone;                /* combinations of the axes before the last */
    int64_t group;                     /* rows of a kept last axis that are taken in one step */
    size_t chunk;                      /* elements of a register */
};

static void set_one(const struct element_table *t, void *reg, long double v)
{
    if (t == &elements_i64)
        *(int64_t *)reg = (int64_t)v;
    else if (t == &elements_f64)
        *(double *)reg = (double)v;
    else
        *(float *)reg = (float)v;
}

static long double get_one(const struct element_table *t, const void *reg)
{
    return t == &elements_i64   ? (long double)*(const int64_t *)reg
           : t == &elements_f64 ? (long double)*(const double *)reg
                                : (long double)*(const float *)reg;
}

static void set_all(const struct element_table *t, void *reg, long double v, size_t n)
{
    _Alignas(8) char one[8];
    set_one(t, one, v);
    t->load[t == &elements_i64 ? TENSOR_I64 : t == &elements_f64 ? TENSOR_F64 : TENSOR_F32](reg, one, 0, n);
}

/* The i-th combination of the axes before the last that are gone (or kept): offsets of input and output. */
static void place(const struct reduce *r, bool gone, int64_t i, int64_t *in, int64_t *out)
{
    for (int k = r->n - 2; k >= 0; k--) {
        const struct axis *a = &r->axis[k];
        if (a->gone != gone)
            continue;
        int64_t at = i % a->size;
        i /= a->size;
        *in += at * a->in;
        *out += at * a->out;
    }
}

/* n elements at x, converted, less `less` (NULL: nothing), mapped: in place, or in tmp. */
static const void *taken(const struct reduce *r, const char *x, char *tmp, const void *less, size_t n)
{
    static const double none[2];
    const void *from = x;
    if (!r->native) {
        r->t->load[r->from](tmp, x, 1, n);
        from = tmp;
    }
    if (less) {
        r->t->fn[ELEMENT_Sub](tmp, from, less, NULL, n, none);
        from = tmp;
    }
    if (r->map >= 0) {
        r->t->fn[r->map](tmp, from, NULL, NULL, n, none);
        from = tmp;
    }
    return from;
}

static long double finish(const struct reduce *r, long double v, long double top)
{
    switch (r->post) {
    case POST_SCALE:
        return v * (long double)r->share;
    case POST_SQRT:
        return (long double)sqrt((double)v);
    case POST_LOG:
        return (long double)log((double)v);
    case POST_LOG_SUM_EXP:
        return (long double)log((double)v) + top;
    default:
        return v;
    }
}

static long double start(const struct reduce *r)
{
    bool whole = r->t == &elements_i64;
    if (r->from == TENSOR_BOOL && (r->fold == FOLD_MAX || r->fold == FOLD_MIN))
        return r->fold == FOLD_MIN;
    return r->fold == FOLD_SUM    ? 0
           : r->fold == FOLD_PROD ? 1
           : r->fold == FOLD_MAX  ? (whole ? (long double)INT64_MIN : -INFINITY)
                                  : (whole ? (long double)INT64_MAX : INFINITY);
}

static long double together(enum fold f, long double x, long double y)
{
    switch (f) {
    case FOLD_SUM:
        return x + y;
    case FOLD_PROD:
        return x * y;
    case FOLD_MAX:
        return x > y || isnan(x) ? x : y;
    default:
        return x < y || isnan(x) ? x : y;
    }
}

/* ---- the last axis is gone: rows are folded ---- */

static long double fold_rows(const struct reduce *r, const char *x, int64_t at, char *tmp, const void *less,
                             enum fold f)
{
    const struct axis *last = &r->axis[r->n - 1];
    size_t size = tensor_size(r->from);
    /* What needs no register is folded as a whole. */
    int64_t piece = r->native && !less && r->map < 0 ? last->size : (int64_t)r->chunk;
    long double total = 0;
    bool first = true;
    for (int64_t g = 0; g < r->gone; g++) {
        int64_t in = at, none = 0;
        place(r, true, g, &in, &none);
        for (int64_t i = 0; i < last->size; i += piece) {
            size_t n = (size_t)(last->size - i < piece ? last->size - i : piece);
            long double v = r->t->fold[f](taken(r, x + (size_t)(in + i) * size, tmp, less, n), n);
            total = first ? v : together(f, total, v);
            first = false;
        }
    }
    return total;
}

struct columns {
    char *sum, *block, *tmp, *less; /* registers of CHUNK elements */
};

static void finish_columns(const struct reduce *r, const struct columns *c, size_t n)
{
    const double k[2] = { r->share, 0 };
    if (r->post == POST_SCALE)
        r->t->fn[ELEMENT_Scale](c->sum, c->sum, NULL, NULL, n, k);
    else if (r->post == POST_SQRT)
        r->t->fn[ELEMENT_Sqrt](c->sum, c->sum, NULL, NULL, n, k);
    else if (r->post == POST_LOG || r->post == POST_LOG_SUM_EXP)
        r->t->fn[ELEMENT_Log](c->sum, c->sum, NULL, NULL, n, k);
    if (r->post == POST_LOG_SUM_EXP)
        r->t->fn[ELEMENT_Add](c->sum, c->sum, c->less, NULL, n, k);
}

/* Many rows, one after the other: a chunk of them at a time. */
static bool run_plain_rows(const struct reduce *r, const struct step *s, char *scratch)
{
    int64_t n = r->axis[r->n - 1].size;
    if (!r->t->sum_rows || !r->native || r->map >= 0 || r->fold != FOLD_SUM || n > ROW_MAX || r->n != 2 ||
        r->axis[0].gone || r->axis[0].in != n || r->axis[0].out != 1)
        return false;
    const struct columns c = { .sum = scratch };
    for (int64_t k = 0; k < r->kept; k += (int64_t)r->chunk) {
        size_t m = (size_t)(r->kept - k < (int64_t)r->chunk ? r->kept - k : (int64_t)r->chunk);
        r->t->sum_rows(scratch, (const char *)s->in[0]->p + (size_t)(k * n) * r->t->size, m, (size_t)n);
        finish_columns(r, &c, m);
        r->t->store[r->to]((char *)s->out[0]->p + (size_t)k * tensor_size(r->to), scratch, m);
    }
    return true;
}

static void run_rows(const struct reduce *r, const struct step *s, char *scratch)
{
    char *tmp = scratch, *less = scratch + r->chunk * r->t->size;
    _Alignas(8) char one[8];
    if (run_plain_rows(r, s, scratch))
        return;
    for (int64_t k = 0; k < r->kept; k++) {
        int64_t in = 0, out = 0;
        long double top = 0;
        place(r, false, k, &in, &out);
        if (r->post == POST_LOG_SUM_EXP) {
            struct reduce greatest = *r;
            greatest.map = -1;
            top = fold_rows(&greatest, s->in[0]->p, in, tmp, NULL, FOLD_MAX);
            top = isinf(top) ? 0 : top;
            set_all(r->t, less, top, r->chunk);
        }
        long double v = fold_rows(r, s->in[0]->p, in, tmp, r->post == POST_LOG_SUM_EXP ? less : NULL,
                                  r->fold);
        set_one(r->t, one, finish(r, v, top));
        r->t->store[r->to]((char *)s->out[0]->p + (size_t)out * tensor_size(r->to), one, 1);
    }
}

/* ---- the last axis is kept: rows are added up ---- */

/* Columns from col on, n of them, of all rows that are gone: into c->sum. less: NULL, or what is taken off each row. */
static void add_rows(const struct reduce *r, const char *x, int64_t at, size_t n, const struct columns *c,
                     const void *less, enum element combine)
{
    static const double none[2];
    element_fn *add = r->t->fn[combine];
    size_t size = tensor_size(r->from);
    bool sum = combine == ELEMENT_Add, whole_rows = r->group > 1;
    /* In groups the rows of the innermost gone axis follow each other in memory. */
    int64_t inner = whole_rows ? r->axis[r->n - 2].size : 1, most = whole_rows ? r->group : 1, steps = 0;
    size_t wide = n * (size_t)(most < inner ? most : inner);
    set_all(r->t, c->sum, start(r), wide);
    if (sum)
        memset(c->block, 0, wide * r->t->size);
    for (int64_t g = 0; g < r->gone; g += inner) {
        int64_t in = at, nothing = 0;
        place(r, true, g, &in, &nothing);
        for (int64_t row = 0; row < inner; row += most) {
            size_t m = n * (size_t)(inner - row < most ? inner - row : most);
            const void *v = taken(r, x + (size_t)(in + row * (int64_t)n) * size, c->tmp, less, m);
            char *to = sum ? c->block : c->sum;
            add(to, to, v, NULL, m, none);
            if (sum && ++steps % BLOCK == 0) {
                add(c->sum, c->sum, c->block, NULL, wide, none);
                memset(c->block, 0, wide * r->t->size);
            }
        }
    }
    if (sum)
        add(c->sum, c->sum, c->block, NULL, wide, none);
    for (size_t i = n; i < wide; i += n)
        add(c->sum, c->sum, c->sum + i * r->t->size, NULL, n, none);
}

/* The greatest of each column, repeated for each row of a group; infinite ones are left out. */
static void greatest_columns(const struct reduce *r, const char *x, int64_t at, size_t n,
                             const struct columns *c)
{
    struct reduce plain = *r;
    plain.map = -1;
    plain.fold = FOLD_MAX;
    add_rows(&plain, x, at, n, c, NULL, ELEMENT_Max);
    for (size_t i = 0; i < n; i++)
        if (isinf(get_one(r->t, c->sum + i * r->t->size)))
            set_one(r->t, c->sum + i * r->t->size, 0);
    for (int64_t g = 0; g < r->group; g++)
        memcpy(c->less + (size_t)g * n * r->t->size, c->sum, n * r->t->size);
}

static void store_columns(const struct reduce *r, char *to, const char *from, size_t n)
{
    size_t size = tensor_size(r->to);
    int64_t stride = r->axis[r->n - 1].out;
    if (stride == 1 || n == 1)
        r->t->store[r->to](to, from, n);
    else
        for (size_t i = 0; i < n; i++)
            r->t->store[r->to](to + (size_t)((int64_t)i * stride) * size, from + i * r->t->size, 1);
}

static void run_columns(const struct reduce *r, const struct step *s, char *scratch)
{
    size_t bytes = r->chunk * r->t->size;
    struct columns c = { scratch, scratch + bytes, scratch + 2 * bytes, scratch + 3 * bytes };
    const struct axis *last = &r->axis[r->n - 1];
    for (int64_t k = 0; k < r->kept; k++) {
        int64_t in = 0, out = 0;
        place(r, false, k, &in, &out);
        for (int64_t col = 0; col < last->size; col += (int64_t)r->chunk) {
            size_t n = (size_t)(last->size - col < (int64_t)r->chunk ? last->size - col : (int64_t)r->chunk);
            bool lse = r->post == POST_LOG_SUM_EXP;
            if (lse)
                greatest_columns(r, s->in[0]->p, in + col, n, &c);
            add_rows(r, s->in[0]->p, in + col, n, &c, lse ? c.less : NULL, r->combine);
            finish_columns(r, &c, n);
            store_columns(r, (char *)s->out[0]->p + (size_t)(out + col * last->out) * tensor_size(r->to),
                          c.sum, n);
        }
    }
}

static void run(const struct step *s, struct rank *rank)
{
    const struct reduce *r = s->state;
    if (s->out[0]->n == 0)
        return;
    if (s->in[0]->n == 0) { /* a sum of nothing */
        _Alignas(8) char one[8];
        set_one(r->t, one, finish(r, start(r), 0));
        for (int64_t i = 0; i < s->out[0]->n; i++)
            r->t->store[r->to]((char *)s->out[0]->p + (size_t)i * tensor_size(r->to), one, 1);
    } else if (r->axis[r->n - 1].gone)
        run_rows(r, s, rank->scratch);
    else
        run_columns(r, s, rank->scratch);
}

/* ---- binding ---- */

struct kind {
    int op, map;
    enum element combine;
    enum fold fold;
    enum post post;
};
static const struct kind kinds[] = {
    { OP_ReduceSum, -1, ELEMENT_Add, FOLD_SUM, POST_NONE },
    { OP_SumTo, -1, ELEMENT_Add, FOLD_SUM, POST_NONE },
    { OP_ReduceMean, -1, ELEMENT_Add, FOLD_SUM, POST_SCALE },
    { OP_ReduceMax, -1, ELEMENT_Max, FOLD_MAX, POST_NONE },
    { OP_ReduceMin, -1, ELEMENT_Min, FOLD_MIN, POST_NONE },
    { OP_ReduceProd, -1, ELEMENT_Mul, FOLD_PROD, POST_NONE },
    { OP_ReduceL1, ELEMENT_Abs, ELEMENT_Add, FOLD_SUM, POST_NONE },
    { OP_ReduceL2, ELEMENT_Square, ELEMENT_Add, FOLD_SUM, POST_SQRT },
    { OP_ReduceSumSquare, ELEMENT_Square, ELEMENT_Add, FOLD_SUM, POST_NONE },
    { OP_ReduceLogSum, -1, ELEMENT_Add, FOLD_SUM, POST_LOG },
    { OP_ReduceLogSumExp, ELEMENT_Exp, ELEMENT_Add, FOLD_SUM, POST_LOG_SUM_EXP },
};

/* Which axes of the input go, for a reduction or for SumTo. */
static err axes_gone(const struct bind *b, unsigned *out)
{
    const struct tensor *x = bind_in(b, 0), *y = bind_out(b, 0);
    bool known = true;
    if (b->n->op->id != OP_SumTo) {
        TRY(reduce_axes(b->g, b->n, out, &known));
        return known ? NULL : cpu_no_kernel(b);
    }
    *out = 0;
    for (int i = 0; i < x->rank; i++) {
        int at = i - (x->rank - y->rank);
        if (at < 0 || (y->d[at] == 1 && x->d[i] != 1))
            *out |= 1u << i;
        else if (y->d[at] != x->d[i])
            return cpu_no_kernel(b);
    }
    return NULL;
}

/* Strides of the output by axis of the input. */
static void out_strides(const struct bind *b, unsigned gone, int64_t *stride)
{
    const struct tensor *x = bind_in(b, 0), *y = bind_out(b, 0);
    static const int nhwc_order[] = { 0, 2, 3, 1 };
    int64_t own[TENSOR_RANK_MAX], n = 1;
    for (int i = y->rank - 1; i >= 0; i--) {
        int axis = y->nhwc && y->rank == 4 ? nhwc_order[i] : i;
        own[axis] = n;
        n *= y->d[axis];
    }
    bool keep = y->rank == x->rank, right = b->n->op->id == OP_SumTo;
    for (int i = 0, to = 0; i < x->rank; i++) {
        int at = right ? i - (x->rank - y->rank) : keep ? i : to;
        stride[i] = gone >> i & 1 || at < 0 || at >= y->rank ? 0 : own[at];
        to += !(gone >> i & 1);
    }
}

static void axes_merge(struct reduce *r, const struct tensor *x, unsigned gone, const int64_t *out)
{
    static const int nhwc_order[] = { 0, 2, 3, 1 };
    int64_t stride = 1;
    for (int i = 0; i < x->rank; i++)
        stride *= x->d[i];
    for (int i = 0; i < x->rank; i++) {
        int axis = x->nhwc && x->rank == 4 ? nhwc_order[i] : i;
        int64_t size = x->d[axis];
        if (size == 0 || size == 1)
            continue;
        stride /= size;
        bool g = gone >> axis & 1;
        struct axis *last = r->n > 0 ? &r->axis[r->n - 1] : NULL;
        if (last && last->gone == g && (g || last->out == out[axis] * size))
            *last = (struct axis){ last->size * size, stride, out[axis], g };
        else
            r->axis[r->n++] = (struct axis){ size, stride, out[axis], g };
    }
    if (r->n == 0)
        r->axis[r->n++] = (struct axis){ 1, 1, 1, false };
    r->kept = r->gone = 1;
    for (int i = 0; i < r->n - 1; i++)
        *(r->axis[i].gone ? &r->gone : &r->kept) *= r->axis[i].size;
    const struct axis *last = &r->axis[r->n - 1];
    bool stack = !last->gone && r->n > 1 && r->axis[r->n - 2].gone && last->size <= (int64_t)r->chunk / 2;
    r->group = stack ? (int64_t)r->chunk / last->size : 1;
}

err reduce_bind(struct bind *b)
{
    const struct tensor *x = bind_in(b, 0), *y = bind_out(b, 0);
    const struct kind *kind = kinds;
    while (kind->op != b->n->op->id)
        kind++;
    unsigned gone;
    int64_t out[TENSOR_RANK_MAX];
    if (!y)
        return cpu_no_kernel(b);
    TRY(axes_gone(b, &gone));
    const struct element_table *t = x->type == TENSOR_F64 ? &elements_f64
                                    : x->type == TENSOR_F32 || x->type == TENSOR_BF16 || x->type == TENSOR_F16
                                        ? SIMD_PICK(elements_f32)
                                    : kind->post == POST_NONE ? &elements_i64
                                                              : &elements_f64;
    if (!t->load[x->type] || !t->store[y->type])
        return cpu_no_kernel(b);
    struct reduce *r = NEW(b->a, struct reduce);
    *r = (struct reduce){ .t = t,
                          .from = x->type,
                          .to = y->type,
                          .map = kind->map,
                          .combine = kind->combine,
                          .fold = kind->fold,
                          .post = kind->post };
    r->native = x->type == (t == &elements_f64 ? TENSOR_F64 : t == &elements_i64 ? TENSOR_I64 : TENSOR_F32);
    r->share = y->n > 0 && x->n > 0 ? (double)y->n / (double)x->n : NAN;
    r->chunk = x->n < CHUNK ? (size_t)(x->n + 15) / 16 * 16 : CHUNK;
    out_strides(b, gone, out);
    axes_merge(r, x, gone, out);
    const struct axis *last = &r->axis[r->n - 1];
    if (!last->gone && last->size > CHUNK)
        r->chunk = last->size < COLUMNS_MAX ? (size_t)(last->size + 15) / 16 * 16 : COLUMNS_MAX;
    b->step->scratch = 4 * r->chunk * t->size;
    b->step->state = r;
    b->step->run = run;
    return NULL;
}

/* ---- ArgMax, ArgMin ---- */

struct line { /* an axis of a row-major tensor */
    const struct element_table *t;
    int64_t outer, n, inner;
    bool greatest, last, exclusive, reverse;
};

/* Is the i-th of the register better than the best so far? */
static bool better(const struct line *l, const void *reg, size_t i, const void *best)
{
    if (l->t == &elements_i64) {
        int64_t x = ((const int64_t *)reg)[i], y = *(const int64_t *)best;
        return (l->greatest ? x > y : x < y) || (l->last && x == y);
    }
    double x = ((const double *)reg)[i], y = *(const double *)best;
    return (l->greatest ? x > y : x < y) || (isnan(x) && !isnan(y)) || (l->last && x == y);
}

static void arg_run(const struct step *s, struct rank *rank)
{
    const struct line *l = s->state;
    const struct tensor *x = s->in[0];
    size_t size = tensor_size(x->type);
    char *reg = rank->scratch;
    for (int64_t o = 0; o < l->outer; o++)
        for (int64_t k = 0; k < l->inner; k++) {
            const char *from = (const char *)x->p + (size_t)(o * l->n * l->inner + k) * size;
            _Alignas(8) char best[8];
            int64_t at = 0;
            for (int64_t i = 0; i < l->n; i += CHUNK) {
                size_t n = (size_t)(l->n - i < CHUNK ? l->n - i : CHUNK);
                l->t->load[x->type](reg, from + (size_t)(i * l->inner) * size, l->inner, n);
                if (i == 0)
                    memcpy(best, reg, 8);
                for (size_t j = 0; j < n; j++)
                    if (better(l, reg, j, best)) {
                        memcpy(best, reg + j * 8, 8);
                        at = i + (int64_t)j;
                    }
            }
            ((int64_t *)s->out[0]->p)[o * l->inner + k] = at;
        }
}

static err line_bind(struct bind *b, int axis, struct line **out)
{
    const struct tensor *x = bind_in(b, 0);
    struct line *l = NEW(b->a, struct line);
    bool real = x->type == TENSOR_F64 || x->type == TENSOR_F32 || x->type == TENSOR_BF16 ||
                x->type == TENSOR_F16;
    *l = (struct line){ .t = real ? &elements_f64 : &elements_i64, .outer = 1, .n = 1, .inner = 1 };
    if (!bind_out(b, 0) || !l->t->load[x->type] || x->nhwc)
        return cpu_no_kernel(b);
    for (int i = 0; i < x->rank; i++)
        *(i < axis ? &l->outer : i == axis ? &l->n : &l->inner) *= x->d[i];
    b->step->scratch = CHUNK * l->t->size;
    b->step->state = l;
    *out = l;
    return NULL;
}

err arg_bind(struct bind *b)
{
    int axis;
    struct line *l;
    TRY(attr_axis(b->n, "axis", 0, bind_in(b, 0)->rank, &axis));
    TRY(line_bind(b, axis, &l));
    l->greatest = b->n->op->id == OP_ArgMax;
    l->last = attr_i(b->n, "select_last_index", 0);
    b->step->run = arg_run;
    return NULL;
}

/* ---- CumSum ---- */

static void cumsum_line(const struct line *l, const struct tensor *x, const struct tensor *y, int64_t at,
                        int64_t stride, int64_t n, char *reg)
{
    size_t size = tensor_size(x->type);
    double sum = 0;
    int64_t whole = 0;
    for (int64_t i = 0; i < n; i++) {
        size_t to = (size_t)(at + (l->reverse ? n - 1 - i : i) * stride) * size;
        l->t->load[x->type](reg, (const char *)x->p + to, 0, 1);
        if (l->t == &elements_i64) {
            int64_t now = (int64_t)((uint64_t)whole + (uint64_t) * (int64_t *)(void *)reg);
            *(int64_t *)(void *)reg = l->exclusive ? whole : now;
            whole = now;
        } else {
            double now = sum + *(double *)(void *)reg;
            *(double *)(void *)reg = l->exclusive ? sum : now;
            sum = now;
        }
        l->t->store[y->type]((char *)y->p + to, reg, 1);
    }
}

static void cumsum_run(const struct step *s, struct rank *rank)
{
    const struct line *l = s->state;
    const struct tensor *x = s->in[0], *axis = s->in[1];
    int64_t a = axis->type == TENSOR_I64 ? *(const int64_t *)axis->p : *(const int32_t *)axis->p;
    int64_t outer = 1, n = 1, inner = 1;
    a += a < 0 ? x->rank : 0;
    for (int i = 0; i < x->rank; i++)
        *(i < a ? &outer : i == a ? &n : &inner) *= x->d[i];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < inner; k++)
            cumsum_line(l, x, s->out[0], o * n * inner + k, inner, n, rank->scratch);
}

err cumsum_bind(struct bind *b)
{
    struct line *l;
    const struct tensor *axis = bind_in(b, 1);
    if (axis->type != TENSOR_I64 && axis->type != TENSOR_I32)
        return cpu_no_kernel(b);
    TRY(line_bind(b, 0, &l));
    l->exclusive = attr_i(b->n, "exclusive", 0);
    l->reverse = attr_i(b->n, "reverse", 0);
    b->step->run = cumsum_run;
    return NULL;
}
