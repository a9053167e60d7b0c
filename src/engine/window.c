// SPDX-License-Identifier: Apache-2.0
#include "engine/window.h"
#include "engine/ops.h"

enum {
    WINDOW_MAX = 1 << 16
}; /* kernel, stride, dilation, padding: beyond it is a mistake, and products stay in range */

static err numbers(const struct graph *g, const struct node *n, const char *name, int count, int64_t min,
                   int64_t def, int64_t *out)
{
    const struct attr *at = attr_find(n, name);
    for (int i = 0; i < count; i++)
        out[i] = def;
    if (!at || at->n == 0)
        return NULL;
    if (at->type != ATTR_INTS || at->n != (size_t)count)
        return node_err(g, n, "%s must be %d numbers", name, count);
    for (int i = 0; i < count; i++) {
        if (at->is[i] < min || at->is[i] > WINDOW_MAX)
            return node_err(g, n, "%s has %lld, outside of %lld … %d", name, (long long)at->is[i],
                            (long long)min, WINDOW_MAX);
        out[i] = at->is[i];
    }
    return NULL;
}

static err read_attrs(const struct graph *g, const struct node *n, const struct shape *x,
                      const int64_t *kernel, struct window *w, int64_t *pads)
{
    *w = (struct window){ .axes = x->rank - 2, .group = attr_i(n, "group", 1) };
    if (w->axes < 1 || w->axes > WINDOW_AXES)
        return node_err(g, n, "takes 3 to %d axes (batch, channels, picture), not %d", WINDOW_AXES + 2,
                        x->rank);
    TRY(numbers(g, n, "kernel_shape", w->axes, 1, 0, w->kernel));
    for (int i = 0; kernel && i < w->axes; i++) {
        if (w->kernel[i] != 0 && w->kernel[i] != kernel[i])
            return node_err(g, n, "kernel_shape says %lld, the weights %lld", (long long)w->kernel[i],
                            (long long)kernel[i]);
        w->kernel[i] = kernel[i];
    }
    for (int i = 0; i < w->axes; i++)
        if (w->kernel[i] < 1 || w->kernel[i] > WINDOW_MAX)
            return node_err(g, n, "has no kernel_shape");
    TRY(numbers(g, n, "strides", w->axes, 1, 1, w->stride));
    TRY(numbers(g, n, "dilations", w->axes, 1, 1, w->dilation));
    TRY(numbers(g, n, "pads", 2 * w->axes, -WINDOW_MAX, 0, pads));
    if (w->group < 1)
        return node_err(g, n, "group must be at least 1");
    return NULL;
}

static int64_t reach(const struct window *w, int i)
{
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

static void set_hi(struct window *w)
{
    for (int i = 0; i < w->axes; i++)
        w->hi[i] = (w->out[i] - 1) * w->stride[i] + reach(w, i) - w->in[i] - w->lo[i];
}

err window_of(const struct graph *g, const struct node *n, const struct shape *x, const int64_t *kernel,
              struct window *w, bool *known)
{
    int64_t pads[2 * WINDOW_AXES];
    TRY(read_attrs(g, n, x, kernel, w, pads));
    struct str way = attr_s(n, "auto_pad", S("NOTSET"));
    const bool ceil = attr_i(n, "ceil_mode", 0) != 0, upper = str_is(way, "SAME_UPPER"),
               lower = str_is(way, "SAME_LOWER");
    *known = true;
    for (int i = 0; i < w->axes; i++) {
        int64_t in = w->in[i] = x->d[i + 2];
        if (in < 0) {
            *known = false;
            continue;
        }
        w->lo[i] = str_is(way, "NOTSET") ? pads[i] : 0;
        int64_t hi = str_is(way, "NOTSET") ? pads[i + w->axes] : 0;
        if (upper || lower) {
            w->out[i] = (in + w->stride[i] - 1) / w->stride[i];
            int64_t pad = (w->out[i] - 1) * w->stride[i] + reach(w, i) - in;
            pad = pad > 0 ? pad : 0;
            w->lo[i] = lower ? pad - pad / 2 : pad / 2;
            w->end[i] = in + pad - w->lo[i];
            continue;
        }
        w->end[i] = in + hi;
        int64_t room = in + w->lo[i] + hi - reach(w, i);
        if (room < 0)
            return node_err(g, n, "a window of %lld does not fit into %lld with padding %lld and %lld",
                            (long long)reach(w, i), (long long)in, (long long)w->lo[i], (long long)hi);
        w->out[i] = (room + (ceil ? w->stride[i] - 1 : 0)) / w->stride[i] + 1;
        /* A window that would begin in the padding behind is none. */
        if (ceil && (w->out[i] - 1) * w->stride[i] >= in + w->lo[i])
            w->out[i]--;
    }
    set_hi(w);
    return NULL;
}

err window_transposed(const struct graph *g, const struct node *n, const struct shape *x,
                      const int64_t *kernel, struct window *w, bool *known)
{
    int64_t pads[2 * WINDOW_AXES], more[WINDOW_AXES], want[WINDOW_AXES];
    TRY(read_attrs(g, n, x, kernel, w, pads));
    TRY(numbers(g, n, "output_padding", w->axes, 0, 0, more));
    TRY(numbers(g, n, "output_shape", w->axes, 1, 0, want));
    struct str way = attr_s(n, "auto_pad", S("NOTSET"));
    const bool same = str_is(way, "SAME_UPPER") || str_is(way, "SAME_LOWER");
    *known = true;
    for (int i = 0; i < w->axes; i++) {
        int64_t out = w->out[i] = x->d[i + 2];
        if (out < 0) {
            *known = false;
            continue;
        }
        int64_t all = (out - 1) * w->stride[i] + more[i] + reach(w, i);
        w->lo[i] = str_is(way, "NOTSET") ? pads[i] : 0;
        w->in[i] = all - w->lo[i] - (str_is(way, "NOTSET") ? pads[i + w->axes] : 0);
        if (want[i] > 0 || same) {
            w->in[i] = want[i] > 0 ? want[i] : out * w->stride[i];
            int64_t pad = all - w->in[i];
            /* ONNX: the odd one goes to the end for SAME_UPPER, else to the beginning. */
            w->lo[i] = pad < 0 ? 0 : str_is(way, "SAME_UPPER") ? pad / 2 : pad - pad / 2;
        }
        if (w->in[i] < 1)
            return node_err(g, n, "its output would be empty");
    }
    set_hi(w);
    return NULL;
}

const struct attr *window_attrs(struct arena *a, const struct window *w, const struct shape *shape)
{
    const size_t n = (size_t)w->axes;
    int64_t *all = NEW_N(a, int64_t, 5 * n);
    for (size_t i = 0; i < n; i++) {
        all[i] = w->stride[i];
        all[n + i] = w->dilation[i];
        all[2 * n + i] = w->kernel[i];
        all[3 * n + i] = w->lo[i];
        all[4 * n + i] = w->hi[i];
    }
    struct attr *at = NEW_N(a, struct attr, 7);
    at[0] = (struct attr){ "strides", ATTR_INTS, .is = all, .n = n };
    at[1] = (struct attr){ "dilations", ATTR_INTS, .is = all + n, .n = n };
    at[2] = (struct attr){ "kernel_shape", ATTR_INTS, .is = all + 2 * n, .n = n };
    at[3] = (struct attr){ "pads", ATTR_INTS, .is = all + 3 * n, .n = 2 * n };
    at[4] = (struct attr){ "group", ATTR_INT, .i = w->group };
    if (shape)
        at[5] = (struct attr){ "shape", ATTR_INTS, .is = shape->d, .n = (size_t)shape->rank };
    return at;
}
