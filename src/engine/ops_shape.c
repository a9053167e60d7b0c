// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

static const struct shape unknown = { .rank = -1 };

static void out_set(const struct graph *g, const struct node *n, int i, enum tensor_type type,
                    const struct shape *s)
{
    struct value *v = node_out(g, n, i);
    if (!v)
        return;
    v->type = type;
    v->shape = *s;
}

/* Output 0 has the type of input 0. */
static err out_is(const struct graph *g, const struct node *n, const struct shape *s)
{
    out_set(g, n, 0, node_in(g, n, 0)->type, s);
    return NULL;
}

/* The whole numbers of input i; false if they are not known (yet) or the input is not there. */
static bool ints_in(struct graph *g, const struct node *n, int i, const int64_t **v, size_t *count)
{
    *count = 0;
    if (i >= n->n_in || n->in[i] < 0)
        return false;
    /* Of sizes, places or pieces; a longer list is none of these, and is not copied. */
    int64_t most = 2 * TENSOR_RANK_MAX > n->n_out ? 2 * TENSOR_RANK_MAX : n->n_out;
    return shape_count(&value_at(g, n->in[i])->shape) <= most && value_i64s(g, g->a, n->in[i], v, count);
}
static bool has_in(const struct node *n, int i)
{
    return i < n->n_in && n->in[i] >= 0;
}

/* An axis as ONNX writes it, made non-negative. */
static err axis_ok(const struct graph *g, const struct node *n, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return node_err(g, n, "axis %lld is outside of rank %d", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return NULL;
}

static err rank_ok(const struct graph *g, const struct node *n, int64_t rank)
{
    if (rank > TENSOR_RANK_MAX)
        return node_err(g, n, "rank %lld; at most %d is possible", (long long)rank, TENSOR_RANK_MAX);
    return NULL;
}

static err size_mul(const struct graph *g, const struct node *n, int64_t x, int64_t y, int64_t *out)
{
    if (__builtin_mul_overflow(x, y, out))
        return node_err(g, n, "the sizes are absurd");
    return NULL;
}
static err size_add(const struct graph *g, const struct node *n, int64_t x, int64_t y, int64_t *out)
{
    if (__builtin_add_overflow(x, y, out))
        return node_err(g, n, "the sizes are absurd");
    return NULL;
}

/* ---- Reshape and what is like it ---- */

/* A product of sizes: a number, and symbols. */
struct product {
    int64_t number, symbols[TENSOR_RANK_MAX];
    int n;
};
static err product_of(const struct graph *g, const struct node *n, const int64_t *d, int rank,
                      struct product *out)
{
    *out = (struct product){ .number = 1 };
    for (int i = 0; i < rank; i++)
        if (d[i] < 0)
            out->symbols[out->n++] = d[i];
        else
            TRY(size_mul(g, n, out->number, d[i], &out->number));
    return NULL;
}
/* Symbols that stand on both sides go. */
static void cancel(struct product *x, struct product *y)
{
    for (int i = 0; i < x->n; i++)
        for (int k = 0; k < y->n; k++)
            if (x->symbols[i] == y->symbols[k]) {
                x->symbols[i--] = x->symbols[--x->n];
                y->symbols[k] = y->symbols[--y->n];
                break;
            }
}
/* The product as one size; false if it is more than that. */
static bool product_size(const struct product *p, int64_t *out)
{
    if (p->n == 0)
        *out = p->number;
    else if (p->n == 1 && p->number == 1)
        *out = p->symbols[0];
    else
        return false;
    return true;
}

/* What stands for −1 in `to`, all else being known; *known: it could be said. */
static err reshape_rest(const struct graph *g, const struct node *n, const struct shape *from,
                        struct shape *to, int rest, bool *known)
{
    struct product all, have;
    struct shape others = *to;
    if (rest >= 0)
        others.d[rest] = 1;
    TRY(product_of(g, n, from->d, from->rank, &all));
    TRY(product_of(g, n, others.d, others.rank, &have));
    cancel(&all, &have);
    *known = true;
    if (all.n + have.n == 0 && rest < 0 && all.number != have.number)
        return node_err(g, n, "%lld elements cannot be %lld", (long long)all.number, (long long)have.number);
    if (rest < 0)
        return NULL;
    if (have.n > 0) {
        *known = false;
        return NULL;
    }
    if (have.number == 0 || all.number % have.number != 0)
        return node_err(g, n, "%lld elements cannot be shared out in pieces of %lld", (long long)all.number,
                        (long long)have.number);
    all.number /= have.number;
    *known = product_size(&all, &to->d[rest]);
    return NULL;
}

err shape_reshape(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *v;
    size_t count;
    if (!ints_in(g, n, 1, &v, &count))
        return out_is(g, n, &unknown);
    TRY(rank_ok(g, n, (int64_t)count));
    struct shape s = { .rank = (int)count };
    bool keep_zero = attr_i(n, "allowzero", 0) != 0, known = true;
    int rest = -1;
    for (int i = 0; i < s.rank; i++) {
        s.d[i] = v[i];
        if (v[i] == 0 && !keep_zero) {
            if (x->rank >= 0 && i >= x->rank)
                return node_err(g, n, "size %d is to be kept, but there is none", i);
            known = known && x->rank >= 0;
            s.d[i] = known ? x->d[i] : 0;
        } else if (v[i] == -1 && rest < 0) {
            rest = i;
        } else if (v[i] < 0) {
            return node_err(g, n, "%s", v[i] == -1 ? "two sizes are to be found (-1)" : "a size is negative");
        }
    }
    if (x->rank >= 0)
        TRY(reshape_rest(g, n, x, &s, rest, &known));
    else
        known = known && rest < 0;
    return out_is(g, n, known ? &s : &unknown);
}

err shape_flatten(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    if (x->rank < 0)
        return out_is(g, n, &unknown);
    int64_t axis = attr_i(n, "axis", 1);
    if (axis < -x->rank || axis > x->rank)
        return node_err(g, n, "axis %lld is outside of rank %d", (long long)axis, x->rank);
    axis += axis < 0 ? x->rank : 0;
    struct product first, second;
    struct shape s = { .rank = 2 };
    TRY(product_of(g, n, x->d, (int)axis, &first));
    TRY(product_of(g, n, x->d + axis, x->rank - (int)axis, &second));
    bool known = product_size(&first, &s.d[0]) && product_size(&second, &s.d[1]);
    return out_is(g, n, known ? &s : &unknown);
}

/* Bit i: axis i (of `rank`) is among the whole numbers of input 1. */
static err axes_mask(const struct graph *g, const struct node *n, const int64_t *v, size_t count, int rank,
                     unsigned *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        int axis;
        TRY(axis_ok(g, n, v[i], rank, &axis));
        if (*out >> axis & 1)
            return node_err(g, n, "axis %d is named twice", axis);
        *out |= 1u << axis;
    }
    return NULL;
}

err shape_squeeze(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *v;
    size_t count;
    bool named = has_in(n, 1);
    if (x->rank < 0 || (named && !ints_in(g, n, 1, &v, &count)))
        return out_is(g, n, &unknown);
    unsigned gone = 0;
    if (named)
        TRY(axes_mask(g, n, v, count, x->rank, &gone));
    struct shape s = { 0 };
    for (int i = 0; i < x->rank; i++) {
        if (named && (gone >> i & 1) && x->d[i] > 1)
            return node_err(g, n, "axis %d has size %lld, not 1", i, (long long)x->d[i]);
        if (named ? !(gone >> i & 1) : x->d[i] != 1)
            s.d[s.rank++] = x->d[i];
    }
    return out_is(g, n, &s);
}

err shape_unsqueeze(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *v;
    size_t count;
    if (x->rank < 0 || !ints_in(g, n, 1, &v, &count))
        return out_is(g, n, &unknown);
    TRY(rank_ok(g, n, x->rank + (int64_t)count));
    struct shape s = { .rank = x->rank + (int)count };
    unsigned come;
    TRY(axes_mask(g, n, v, count, s.rank, &come));
    for (int i = 0, from = 0; i < s.rank; i++)
        s.d[i] = come >> i & 1 ? 1 : x->d[from++];
    return out_is(g, n, &s);
}

err shape_identity(struct graph *g, struct node *n)
{
    return out_is(g, n, &node_in(g, n, 0)->shape);
}

/* ---- axes in another order, side by side, cut ---- */

/* Transpose's order of axes. */
static err perm_read(const struct graph *g, const struct node *n, int rank, int *perm)
{
    const struct attr *at = attr_find(n, "perm");
    if (at && at->n != (size_t)rank)
        return node_err(g, n, "perm has %zu axes, the input %d", at->n, rank);
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) {
        int64_t axis = at ? at->is[i] : rank - 1 - i;
        if (axis < 0 || axis >= rank || (seen >> axis & 1))
            return node_err(g, n, "perm is no order of the %d axes", rank);
        seen |= 1u << axis;
        perm[i] = (int)axis;
    }
    return NULL;
}

err shape_transpose(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    if (x->rank < 0)
        return out_is(g, n, &unknown);
    int perm[TENSOR_RANK_MAX];
    TRY(perm_read(g, n, x->rank, perm));
    struct shape s = { .rank = x->rank };
    for (int i = 0; i < s.rank; i++)
        s.d[i] = x->d[perm[i]];
    return out_is(g, n, &s);
}

/* Adds x to what stands side by side in s. */
static err concat_one(const struct graph *g, const struct node *n, const struct shape *x, int axis,
                      struct shape *s, bool *known)
{
    if (x->rank != s->rank)
        return node_err(g, n, "its inputs have %d and %d axes", s->rank, x->rank);
    for (int i = 0; i < s->rank; i++) {
        if (i == axis) {
            if (s->d[i] < 0 || x->d[i] < 0)
                *known = false;
            else
                TRY(size_add(g, n, s->d[i], x->d[i], &s->d[i]));
        } else if (s->d[i] < 0) {
            s->d[i] = x->d[i];
        } else if (x->d[i] >= 0 && x->d[i] != s->d[i]) {
            return node_err(g, n, "its inputs differ along axis %d: %lld and %lld", i, (long long)s->d[i],
                            (long long)x->d[i]);
        }
    }
    return NULL;
}

err shape_concat(struct graph *g, struct node *n)
{
    const struct value *first = node_in(g, n, 0);
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(g, n, i);
        if (!v)
            return node_err(g, n, "input %d is not there", i);
        if (v->type != first->type)
            return node_err(g, n, "its inputs are of several types");
        if (v->shape.rank < 0)
            return out_is(g, n, &unknown);
    }
    int axis;
    if (!attr_find(n, "axis"))
        return node_err(g, n, "it has no axis");
    TRY(attr_axis(n, "axis", 0, first->shape.rank, &axis));
    struct shape s = first->shape;
    bool known = true;
    for (int i = 1; i < n->n_in; i++)
        TRY(concat_one(g, n, &node_in(g, n, i)->shape, axis, &s, &known));
    return out_is(g, n, known ? &s : &unknown);
}

/* Equal pieces, the last one may be smaller. */
static err split_even(const struct graph *g, const struct node *n, int64_t size, int64_t *v)
{
    int64_t pieces = attr_i(n, "num_outputs", n->n_out);
    if (pieces != n->n_out || pieces < 1)
        return node_err(g, n, "num_outputs is %lld, it has %d outputs", (long long)pieces, n->n_out);
    int64_t each = size / pieces + (size % pieces != 0);
    for (int64_t i = 0; i < pieces; i++) {
        v[i] = each < size ? each : size;
        size -= v[i];
    }
    return NULL;
}

err shape_split(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    const int64_t *given = NULL;
    size_t count = 0;
    bool known = x->shape.rank >= 0 && (!has_in(n, 1) || ints_in(g, n, 1, &given, &count));
    int axis = 0;
    if (x->shape.rank >= 0)
        TRY(attr_axis(n, "axis", 0, x->shape.rank, &axis));
    known = known && (given || x->shape.d[axis] >= 0);
    if (given && count != (size_t)n->n_out)
        return node_err(g, n, "%zu sizes for %d outputs", count, n->n_out);
    int64_t *v = NEW_N(g->a, int64_t, n->n_out), sum = 0;
    if (given)
        memcpy(v, given, count * sizeof *v);
    else if (known)
        TRY(split_even(g, n, x->shape.d[axis], v));
    for (int i = 0; i < n->n_out; i++) {
        struct shape s = x->shape;
        if (known)
            s.d[axis] = v[i];
        if (v[i] < 0)
            return node_err(g, n, "a piece has the size %lld", (long long)v[i]);
        TRY(size_add(g, n, sum, v[i], &sum));
        out_set(g, n, i, x->type, known ? &s : &unknown);
    }
    if (known && x->shape.d[axis] >= 0 && sum != x->shape.d[axis])
        return node_err(g, n, "the pieces have %lld elements along axis %d, the input %lld", (long long)sum,
                        axis, (long long)x->shape.d[axis]);
    return NULL;
}

/* One axis of a Slice. ONNX: negative places count from the end, then both are clamped. */
static err slice_axis(const struct graph *g, const struct node *n, int64_t size, int64_t start, int64_t end,
                      int64_t step, struct slice *out, int axis, bool *known)
{
    if (step == 0)
        return node_err(g, n, "a step is 0");
    if (size < 0) { /* open: only as a whole */
        *known = *known && start == 0 && step == 1 && end >= INT32_MAX;
        return NULL;
    }
    int64_t least = step < 0 ? -1 : 0, most = step < 0 ? size - 1 : size;
    start += start < 0 ? size : 0;
    end += end < 0 ? size : 0;
    start = start < 0 ? 0 : start > most ? most : start;
    end = end < least ? least : end > size ? size : end;
    int64_t way = step > 0 ? end - start : start - end;
    uint64_t by = step > 0 ? (uint64_t)step : -(uint64_t)step;
    out->start[axis] = start;
    out->step[axis] = step;
    out->size[axis] = way > 0 && size > 0 ? (int64_t)(((uint64_t)way - 1) / by + 1) : 0;
    if (out->size[axis] <= 1) /* a step that nobody makes may be too large to be added */
        out->step[axis] = 1;
    return NULL;
}

err slice_read(struct graph *g, const struct node *n, struct slice *out, bool *known)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *starts, *ends, *axes = NULL, *steps = NULL;
    size_t count, ends_n, axes_n = 0, steps_n = 0;
    *known = x->rank >= 0 && ints_in(g, n, 1, &starts, &count) && ints_in(g, n, 2, &ends, &ends_n) &&
             (!has_in(n, 3) || ints_in(g, n, 3, &axes, &axes_n)) &&
             (!has_in(n, 4) || ints_in(g, n, 4, &steps, &steps_n));
    if (!*known)
        return NULL;
    if (ends_n != count || (axes && axes_n != count) || (steps && steps_n != count) ||
        count > (size_t)x->rank)
        return node_err(g, n, "starts, ends, axes and steps differ in number, or are more than the axes");
    for (int i = 0; i < x->rank; i++) {
        out->start[i] = 0;
        out->step[i] = 1;
        out->size[i] = x->d[i];
    }
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        int axis;
        TRY(axis_ok(g, n, axes ? axes[i] : (int64_t)i, x->rank, &axis));
        if (seen >> axis & 1)
            return node_err(g, n, "axis %d is named twice", axis);
        seen |= 1u << axis;
        TRY(slice_axis(g, n, x->d[axis], starts[i], ends[i], steps ? steps[i] : 1, out, axis, known));
    }
    return NULL;
}

err shape_slice(struct graph *g, struct node *n)
{
    struct slice cut;
    bool known;
    TRY(slice_read(g, n, &cut, &known));
    struct shape s = node_in(g, n, 0)->shape;
    for (int i = 0; known && i < s.rank; i++)
        s.d[i] = cut.size[i];
    return out_is(g, n, known ? &s : &unknown);
}

err pads_read(struct graph *g, const struct node *n, int rank, int64_t *before, int64_t *after, bool *known)
{
    const int64_t *pads, *axes = NULL;
    size_t count, axes_n = 0;
    *known = rank >= 0 && ints_in(g, n, 1, &pads, &count) &&
             (!has_in(n, 3) || ints_in(g, n, 3, &axes, &axes_n));
    if (!*known)
        return NULL;
    size_t n_axes = axes ? axes_n : (size_t)rank;
    if (count != 2 * n_axes)
        return node_err(g, n, "%zu pads for %zu axes", count, n_axes);
    for (int i = 0; i < rank; i++)
        before[i] = after[i] = 0;
    for (size_t i = 0; i < n_axes; i++) {
        int axis;
        TRY(axis_ok(g, n, axes ? axes[i] : (int64_t)i, rank, &axis));
        before[axis] = pads[i];
        after[axis] = pads[i + n_axes];
    }
    return NULL;
}

/* What can be taken from an axis of `size`: reflect turns once at each end, edge needs an element, wrap goes round. */
static err pad_ok(const struct graph *g, const struct node *n, struct str mode, int64_t size, int64_t before,
                  int64_t after)
{
    if (str_is(mode, "constant") || (before <= 0 && after <= 0))
        return NULL;
    bool reflect = str_is(mode, "reflect");
    if (!reflect && !str_is(mode, "edge") && !str_is(mode, "wrap"))
        return node_err(g, n, "the mode '%.*s' is not known", STR(mode));
    if (size == 0 || (reflect && size > 1 && (before >= INT32_MAX || after >= INT32_MAX)))
        return node_err(g, n, "an axis of %lld elements cannot be padded so", (long long)size);
    return NULL;
}

err shape_pad(struct graph *g, struct node *n)
{
    struct shape s = node_in(g, n, 0)->shape;
    struct str mode = attr_s(n, "mode", S("constant"));
    int64_t before[TENSOR_RANK_MAX], after[TENSOR_RANK_MAX];
    bool known;
    TRY(pads_read(g, n, s.rank, before, after, &known));
    for (int i = 0; known && i < s.rank; i++) {
        if (before[i] == 0 && after[i] == 0)
            continue;
        int64_t size = s.d[i];
        known = size >= 0;
        if (!known)
            break;
        TRY(pad_ok(g, n, mode, size, before[i], after[i]));
        TRY(size_add(g, n, s.d[i], before[i], &s.d[i]));
        TRY(size_add(g, n, s.d[i], after[i], &s.d[i]));
        if (s.d[i] < 0 || size + before[i] < 0 || size + after[i] < 0)
            return node_err(g, n, "it takes more from axis %d than is there", i);
    }
    return out_is(g, n, known ? &s : &unknown);
}

/* ---- repeated ---- */

err shape_expand(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *v;
    size_t count;
    if (x->rank < 0 || !ints_in(g, n, 1, &v, &count))
        return out_is(g, n, &unknown);
    TRY(rank_ok(g, n, (int64_t)count));
    struct shape to = { .rank = (int)count }, s;
    for (int i = 0; i < to.rank; i++) {
        to.d[i] = v[i];
        if (v[i] < 0)
            return node_err(g, n, "a size is negative");
    }
    TRY(shape_broadcast(g, n, x, &to, &s));
    return out_is(g, n, &s);
}

err shape_tile(struct graph *g, struct node *n)
{
    struct shape s = node_in(g, n, 0)->shape;
    const int64_t *v;
    size_t count;
    if (s.rank < 0 || !ints_in(g, n, 1, &v, &count))
        return out_is(g, n, &unknown);
    if (count != (size_t)s.rank)
        return node_err(g, n, "%zu repeats for %d axes", count, s.rank);
    for (int i = 0; i < s.rank; i++) {
        if (v[i] < 0)
            return node_err(g, n, "a repeat is negative");
        if (v[i] == 1)
            continue;
        if (s.d[i] < 0)
            return out_is(g, n, &unknown);
        TRY(size_mul(g, n, s.d[i], v[i], &s.d[i]));
    }
    return out_is(g, n, &s);
}

err shape_trilu(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    if (x->rank >= 0 && x->rank < 2)
        return node_err(g, n, "its input is no matrix");
    return out_is(g, n, x);
}

/* ---- by index ---- */

static err index_ok(const struct graph *g, const struct node *n, int i)
{
    enum tensor_type t = node_in(g, n, i)->type;
    if (t != TENSOR_I64 && t != TENSOR_I32)
        return node_err(g, n, "its indices are neither int64 nor int32");
    return NULL;
}

err shape_gather(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape, *index = &node_in(g, n, 1)->shape;
    TRY(index_ok(g, n, 1));
    if (x->rank < 0 || index->rank < 0)
        return out_is(g, n, &unknown);
    int axis;
    TRY(attr_axis(n, "axis", 0, x->rank, &axis));
    TRY(rank_ok(g, n, x->rank - 1 + index->rank));
    struct shape s = { 0 };
    for (int i = 0; i < axis; i++)
        s.d[s.rank++] = x->d[i];
    for (int i = 0; i < index->rank; i++)
        s.d[s.rank++] = index->d[i];
    for (int i = axis + 1; i < x->rank; i++)
        s.d[s.rank++] = x->d[i];
    return out_is(g, n, &s);
}

/* index: as x but along the axis, where it may have any size, and elsewhere no more. */
static err elements_ok(const struct graph *g, const struct node *n, const struct shape *x,
                       const struct shape *index)
{
    int axis;
    TRY(attr_axis(n, "axis", 0, x->rank, &axis));
    if (index->rank != x->rank)
        return node_err(g, n, "its indices have %d axes, the data %d", index->rank, x->rank);
    for (int i = 0; i < x->rank; i++)
        if (i != axis && x->d[i] >= 0 && index->d[i] > x->d[i])
            return node_err(g, n, "along axis %d there are %lld indices for %lld elements", i,
                            (long long)index->d[i], (long long)x->d[i]);
    return NULL;
}

err shape_gather_elements(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape, *index = &node_in(g, n, 1)->shape;
    TRY(index_ok(g, n, 1));
    if (x->rank >= 0 && index->rank >= 0)
        TRY(elements_ok(g, n, x, index));
    return out_is(g, n, index);
}

/* s: the shape of the slices that tuples of indices name. */
static err nd_shape(const struct graph *g, const struct node *n, const struct shape *x,
                    const struct shape *index, int64_t batch, struct shape *s, bool *known)
{
    *known = x->rank >= 0 && index->rank >= 0 && (index->rank == 0 || index->d[index->rank - 1] >= 0);
    if (!*known)
        return NULL;
    if (index->rank < 1 || x->rank < 1 || batch < 0 || batch >= index->rank || batch >= x->rank)
        return node_err(g, n, "data and indices need an axis more than batch_dims (%lld)", (long long)batch);
    int64_t tuple = index->d[index->rank - 1];
    if (tuple < 1 || tuple > x->rank - batch)
        return node_err(g, n, "tuples of %lld indices for %lld axes", (long long)tuple,
                        (long long)(x->rank - batch));
    int64_t rank = index->rank - 1 + x->rank - batch - tuple;
    TRY(rank_ok(g, n, rank));
    *s = (struct shape){ .rank = (int)rank };
    for (int i = 0; i < index->rank - 1; i++) {
        s->d[i] = index->d[i];
        if (i < batch && x->d[i] >= 0 && index->d[i] >= 0 && x->d[i] != index->d[i])
            return node_err(g, n, "data and indices differ along axis %d of the batch", i);
    }
    for (int i = index->rank - 1; i < s->rank; i++)
        s->d[i] = x->d[i + batch + tuple - (index->rank - 1)];
    return NULL;
}

err shape_gather_nd(struct graph *g, struct node *n)
{
    struct shape s;
    bool known;
    TRY(index_ok(g, n, 1));
    TRY(nd_shape(g, n, &node_in(g, n, 0)->shape, &node_in(g, n, 1)->shape, attr_i(n, "batch_dims", 0), &s,
                 &known));
    return out_is(g, n, known ? &s : &unknown);
}

/* ScatterElements and ScatterND: as the data. */
err shape_scatter(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape, *index = &node_in(g, n, 1)->shape;
    const struct shape *updates = &node_in(g, n, 2)->shape;
    struct str how = attr_s(n, "reduction", S("none"));
    struct shape want = *index;
    bool known = x->rank >= 0 && index->rank >= 0;
    TRY(index_ok(g, n, 1));
    if (node_in(g, n, 2)->type != node_in(g, n, 0)->type)
        return node_err(g, n, "updates and data differ in type");
    if (!str_is(how, "none") && !str_is(how, "add") && !str_is(how, "mul") && !str_is(how, "max") &&
        !str_is(how, "min"))
        return node_err(g, n, "the reduction '%.*s' is not known", STR(how));
    if (n->op->id == OP_ScatterND)
        TRY(nd_shape(g, n, x, index, 0, &want, &known));
    else if (known)
        TRY(elements_ok(g, n, x, index));
    known = known && updates->rank >= 0 && shape_count(&want) >= 0 && shape_count(updates) >= 0;
    if (known && !shape_same(&want, updates))
        return node_err(g, n, "updates do not have the shape that the indices ask for");
    return out_is(g, n, x);
}

/* ---- numbers made of shapes and constants ---- */

/* Output 0 is known: these whole numbers. */
static err out_ints(struct graph *g, struct node *n, const int64_t *v, size_t count, bool scalar)
{
    struct value *out = node_out(g, n, 0);
    int64_t *data = NEW_N(g->a, int64_t, count + 1);
    memcpy(data, v, count * sizeof *v);
    out->data = data;
    out->kind = VALUE_CONST;
    out->shape = scalar ? SCALAR : SHAPE((int64_t)count);
    return NULL;
}

err shape_shape(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    out_set(g, n, 0, TENSOR_I64, &unknown);
    if (x->rank < 0)
        return NULL;
    int64_t start = attr_i(n, "start", 0), end = attr_i(n, "end", x->rank);
    start += start < 0 ? x->rank : 0;
    end += end < 0 ? x->rank : 0;
    start = start < 0 ? 0 : start > x->rank ? x->rank : start;
    end = end < start ? start : end > x->rank ? x->rank : end;
    bool known = true;
    for (int64_t i = start; i < end; i++)
        known = known && x->d[i] >= 0;
    if (known)
        return out_ints(g, n, x->d + start, (size_t)(end - start), false);
    out_set(g, n, 0, TENSOR_I64, &SHAPE(end - start));
    return NULL;
}

err shape_size(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    int64_t count = x->rank < 0 ? -1 : shape_count(x);
    out_set(g, n, 0, TENSOR_I64, &SCALAR);
    return count < 0 ? NULL : out_ints(g, n, &count, 1, true);
}

err shape_constant(struct graph *g, struct node *n)
{
    const struct attr *at = attr_find(n, "value");
    if (!at || at->type != ATTR_VALUE)
        return node_err(g, n, "it has no value");
    const struct value *v = value_at(g, (int)at->i);
    struct value *out = node_out(g, n, 0);
    out_set(g, n, 0, v->type, &v->shape);
    out->data = v->data;
    out->kind = VALUE_CONST;
    return NULL;
}

err shape_filled(struct graph *g, struct node *n)
{
    const struct attr *at = attr_find(n, "value");
    enum tensor_type type = at ? value_at(g, (int)at->i)->type : TENSOR_F32;
    const int64_t *v;
    size_t count;
    if (at && shape_count(&value_at(g, (int)at->i)->shape) != 1)
        return node_err(g, n, "its value is not one number");
    out_set(g, n, 0, type, &unknown);
    if (!ints_in(g, n, 0, &v, &count))
        return NULL;
    TRY(rank_ok(g, n, (int64_t)count));
    struct shape s = { .rank = (int)count };
    for (int i = 0; i < s.rank; i++) {
        s.d[i] = v[i];
        if (v[i] < 0)
            return node_err(g, n, "a size is negative");
    }
    int64_t all;
    if (!tensor_count(s.d, (size_t)s.rank, (int64_t)1 << 40, &all))
        return node_err(g, n, "the sizes are absurd");
    out_set(g, n, 0, type, &s);
    return NULL;
}

/* A constant scalar as a double; whole numbers beyond 2^53 are no sizes. */
static bool number_in(const struct graph *g, const struct node *n, int i, double *out)
{
    const struct value *v = node_in(g, n, i);
    if (!v || v->kind != VALUE_CONST || !v->data || shape_count(&v->shape) != 1)
        return false;
    switch (v->type) {
    case TENSOR_F32:
        *out = *(const float *)v->data;
        return true;
    case TENSOR_F64:
        *out = *(const double *)v->data;
        return true;
    case TENSOR_I64:
        *out = (double)*(const int64_t *)v->data;
        return true;
    case TENSOR_I32:
        *out = *(const int32_t *)v->data;
        return true;
    case TENSOR_I16:
        *out = *(const int16_t *)v->data;
        return true;
    default:
        return false;
    }
}

err shape_range(struct graph *g, struct node *n)
{
    double start, limit, step;
    if (!number_in(g, n, 0, &start) || !number_in(g, n, 1, &limit) || !number_in(g, n, 2, &step))
        return out_is(g, n, &unknown);
    double count = __builtin_ceil((limit - start) / step);
    if (step == 0 || count != count || count > 1e12)
        return node_err(g, n, "from %g to %g by steps of %g is no range", start, limit, step);
    return out_is(g, n, &SHAPE(count > 0 ? (int64_t)count : 0));
}

err shape_one_hot(struct graph *g, struct node *n)
{
    const struct shape *x = &node_in(g, n, 0)->shape;
    enum tensor_type type = node_in(g, n, 2)->type;
    double depth;
    out_set(g, n, 0, type, &unknown);
    if (x->rank < 0 || !number_in(g, n, 1, &depth))
        return NULL;
    if (!(depth >= 1 && depth < 1e12))
        return node_err(g, n, "its depth is %g", depth);
    TRY(rank_ok(g, n, x->rank + 1));
    int axis;
    TRY(attr_axis(n, "axis", -1, x->rank + 1, &axis));
    struct shape s = { .rank = x->rank + 1 };
    for (int i = 0, from = 0; i < s.rank; i++)
        s.d[i] = i == axis ? (int64_t)depth : x->d[from++];
    out_set(g, n, 0, type, &s);
    return NULL;
}

err shape_top_k(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    const int64_t *k;
    size_t count;
    struct shape s = unknown;
    if (x->shape.rank >= 0 && ints_in(g, n, 1, &k, &count)) {
        int axis;
        s = x->shape;
        TRY(attr_axis(n, "axis", -1, s.rank, &axis));
        if (count != 1 || k[0] < 0 || (s.d[axis] >= 0 && k[0] > s.d[axis]))
            return node_err(g, n, "k is not one number between 0 and the axis's size");
        s.d[axis] = k[0];
    }
    out_set(g, n, 0, x->type, &s);
    out_set(g, n, 1, TENSOR_I64, &s);
    return NULL;
}

static err block_of(const struct graph *g, const struct node *n, int64_t *out)
{
    *out = attr_i(n, "blocksize", 0);
    if (*out < 1 || *out > 1 << 15)
        return node_err(g, n, "its blocksize is %lld", (long long)*out);
    return NULL;
}

err shape_depth_to_space(struct graph *g, struct node *n)
{
    struct shape s = node_in(g, n, 0)->shape;
    int64_t b;
    TRY(block_of(g, n, &b));
    if (s.rank >= 0 && (s.rank != 4 || (s.d[1] >= 0 && s.d[1] % (b * b) != 0)))
        return node_err(g, n, "its channels are no blocks of %lld × %lld", (long long)b, (long long)b);
    if (s.rank < 0 || s.d[1] < 0 || s.d[2] < 0 || s.d[3] < 0)
        return out_is(g, n, &unknown);
    s.d[1] /= b * b;
    TRY(size_mul(g, n, s.d[2], b, &s.d[2]));
    TRY(size_mul(g, n, s.d[3], b, &s.d[3]));
    return out_is(g, n, &s);
}

err shape_space_to_depth(struct graph *g, struct node *n)
{
    struct shape s = node_in(g, n, 0)->shape;
    int64_t b;
    TRY(block_of(g, n, &b));
    if (s.rank >= 0 && (s.rank != 4 || (s.d[2] >= 0 && s.d[2] % b != 0) || (s.d[3] >= 0 && s.d[3] % b != 0)))
        return node_err(g, n, "its pixels are no blocks of %lld × %lld", (long long)b, (long long)b);
    if (s.rank < 0 || s.d[1] < 0 || s.d[2] < 0 || s.d[3] < 0)
        return out_is(g, n, &unknown);
    TRY(size_mul(g, n, s.d[1], b * b, &s.d[1]));
    s.d[2] /= b;
    s.d[3] /= b;
    return out_is(g, n, &s);
}

/* Gradients that rules below make: `shape` is that of what the gradient is of; the last input has its type. */
err shape_as_attr(struct graph *g, struct node *n)
{
    const struct attr *at = attr_find(n, "shape");
    if (!at)
        return node_err(g, n, "it has no shape");
    TRY(rank_ok(g, n, (int64_t)at->n));
    struct shape s = { .rank = (int)at->n };
    memcpy(s.d, at->is, at->n * sizeof *s.d);
    out_set(g, n, 0, node_in(g, n, n->n_in - 1)->type, &s);
    return NULL;
}

bool shape_mixes_rows(const struct graph *g, const struct node *n)
{
    auto_arena struct arena *a = arena_new(0);
    const struct shape *x = &node_in(g, n, 0)->shape;
    const int64_t *v, *axes, *steps;
    size_t count, i = 0, steps_n;
    switch (n->op->id) {
    case OP_Tile: /* all rows again, behind the last one */
        return !value_i64s(g, a, n->in[1], &v, &count) || count == 0 || v[0] != 1;
    case OP_Trilu: /* the place of a row counts */
        return x->rank < 3;
    case OP_Slice: /* every second, or the last first */
        if (!has_in(n, 3) || !value_i64s(g, a, n->in[3], &axes, &count))
            return true;
        while (i < count && axes[i] != 0 && axes[i] != -x->rank)
            i++;
        return i < count && has_in(n, 4) && (!value_i64s(g, a, n->in[4], &steps, &steps_n) || steps[i] != 1);
    case OP_GatherND:
    case OP_ScatterND:
        return true;
    default:
        return false;
    }
}

/* ---- gradients ---- */

static const struct shape *in_shape(const struct grad *r, int i)
{
    return &value_at(r->g, r->n.in[i])->shape;
}
static int sizes_const(struct graph *g, const struct shape *s)
{
    return graph_i64s(g, s->d, (size_t)s->rank);
}
static int reshape_to(struct graph *g, int x, const struct shape *s)
{
    return graph_node_with(g, OP_Reshape, ATTRS({ "allowzero", ATTR_INT, .i = 1 }), x, sizes_const(g, s));
}
static int zeros(struct graph *g, enum tensor_type type, const struct shape *s)
{
    static const int64_t none;
    return graph_node(g, OP_Expand, graph_const(g, type, SCALAR, &none), sizes_const(g, s));
}
static int zeros_like_in(const struct grad *r, int i)
{
    return zeros(r->g, value_at(r->g, r->n.in[i])->type, in_shape(r, i));
}

/* Reshape, Flatten, Squeeze, Unsqueeze. */
err grad_reshape(struct grad *r)
{
    if (r->need[0])
        r->dx[0] = reshape_to(r->g, r->dy[0], in_shape(r, 0));
    return NULL;
}

err grad_identity(struct grad *r)
{
    r->dx[0] = r->dy[0];
    return NULL;
}

static int transposed(struct graph *g, int x, const int64_t *perm, int rank)
{
    return graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = perm, .n = (size_t)rank }), x);
}

err grad_transpose(struct grad *r)
{
    int rank = in_shape(r, 0)->rank, perm[TENSOR_RANK_MAX];
    TRY(perm_read(r->g, &r->n, rank, perm));
    int64_t back[TENSOR_RANK_MAX];
    for (int i = 0; i < rank; i++)
        back[perm[i]] = i;
    if (r->need[0])
        r->dx[0] = transposed(r->g, r->dy[0], back, rank);
    return NULL;
}

static int slice_of(struct graph *g, int x, int64_t from, int64_t to, int64_t axis)
{
    return graph_node(g, OP_Slice, x, graph_i64s(g, &from, 1), graph_i64s(g, &to, 1),
                      graph_i64s(g, &axis, 1));
}

err grad_concat(struct grad *r)
{
    int axis;
    TRY(attr_axis(&r->n, "axis", 0, in_shape(r, 0)->rank, &axis));
    int64_t from = 0;
    for (int i = 0; i < r->n.n_in; i++) {
        int64_t size = in_shape(r, i)->d[axis];
        if (r->need[i])
            r->dx[i] = slice_of(r->g, r->dy[0], from, from + size, axis);
        from += size;
    }
    return NULL;
}

err grad_split(struct grad *r)
{
    int axis, *pieces = NEW_N(r->g->a, int, r->n.n_out);
    if (!r->need[0])
        return NULL;
    TRY(attr_axis(&r->n, "axis", 0, in_shape(r, 0)->rank, &axis));
    for (int i = 0; i < r->n.n_out; i++) {
        const struct value *y = node_out(r->g, &r->n, i);
        if (!y)
            return node_err(r->g, &r->n, "output %d is not there", i);
        pieces[i] = r->dy[i] >= 0 ? r->dy[i] : zeros(r->g, y->type, &y->shape);
    }
    r->dx[0] = graph_add(r->g, &op_table[OP_Concat], pieces, r->n.n_out, 1,
                         ATTRS({ "axis", ATTR_INT, .i = axis }));
    return NULL;
}

err grad_slice(struct grad *r)
{
    const struct shape *x = in_shape(r, 0);
    struct slice cut;
    bool known;
    TRY(slice_read(r->g, &r->n, &cut, &known));
    if (!known)
        return node_err(r->g, &r->n, "its places are not known");
    size_t rank = (size_t)x->rank;
    if (r->need[0])
        r->dx[0] = graph_node_with(r->g, OP_SliceGrad,
                                   ATTRS({ "shape", ATTR_INTS, .is = x->d, .n = rank },
                                         { "starts", ATTR_INTS, .is = cut.start, .n = rank },
                                         { "steps", ATTR_INTS, .is = cut.step, .n = rank }),
                                   r->dy[0]);
    return NULL;
}

err grad_pad(struct grad *r)
{
    const struct shape *x = in_shape(r, 0);
    int64_t pads[2 * TENSOR_RANK_MAX];
    bool known;
    TRY(pads_read(r->g, &r->n, x->rank, pads, pads + x->rank, &known));
    if (!known)
        return node_err(r->g, &r->n, "its pads are not known");
    if (r->need[0])
        r->dx[0] = graph_node_with(r->g, OP_PadGrad,
                                   ATTRS({ "shape", ATTR_INTS, .is = x->d, .n = (size_t)x->rank },
                                         { "pads", ATTR_INTS, .is = pads, .n = 2 * (size_t)x->rank },
                                         { "mode", ATTR_TEXT, .s = attr_s(&r->n, "mode", S("constant")) }),
                                   r->dy[0]);
    return NULL;
}

err grad_expand(struct grad *r)
{
    if (r->need[0])
        r->dx[0] = grad_sum_to(r->g, r->dy[0], r->n.in[0]);
    return NULL;
}

/* Axis by axis, as [outer, repeats, what is repeated]. */
err grad_tile(struct grad *r)
{
    const struct shape x = *in_shape(r, 0);
    const int64_t *repeats, middle = 1;
    size_t count;
    if (!r->need[0] || !ints_in(r->g, &r->n, 1, &repeats, &count))
        return NULL;
    int dx = r->dy[0];
    int64_t before = 1;
    for (int i = 0; i < x.rank; i++) {
        int64_t after = 1;
        for (int k = i + 1; k < x.rank; k++)
            after *= x.d[k] * repeats[k];
        if (repeats[i] != 1) {
            dx = reshape_to(r->g, dx, &SHAPE(before, repeats[i], x.d[i] * after));
            dx = graph_add(r->g, op_find(S(""), S("ReduceSum")), GRAPH_IDS(dx, graph_i64s(r->g, &middle, 1)),
                           1, ATTRS({ "keepdims", ATTR_INT, .i = 0 }));
        }
        before *= x.d[i];
    }
    r->dx[0] = reshape_to(r->g, dx, &x);
    return NULL;
}

err grad_trilu(struct grad *r)
{
    const struct attr *attrs = ATTRS({ "upper", ATTR_INT, .i = attr_i(&r->n, "upper", 1) });
    if (r->need[0])
        r->dx[0] = has_in(&r->n, 1) ? graph_node_with(r->g, OP_Trilu, attrs, r->dy[0], r->n.in[1])
                                    : graph_node_with(r->g, OP_Trilu, attrs, r->dy[0]);
    return NULL;
}

err grad_gather(struct grad *r)
{
    const struct shape *x = in_shape(r, 0);
    int axis;
    TRY(attr_axis(&r->n, "axis", 0, x->rank, &axis));
    if (r->need[0])
        r->dx[0] = graph_node_with(
            r->g, OP_GatherGrad,
            ATTRS({ "axis", ATTR_INT, .i = axis }, { "shape", ATTR_INTS, .is = x->d, .n = (size_t)x->rank }),
            r->n.in[1], r->dy[0]);
    return NULL;
}

static int scattered(struct graph *g, int op, const struct node *like, int data, int index, int updates,
                     const char *reduction)
{
    const struct attr *attrs = ATTRS({ "reduction", ATTR_TEXT, .s = str_of(reduction) },
                                     { "axis", ATTR_INT, .i = attr_i(like, "axis", 0) });
    return graph_node_with(g, op, attrs, data, index, updates);
}

err grad_gather_elements(struct grad *r)
{
    if (r->need[0])
        r->dx[0] = scattered(r->g, OP_ScatterElements, &r->n, zeros_like_in(r, 0), r->n.in[1], r->dy[0],
                             "add");
    return NULL;
}

err grad_gather_nd(struct grad *r)
{
    if (attr_i(&r->n, "batch_dims", 0) != 0)
        FAIL(UNSUPPORTED, "GatherND '%.*s': there is no gradient with batch_dims", STR(r->n.name));
    if (r->need[0])
        r->dx[0] = scattered(r->g, OP_ScatterND, &r->n, zeros_like_in(r, 0), r->n.in[1], r->dy[0], "add");
    return NULL;
}

/* The data's gradient is dy, without what was overwritten; that of the updates is what stands at their places. */
static err grad_scatter(struct grad *r, int scatter, int gather)
{
    struct str how = attr_s(&r->n, "reduction", S("none"));
    bool add = str_is(how, "add");
    if (!add && !str_is(how, "none"))
        FAIL(UNSUPPORTED, "%s '%.*s': there is no gradient with the reduction '%.*s'", r->n.op->name,
             STR(r->n.name), STR(how));
    if (r->need[0])
        r->dx[0] = add ? r->dy[0]
                       : scattered(r->g, scatter, &r->n, r->dy[0], r->n.in[1], zeros_like_in(r, 2), "none");
    if (r->need[2])
        r->dx[2] = graph_node_with(r->g, gather, ATTRS({ "axis", ATTR_INT, .i = attr_i(&r->n, "axis", 0) }),
                                   r->dy[0], r->n.in[1]);
    return NULL;
}
err grad_scatter_elements(struct grad *r)
{
    return grad_scatter(r, OP_ScatterElements, OP_GatherElements);
}
err grad_scatter_nd(struct grad *r)
{
    return grad_scatter(r, OP_ScatterND, OP_GatherND);
}

err grad_top_k(struct grad *r)
{
    struct node n = r->n;
    if (!r->need[0] || r->dy[0] < 0)
        return NULL;
    if (n.out[1] < 0)
        return node_err(r->g, &n, "its gradient needs its second output");
    const struct attr *attrs = ATTRS({ "axis", ATTR_INT, .i = attr_i(&n, "axis", -1) });
    r->dx[0] = graph_node_with(r->g, OP_ScatterElements, attrs, zeros_like_in(r, 0), n.out[1], r->dy[0]);
    return NULL;
}

err grad_depth_to_space(struct grad *r)
{
    const struct shape *x = in_shape(r, 0);
    static const int64_t dcr[] = { 0, 3, 5, 1, 2, 4 }, crd[] = { 0, 1, 3, 5, 2, 4 };
    int64_t b = attr_i(&r->n, "blocksize", 1), c = x->d[1] / (b * b);
    bool deep = str_is(attr_s(&r->n, "mode", S("DCR")), "DCR");
    if (!r->need[0])
        return NULL;
    int dx = reshape_to(r->g, r->dy[0], &SHAPE(x->d[0], c, x->d[2], b, x->d[3], b));
    r->dx[0] = reshape_to(r->g, transposed(r->g, dx, deep ? dcr : crd, 6), x);
    return NULL;
}

err grad_space_to_depth(struct grad *r)
{
    if (r->need[0])
        r->dx[0] = graph_node_with(r->g, OP_DepthToSpace,
                                   ATTRS({ "blocksize", ATTR_INT, .i = attr_i(&r->n, "blocksize", 1) },
                                         { "mode", ATTR_TEXT, .s = attr_s(&r->n, "mode", S("DCR")) }),
                                   r->dy[0]);
    return NULL;
}
