// SPDX-License-Identifier: Apache-2.0
#include "engine/resize.h"
#include "engine/ops.h"

#include <math.h>

enum { SIZE_MAX_OUT = 1 << 24 };

/* The axes that `scales` and `sizes` speak of. */
static err axes_of(const struct graph *g, const struct node *n, int rank, int *axes, size_t *count)
{
    const struct attr *at = attr_find(n, "axes");
    *count = at ? at->n : (size_t)rank;
    if (*count > (size_t)rank)
        return node_err(g, n, "axes names more axes than there are");
    for (size_t i = 0; i < *count; i++) {
        int64_t axis = at ? at->is[i] : (int64_t)i;
        if (axis < -rank || axis >= rank)
            return node_err(g, n, "axis %lld is outside of rank %d", (long long)axis, rank);
        axes[i] = (int)(axis < 0 ? axis + rank : axis);
    }
    return NULL;
}

static err supported(const struct graph *g, const struct node *n, const struct resize *r)
{
    (void)g;
    static const char *const modes[] = { "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                                         "half_pixel_symmetric" };
    bool known = false;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        known |= str_eq(r->coordinates, str_of(modes[i]));
    if (!known || !(str_is(r->mode, "nearest") || str_is(r->mode, "linear")))
        FAIL(UNSUPPORTED, "Resize '%.*s': mode %.*s with coordinates %.*s is not known here", STR(n->name),
             STR(r->mode), STR(r->coordinates));
    if (attr_i(n, "antialias", 0) != 0)
        FAIL(UNSUPPORTED, "Resize '%.*s': antialias is not known here", STR(n->name));
    return NULL;
}

static err by_sizes(const struct graph *g, const struct node *n, const int *axes, const int64_t *sizes,
                    size_t count, struct resize *r)
{
    struct str policy = attr_s(n, "keep_aspect_ratio_policy", S("stretch"));
    double all = 0;
    for (size_t i = 0; i < count; i++) {
        if (sizes[i] < 1 || sizes[i] > SIZE_MAX_OUT)
            return node_err(g, n, "a size of %lld", (long long)sizes[i]);
        double scale = (double)sizes[i] / (double)r->in[axes[i]];
        r->out[axes[i]] = sizes[i];
        r->scale[axes[i]] = scale;
        if (i == 0 || (str_is(policy, "not_larger") ? scale < all : scale > all))
            all = scale;
    }
    if (str_is(policy, "stretch"))
        return NULL;
    for (size_t i = 0; i < count; i++) {
        r->scale[axes[i]] = all;
        r->out[axes[i]] = (int64_t)floor(all * (double)r->in[axes[i]] + 0.5);
    }
    return NULL;
}

static err by_scales(const struct graph *g, const struct node *n, const int *axes, const struct value *v,
                     size_t count, struct resize *r)
{
    for (size_t i = 0; i < count; i++) {
        double scale = v->type == TENSOR_F64 ? ((const double *)v->data)[i]
                                             : (double)((const float *)v->data)[i];
        if (!(scale > 0) || scale > 1e6)
            return node_err(g, n, "a scale of %g", scale);
        double out = floor((double)r->in[axes[i]] * scale);
        if (out < 1 || out > SIZE_MAX_OUT)
            return node_err(g, n, "a scale of %g makes a size of %g", scale, out);
        r->scale[axes[i]] = scale;
        r->out[axes[i]] = (int64_t)out;
    }
    return NULL;
}

err resize_of(const struct graph *g, const struct node *n, const struct shape *x, struct resize *r,
              bool *known)
{
    *known = false;
    *r = (struct resize){
        .rank = x->rank,
        .mode = attr_s(n, "mode", S("nearest")),
        .coordinates = attr_s(n, "coordinate_transformation_mode", S("half_pixel")),
        .nearest = attr_s(n, "nearest_mode", S("round_prefer_floor")),
    };
    TRY(supported(g, n, r));
    if (x->rank < 0)
        return NULL;
    int axes[TENSOR_RANK_MAX];
    size_t count, got;
    TRY(axes_of(g, n, x->rank, axes, &count));
    for (int i = 0; i < x->rank; i++) {
        r->in[i] = r->out[i] = x->d[i];
        r->scale[i] = 1;
    }
    auto_arena struct arena *a = arena_new(0);
    const int64_t *sizes;
    const struct value *scales = node_in(g, n, 2);
    if (n->n_in > 3 && n->in[3] >= 0 && value_i64s(g, a, n->in[3], &sizes, &got) && got == count) {
        for (size_t i = 0; i < count; i++)
            if (x->d[axes[i]] < 0 && sizes[i] > 0) /* an open axis must keep its size, which nobody knows */
                return NULL;
        *known = true;
        return by_sizes(g, n, axes, sizes, count, r);
    }
    if (!scales || scales->kind != VALUE_CONST || !scales->data ||
        shape_count(&scales->shape) != (int64_t)count)
        return NULL;
    /* The batch stays open where its scale is 1. */
    int kept[TENSOR_RANK_MAX];
    for (size_t i = 0; i < count; i++) {
        kept[i] = axes[i];
        if (x->d[axes[i]] < 0) {
            if (scales->type != TENSOR_F32 || ((const float *)scales->data)[i] != 1)
                return NULL;
            r->in[axes[i]] = 1;
        }
    }
    TRY(by_scales(g, n, kept, scales, count, r));
    for (int i = 0; i < x->rank; i++)
        if (x->d[i] < 0)
            r->in[i] = r->out[i] = x->d[i];
    *known = true;
    return NULL;
}

const struct attr *resize_attrs(struct arena *a, const struct resize *r, const struct shape *s)
{
    int64_t *bits = NEW_N(a, int64_t, (size_t)r->rank);
    memcpy(bits, r->scale, (size_t)r->rank * sizeof *bits);
    struct attr *at = NEW_N(a, struct attr, 6);
    at[0] = (struct attr){ "mode", ATTR_TEXT, .s = r->mode };
    at[1] = (struct attr){ "coordinate_transformation_mode", ATTR_TEXT, .s = r->coordinates };
    at[2] = (struct attr){ "nearest_mode", ATTR_TEXT, .s = r->nearest };
    at[3] = (struct attr){ "scale_bits", ATTR_INTS, .is = bits, .n = (size_t)r->rank };
    at[4] = (struct attr){ "shape", ATTR_INTS, .is = s->d, .n = (size_t)s->rank };
    return at;
}

void resize_from_attrs(const struct node *n, struct resize *r)
{
    const struct attr *bits = attr_find(n, "scale_bits"), *shape = attr_find(n, "shape");
    *r = (struct resize){
        .rank = (int)shape->n,
        .mode = attr_s(n, "mode", S("nearest")),
        .coordinates = attr_s(n, "coordinate_transformation_mode", S("half_pixel")),
        .nearest = attr_s(n, "nearest_mode", S("round_prefer_floor")),
    };
    memcpy(r->scale, bits->is, shape->n * sizeof *r->scale);
    memcpy(r->in, shape->is, shape->n * sizeof *r->in);
}

static double place(const struct resize *r, int axis, int64_t i)
{
    const double x = (double)i, scale = r->scale[axis], in = (double)r->in[axis], out = (double)r->out[axis];
    if (str_is(r->coordinates, "asymmetric"))
        return x / scale;
    if (str_is(r->coordinates, "align_corners"))
        return out == 1 ? 0 : x * (in - 1) / (out - 1);
    if (str_is(r->coordinates, "pytorch_half_pixel"))
        return out > 1 ? (x + 0.5) / scale - 0.5 : 0;
    if (str_is(r->coordinates, "half_pixel_symmetric")) {
        double exact = scale * in, adjust = out / exact, centre = in / 2;
        return centre * (1 - adjust) + (x + 0.5) / scale - 0.5;
    }
    return (x + 0.5) / scale - 0.5;
}

static int64_t within(double x, int64_t n)
{
    return x < 0 ? 0 : x >= (double)n ? n - 1 : (int64_t)x;
}

static int64_t nearest(const struct resize *r, double x, int64_t n)
{
    double y;
    if (str_is(r->nearest, "floor"))
        y = floor(x);
    else if (str_is(r->nearest, "ceil"))
        y = ceil(x);
    else if (str_is(r->nearest, "round_prefer_ceil"))
        y = floor(x + 0.5);
    else
        y = ceil(x - 0.5);
    return within(y, n);
}

struct resize_tap *resize_taps(struct arena *a, const struct resize *r, int axis)
{
    struct resize_tap *t = NEW_N(a, struct resize_tap, (size_t)r->out[axis] + 1);
    for (int64_t i = 0; i < r->out[axis]; i++) {
        if (r->out[axis] == r->in[axis] && r->scale[axis] == 1) {
            t[i].at[0] = t[i].at[1] = i;
            continue;
        }
        double x = place(r, axis, i);
        if (str_is(r->mode, "nearest")) {
            t[i].at[0] = t[i].at[1] = nearest(r, x, r->in[axis]);
            continue;
        }
        x = x < 0 ? 0 : x > (double)(r->in[axis] - 1) ? (double)(r->in[axis] - 1) : x;
        t[i].at[0] = within(floor(x), r->in[axis]);
        t[i].at[1] = within(floor(x) + 1, r->in[axis]);
        t[i].second = x - floor(x);
    }
    return t;
}
