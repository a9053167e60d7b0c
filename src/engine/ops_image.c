// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"
#include "engine/resize.h"
#include "engine/window.h"

static err picture(const struct graph *g, const struct node *n, const struct value *x)
{
    if (!x)
        return node_err(g, n, "has no input");
    if (x->shape.rank >= 0 && x->shape.rank < 3)
        return node_err(g, n, "takes batch, channels and a picture; its input has %d axes", x->shape.rank);
    return NULL;
}

static err agree(const struct graph *g, const struct node *n, int64_t x, int64_t y, const char *what)
{
    if (x >= 0 && y >= 0 && x != y)
        return node_err(g, n, "%s: %lld and %lld must be equal", what, (long long)x, (long long)y);
    return NULL;
}

static void unknown(struct value *out, enum tensor_type type)
{
    out->type = type;
    out->shape = (struct shape){ .rank = -1 };
}

/* ---- convolutions ---- */

static err weights(const struct graph *g, const struct node *n, const struct value *x, const struct value *w)
{
    TRY(picture(g, n, x));
    if (!w || x->type != w->type)
        return node_err(g, n, "weights must be of the input's type");
    if (x->shape.rank >= 0 && w->shape.rank >= 0 && x->shape.rank != w->shape.rank)
        return node_err(g, n, "its input has %d axes, its weights %d", x->shape.rank, w->shape.rank);
    return NULL;
}

err shape_conv(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0), *w = node_in(g, n, 1), *b = node_in(g, n, 2);
    struct value *out = node_out(g, n, 0);
    TRY(weights(g, n, x, w));
    unknown(out, x->type);
    if (x->shape.rank < 0 || w->shape.rank < 0)
        return NULL;
    struct window win;
    bool known;
    TRY(window_of(g, n, &x->shape, w->shape.d + 2, &win, &known));
    if (x->shape.d[1] >= 0)
        TRY(agree(g, n, x->shape.d[1], w->shape.d[1] * win.group,
                  "channels of the input and of the weights"));
    if (w->shape.d[0] % win.group != 0)
        return node_err(g, n, "%lld output channels make no %lld groups", (long long)w->shape.d[0],
                        (long long)win.group);
    if (b && b->shape.rank >= 0 && (b->shape.rank != 1 || b->shape.d[0] != w->shape.d[0]))
        return node_err(g, n, "the bias must have one number for each output channel");
    if (!known)
        return NULL;
    out->shape = x->shape;
    out->shape.d[1] = w->shape.d[0];
    memcpy(out->shape.d + 2, win.out, (size_t)win.axes * sizeof *win.out);
    return NULL;
}

err shape_conv_transpose(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0), *w = node_in(g, n, 1), *b = node_in(g, n, 2);
    struct value *out = node_out(g, n, 0);
    TRY(weights(g, n, x, w));
    unknown(out, x->type);
    if (x->shape.rank < 0 || w->shape.rank < 0)
        return NULL;
    struct window win;
    bool known;
    TRY(window_transposed(g, n, &x->shape, w->shape.d + 2, &win, &known));
    TRY(agree(g, n, x->shape.d[1], w->shape.d[0], "channels of the input and of the weights"));
    if (w->shape.d[0] % win.group != 0)
        return node_err(g, n, "%lld input channels make no %lld groups", (long long)w->shape.d[0],
                        (long long)win.group);
    if (b && b->shape.rank >= 0 && (b->shape.rank != 1 || b->shape.d[0] != w->shape.d[1] * win.group))
        return node_err(g, n, "the bias must have one number for each output channel");
    if (!known)
        return NULL;
    out->shape = x->shape;
    out->shape.d[1] = w->shape.d[1] * win.group;
    memcpy(out->shape.d + 2, win.in, (size_t)win.axes * sizeof *win.in);
    return NULL;
}

err shape_image_grad(struct graph *g, struct node *n)
{
    const struct attr *at = attr_find(n, "shape");
    struct value *out = node_out(g, n, 0);
    if (!at || at->n < 2 || at->n > TENSOR_RANK_MAX)
        return node_err(g, n, "it has no shape");
    out->type = node_in(g, n, 0)->type;
    out->shape = (struct shape){ .rank = (int)at->n };
    memcpy(out->shape.d, at->is, at->n * sizeof *at->is);
    return NULL;
}

err shape_channel_sum(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct value *out = node_out(g, n, 0);
    TRY(picture(g, n, x));
    /* Of halves in F32: it is the gradient of a bias, which is never kept in halves. */
    unknown(out, x->type == TENSOR_BF16 || x->type == TENSOR_F16 ? TENSOR_F32 : x->type);
    if (x->shape.rank >= 0)
        out->shape = SHAPE(x->shape.d[1]);
    return NULL;
}

err shape_layout(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct value *out = node_out(g, n, 0);
    out->type = x->type;
    out->shape = x->shape;
    out->nhwc = attr_i(n, "nhwc", 0) != 0;
    return NULL;
}

err grad_conv(struct grad *d)
{
    struct graph *g = d->g;
    const int x = d->n.in[0], w = d->n.in[1], dy = d->dy[0];
    const struct shape sx = value_at(g, x)->shape, sw = value_at(g, w)->shape;
    struct window win;
    bool known;
    TRY(window_of(g, &d->n, &sx, sw.d + 2, &win, &known));
    if (d->need[0])
        d->dx[0] = graph_node_with(g, OP_ConvGradX, window_attrs(g->a, &win, &sx), dy, w);
    if (d->need[1])
        d->dx[1] = graph_node_with(g, OP_ConvGradW, window_attrs(g->a, &win, &sw), x, dy);
    if (d->n.n_in > 2 && d->n.in[2] >= 0 && d->need[2])
        d->dx[2] = graph_node(g, OP_ChannelSum, dy);
    return NULL;
}

/* Forward it walks as the gradient of a convolution does; so its own gradients are a convolution, and that of its weights. */
err grad_conv_transpose(struct grad *d)
{
    struct graph *g = d->g;
    const int x = d->n.in[0], w = d->n.in[1], dy = d->dy[0];
    const struct shape sx = value_at(g, x)->shape, sw = value_at(g, w)->shape;
    struct window win;
    bool known;
    TRY(window_transposed(g, &d->n, &sx, sw.d + 2, &win, &known));
    if (d->need[0])
        d->dx[0] = graph_node_with(g, OP_Conv, window_attrs(g->a, &win, NULL), dy, w);
    if (d->need[1])
        d->dx[1] = graph_node_with(g, OP_ConvGradW, window_attrs(g->a, &win, &sw), dy, x);
    if (d->n.n_in > 2 && d->n.in[2] >= 0 && d->need[2])
        d->dx[2] = graph_node(g, OP_ChannelSum, dy);
    return NULL;
}

/* ---- pools ---- */

err shape_pool(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    TRY(picture(g, n, x));
    for (int i = 0; i < n->n_out; i++)
        if (node_out(g, n, i))
            unknown(node_out(g, n, i), i == 0 ? x->type : i == 1 ? TENSOR_I64 : TENSOR_I32);
    if (x->shape.rank < 0)
        return NULL;
    struct window win;
    bool known;
    TRY(window_of(g, n, &x->shape, NULL, &win, &known));
    if (!known)
        return NULL;
    for (int i = 0; i < n->n_out; i++) {
        struct value *out = node_out(g, n, i);
        if (!out)
            continue;
        out->shape = x->shape;
        memcpy(out->shape.d + 2, win.out, (size_t)win.axes * sizeof *win.out);
    }
    return NULL;
}

err shape_global_pool(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    TRY(picture(g, n, x));
    for (int i = 0; i < n->n_out; i++) {
        struct value *out = node_out(g, n, i);
        if (!out)
            continue;
        unknown(out, i == 0 ? x->type : i == 1 ? TENSOR_I64 : TENSOR_I32);
        out->shape = x->shape;
        for (int k = 2; k < x->shape.rank; k++)
            out->shape.d[k] = 1;
    }
    return NULL;
}

/* The node that made v gets outputs `from` up to number n; what it had stays. */
static int *more_outputs(struct graph *g, int v, int from, int n)
{
    struct node *node = &g->nodes.v[value_at(g, v)->node];
    int *out = NEW_N(g->a, int, (size_t)n);
    for (int i = 0; i < n; i++) {
        out[i] = i < node->n_out ? node->out[i] : -1;
        if (out[i] >= 0 || i < from)
            continue;
        struct value made = { .name = fmt(g->a, "%.*s_%d", STR(node->name), i),
                              .kind = VALUE_NODE,
                              .shape.rank = -1 };
        made.node = value_at(g, v)->node;
        push(g->a, &g->values, made);
        out[i] = (int)g->values.n - 1;
    }
    node->out = out;
    node->n_out = n;
    return out;
}

/* The node's attributes and the shape of what a gradient makes. */
static const struct attr *with_shape(struct arena *a, const struct node *n, const struct shape *s)
{
    struct attr *at = NEW_N(a, struct attr, n->n_attrs + 2);
    if (n->n_attrs > 0)
        memcpy(at, n->attrs, n->n_attrs * sizeof *at);
    at[n->n_attrs] = (struct attr){ "shape", ATTR_INTS, .is = s->d, .n = (size_t)s->rank };
    return at;
}

static err max_pool_grad(struct grad *d, const struct attr *attrs)
{
    struct graph *g = d->g;
    int *out = more_outputs(g, d->n.out[0], 2, 3); /* ONNX's indices, number 1, are of no use here */
    TRY(graph_infer(g, value_at(g, d->n.out[0])->node));
    d->dx[0] = graph_node_with(g, OP_MaxPoolGrad, attrs, d->dy[0], out[2]);
    return NULL;
}

err grad_max_pool(struct grad *d)
{
    const struct shape s = value_at(d->g, d->n.in[0])->shape;
    return max_pool_grad(d, with_shape(d->g->a, &d->n, &s));
}

err grad_average_pool(struct grad *d)
{
    const struct shape s = value_at(d->g, d->n.in[0])->shape;
    d->dx[0] = graph_node_with(d->g, OP_AveragePoolGrad, with_shape(d->g->a, &d->n, &s), d->dy[0]);
    return NULL;
}

/* A window as large as the picture. */
static const struct attr *whole(struct arena *a, const struct shape *s)
{
    struct window w = { .axes = s->rank - 2, .group = 1 };
    for (int i = 0; i < w.axes; i++) {
        w.kernel[i] = s->d[i + 2];
        w.stride[i] = w.dilation[i] = 1;
    }
    return window_attrs(a, &w, s);
}

err grad_global_average_pool(struct grad *d)
{
    const struct shape s = value_at(d->g, d->n.in[0])->shape;
    d->dx[0] = graph_node_with(d->g, OP_AveragePoolGrad, whole(d->g->a, &s), d->dy[0]);
    return NULL;
}

err grad_global_max_pool(struct grad *d)
{
    const struct shape s = value_at(d->g, d->n.in[0])->shape;
    return max_pool_grad(d, whole(d->g->a, &s));
}

/* ---- batch normalisation ---- */

err shape_batch_norm(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return node_err(g, n, "its input has no channels");
    const int64_t channels = x->shape.rank >= 2 ? x->shape.d[1] : -1;
    for (int i = 1; i < 5; i++) {
        const struct value *v = node_in(g, n, i);
        if (!v)
            return node_err(g, n, "takes five inputs");
        if (v->shape.rank >= 0 && v->shape.rank != 1)
            return node_err(g, n, "input %d must have one axis", i);
        if (v->shape.rank == 1)
            TRY(agree(g, n, v->shape.d[0], channels, "channels"));
    }
    for (int i = 0; i < n->n_out; i++) {
        struct value *out = node_out(g, n, i);
        if (!out)
            continue;
        const struct value *like = i == 0 ? x : node_in(g, n, 3);
        out->type = like->type;
        out->shape = i == 0 || channels < 0 ? like->shape : SHAPE(channels);
    }
    return NULL;
}

err shape_batch_norm_grad(struct graph *g, struct node *n)
{
    for (int i = 0; i < n->n_out; i++) {
        struct value *out = node_out(g, n, i);
        if (!out)
            continue;
        const struct value *like = i == 0 || i == 3 ? node_in(g, n, 1) : node_in(g, n, 2);
        out->type = like->type;
        out->shape = like->shape;
    }
    return NULL;
}

err grad_batch_norm(struct grad *d)
{
    struct graph *g = d->g;
    const struct node *n = &d->n;
    const bool training = attr_i(n, "training_mode", 0) != 0;
    if (d->dy[0] < 0)
        return NULL; /* nothing flows back through statistics that are kept */
    int mean = n->in[3], variance = n->in[4];
    if (training) {
        int *out = more_outputs(g, n->out[0], 1, 5);
        TRY(graph_infer(g, value_at(g, n->out[0])->node));
        mean = out[3];
        variance = out[4];
    }
    int first = graph_add(g, &op_table[OP_BatchNormGrad],
                          GRAPH_IDS(d->dy[0], n->in[0], n->in[1], mean, variance), 3,
                          ATTRS({ "epsilon", ATTR_FLOAT, .f = attr_f(n, "epsilon", 1e-5f) },
                                { "training_mode", ATTR_INT, .i = training }));
    if (first < 0)
        return graph_error(g);
    for (int i = 0; i < 3; i++)
        if (d->need[i])
            d->dx[i] = first + i;
    return NULL;
}

err batch_norm_train(struct graph *g, int node)
{
    struct node *n = &g->nodes.v[node];
    if (attr_i(n, "training_mode", 0))
        return NULL;
    if (value_at(g, n->in[3])->kind != VALUE_STATE || value_at(g, n->in[4])->kind != VALUE_STATE)
        return node_err(g, n, "its running statistics are shared with other nodes or made by them");
    struct attr *attrs = NEW_N(g->a, struct attr, n->n_attrs + 1);
    size_t kept = 0;
    for (size_t i = 0; i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, "training_mode") != 0)
            attrs[kept++] = n->attrs[i];
    attrs[kept++] = (struct attr){ "training_mode", ATTR_INT, .i = 1 };
    n->attrs = attrs;
    n->n_attrs = kept;
    int *out = more_outputs(g, n->out[0], 0, 3);
    n = &g->nodes.v[node];
    push(g->a, &g->updates, ((struct graph_update){ n->in[3], out[1] }));
    push(g->a, &g->updates, ((struct graph_update){ n->in[4], out[2] }));
    return graph_infer(g, node);
}

/* ---- Resize ---- */

err shape_resize(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct value *out = node_out(g, n, 0);
    unknown(out, x->type);
    struct resize r;
    bool known;
    TRY(resize_of(g, n, &x->shape, &r, &known));
    if (known) {
        out->shape = x->shape;
        memcpy(out->shape.d, r.out, (size_t)x->shape.rank * sizeof *r.out);
    }
    return NULL;
}

err grad_resize(struct grad *d)
{
    struct graph *g = d->g;
    const struct shape s = value_at(g, d->n.in[0])->shape;
    struct resize r;
    bool known;
    TRY(resize_of(g, &d->n, &s, &r, &known));
    if (!known)
        FAIL(INVALID, "Resize '%.*s': its sizes are no constants", STR(d->n.name));
    d->dx[0] = graph_node_with(g, OP_ResizeGrad, resize_attrs(g->a, &r, &s), d->dy[0]);
    return NULL;
}
