// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

static bool is_float(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_F16 || t == TENSOR_BF16;
}

static void set(struct value *v, enum tensor_type type, struct shape shape)
{
    if (v)
        v->type = type, v->shape = shape;
}

/* ---- softmax ---- */

err shape_softmax(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    int axis;
    if (!is_float(x->type))
        return node_err(g, n, "its input is no float");
    if (x->shape.rank >= 0)
        TRY(attr_axis(n, "axis", -1, x->shape.rank, &axis));
    set(node_out(g, n, 0), x->type, x->shape);
    return NULL;
}

err grad_softmax(struct grad *r)
{
    enum op_id op = r->n.op->id == OP_Softmax ? OP_SoftmaxGrad : OP_LogSoftmaxGrad;
    if (r->need[0])
        r->dx[0] = graph_node_with(r->g, op, ATTRS({ "axis", ATTR_INT, .i = attr_i(&r->n, "axis", -1) }),
                                   r->dy[0], r->n.out[0]);
    return NULL;
}

/* ---- what rules share ---- */

/* Both are known and differ. */
static bool differ(int64_t x, int64_t y)
{
    return x >= 0 && y >= 0 && x != y;
}

/* Product of the sizes from axis `from` on; −1: not known. */
static int64_t count_from(const struct shape *s, int from)
{
    struct shape rest = { .rank = s->rank < 0 ? -1 : s->rank - from };
    for (int i = 0; i < rest.rank; i++)
        rest.d[i] = s->d[from + i];
    return shape_count(&rest);
}

static enum tensor_type stash_type(enum tensor_type t)
{
    return t == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32;
}

/* A node of the backward op: these inputs, the forward's attributes and one more. Sets dx[i] to its output i where it is
 * wanted. */
static void grad_node(struct grad *r, enum op_id op, const int *in, int n_in, int n_out, struct attr more)
{
    struct attr *attrs = NEW_N(r->g->a, struct attr, r->n.n_attrs + 2);
    if (r->n.n_attrs > 0)
        memcpy(attrs, r->n.attrs, r->n.n_attrs * sizeof *attrs);
    attrs[r->n.n_attrs] = more;
    int first = graph_add(r->g, &op_table[op], in, n_in, n_out, attrs);
    for (int i = 0; i < n_out && i < r->n.n_in; i++)
        if (r->need[i] && first >= 0)
            r->dx[i] = first + i;
}

/* Outputs that only the backward kernel reads: the forward node gets them when its gradient is asked for. */
static err more_outputs(struct grad *r, int n_out)
{
    struct graph *g = r->g;
    int at = -1;
    for (int i = 0; i < r->n.n_out && at < 0; i++)
        at = r->n.out[i] >= 0 ? value_at(g, r->n.out[i])->node : -1;
    struct node *n = &g->nodes.v[at];
    int *out = NEW_N(g->a, int, n_out);
    for (int i = 0; i < n_out; i++) {
        out[i] = i < n->n_out ? n->out[i] : -1;
        if (out[i] >= 0)
            continue;
        push(g->a, &g->values,
             (struct value){ .name = fmt(g->a, "%.*s_kept_%d", STR(n->name), i),
                             .kind = VALUE_NODE,
                             .shape.rank = -1,
                             .node = at });
        out[i] = (int)g->values.n - 1;
    }
    n->out = out;
    n->n_out = n_out;
    r->n = *n;
    return n->op->shape(g, n);
}

/* ---- norms ---- */

static err norm_weights(struct graph *g, struct node *n, int from, int64_t want)
{
    for (int i = from; i < n->n_in; i++) {
        const struct value *w = node_in(g, n, i);
        if (w && !is_float(w->type))
            return node_err(g, n, "input %d is no float", i);
        if (w && differ(shape_count(&w->shape), want))
            return node_err(g, n, "input %d has %lld numbers, %lld are normalised", i,
                            (long long)shape_count(&w->shape), (long long)want);
    }
    return NULL;
}

err shape_layer_norm(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct shape s = x->shape;
    int axis = 0;
    if (!is_float(x->type))
        return node_err(g, n, "its input is no float");
    set(node_out(g, n, 0), x->type, s);
    if (s.rank >= 0) {
        TRY(attr_axis(n, "axis", -1, s.rank, &axis));
        TRY(norm_weights(g, n, 1, count_from(&s, axis)));
        for (int i = axis; i < s.rank; i++)
            s.d[i] = 1;
    }
    set(node_out(g, n, 1), stash_type(x->type), s);
    set(node_out(g, n, 2), stash_type(x->type), s);
    return NULL;
}

err shape_group_norm(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    int64_t groups = attr_i(n, "num_groups", 1);
    if (!is_float(x->type))
        return node_err(g, n, "its input is no float");
    set(node_out(g, n, 0), x->type, x->shape);
    if (x->shape.rank < 0)
        return NULL;
    if (x->shape.rank < 2)
        return node_err(g, n, "its input has rank %d, at least 2 is needed", x->shape.rank);
    if (groups < 1 || (x->shape.d[1] >= 0 && x->shape.d[1] % groups != 0))
        return node_err(g, n, "%lld channels are not %lld groups", (long long)x->shape.d[1],
                        (long long)groups);
    return norm_weights(g, n, 1, x->shape.d[1]);
}

/* (dy, x, scale) */
err shape_norm_grad(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 1), *scale = node_in(g, n, 2);
    set(node_out(g, n, 0), x->type, x->shape);
    set(node_out(g, n, 1), scale->type, scale->shape);
    set(node_out(g, n, 2), scale->type, scale->shape);
    return NULL;
}

err grad_layer_norm(struct grad *r)
{
    bool rms = r->n.op->id == OP_RMSNormalization;
    for (int i = 1; i < r->n.n_out; i++)
        if (r->dy[i] >= 0)
            FAIL(UNSUPPORTED, "%s '%.*s' has no gradient by its mean and variance", r->n.op->name,
                 STR(r->n.name));
    if (r->need[0] || r->need[1] || (r->n.n_in > 2 && r->need[2]))
        grad_node(r, rms ? OP_RMSNormalizationGrad : OP_LayerNormalizationGrad,
                  (const int[]){ r->dy[0], r->n.in[0], r->n.in[1] }, 3, rms ? 2 : 3, (struct attr){ 0 });
    return NULL;
}

err grad_group_norm(struct grad *r)
{
    struct attr one = { "instances", ATTR_INT, .i = 1 };
    grad_node(r, OP_GroupNormalizationGrad, (const int[]){ r->dy[0], r->n.in[0], r->n.in[1] }, 3, 3,
              r->n.op->id == OP_InstanceNormalization ? one : (struct attr){ 0 });
    return NULL;
}

/* ---- random numbers ---- */

err shape_dropout(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0), *mode = node_in(g, n, 2);
    if (!is_float(x->type))
        return node_err(g, n, "its input is no float");
    if (mode && mode->type != TENSOR_BOOL)
        return node_err(g, n, "training_mode is no bool");
    set(node_out(g, n, 0), x->type, x->shape);
    set(node_out(g, n, 1), TENSOR_BOOL, x->shape);
    return NULL;
}

err grad_dropout(struct grad *r)
{
    /* The backward node draws what the forward node drew. */
    struct attr stream = { "stream", ATTR_INT, .i = attr_i(&r->n, "stream", r->n.ordinal) };
    int in[3] = { r->dy[0], r->n.n_in > 1 ? r->n.in[1] : -1, r->n.n_in > 2 ? r->n.in[2] : -1 };
    if (r->need[0])
        grad_node(r, OP_DropoutGrad, in, 3, 1, stream);
    return NULL;
}

err shape_random_like(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    enum tensor_type t = (enum tensor_type)attr_i(n, "dtype", x->type);
    if (!is_float(t))
        return node_err(g, n, "it makes floats, not type %d", (int)t);
    set(node_out(g, n, 0), t, x->shape);
    return NULL;
}

/* ---- attention ---- */

/* A tensor of heads: [batch, heads, length, size] or [batch, length, heads·size]. */
struct heads {
    int64_t batch, heads, length, size;
};

static err heads_of(struct graph *g, struct node *n, const struct value *v, const char *attr,
                    struct heads *out)
{
    const int64_t *d = v->shape.d;
    int64_t heads = attr_i(n, attr, 0);
    if (v->shape.rank == 4) {
        *out = (struct heads){ d[0], d[1], d[2], d[3] };
        return NULL;
    }
    if (v->shape.rank != 3)
        return node_err(g, n, "queries, keys and values have rank 3 or 4, not %d", v->shape.rank);
    if (heads < 1 || d[2] < 0 || d[2] % heads != 0)
        return node_err(g, n, "a width of %lld is not cut into %s = %lld", (long long)d[2], attr,
                        (long long)heads);
    *out = (struct heads){ d[0], heads, d[1], d[2] / heads };
    return NULL;
}

static err attention_check(struct graph *g, struct node *n, int at, struct heads *q, struct heads *k,
                           struct heads *v)
{
    TRY(heads_of(g, n, node_in(g, n, at), "q_num_heads", q));
    TRY(heads_of(g, n, node_in(g, n, at + 1), "kv_num_heads", k));
    TRY(heads_of(g, n, node_in(g, n, at + 2), "kv_num_heads", v));
    if (differ(q->batch, k->batch) || differ(k->batch, v->batch) || differ(k->heads, v->heads) ||
        differ(k->length, v->length) || differ(q->size, k->size) || k->heads < 1 || q->heads % k->heads != 0)
        return node_err(g, n, "queries, keys and values do not fit together");
    return NULL;
}

err shape_attention(struct graph *g, struct node *n)
{
    const struct value *xq = node_in(g, n, 0), *mask = node_in(g, n, 3), *past = node_in(g, n, 4),
                       *past_v = node_in(g, n, 5);
    struct heads q, k, v;
    if (!is_float(xq->type) || xq->type != node_in(g, n, 1)->type || xq->type != node_in(g, n, 2)->type)
        return node_err(g, n, "queries, keys and values are not floats of one type");
    if (mask && mask->type != TENSOR_BOOL && !is_float(mask->type))
        return node_err(g, n, "its mask is neither bool nor float");
    if (mask && mask->shape.rank > 4)
        return node_err(g, n, "its mask has rank %d", mask->shape.rank);
    if (!past != !past_v || (past && past->shape.rank >= 0 && past->shape.rank != 4))
        return node_err(g, n, "past keys and values go together, and have rank 4");
    if (xq->shape.rank < 0 || node_in(g, n, 1)->shape.rank < 0 || node_in(g, n, 2)->shape.rank < 0) {
        for (int i = 0; i < n->n_out; i++)
            set(node_out(g, n, i), i == 4 ? stash_type(xq->type) : xq->type, (struct shape){ .rank = -1 });
        return NULL;
    }
    TRY(attention_check(g, n, 0, &q, &k, &v));
    int64_t before = past && past->shape.rank == 4 ? past->shape.d[2] : 0,
            all = before < 0 || k.length < 0 ? k.length : before + k.length;
    struct shape y = xq->shape.rank == 4 ? SHAPE(q.batch, q.heads, q.length, v.size)
                                         : SHAPE(q.batch, q.length, q.heads * v.size);
    set(node_out(g, n, 0), xq->type, y);
    set(node_out(g, n, 1), xq->type, SHAPE(k.batch, k.heads, all, k.size));
    set(node_out(g, n, 2), xq->type, SHAPE(v.batch, v.heads, all, v.size));
    set(node_out(g, n, 3), xq->type, SHAPE(q.batch, q.heads, q.length, all));
    set(node_out(g, n, 4), stash_type(xq->type), SHAPE(q.batch, q.heads, q.length));
    return NULL;
}

/* (dy, Q, K, V, y, log Σ exp, mask) */
err shape_attention_grad(struct graph *g, struct node *n)
{
    for (int i = 0; i < 3; i++)
        set(node_out(g, n, i), node_in(g, n, i + 1)->type, node_in(g, n, i + 1)->shape);
    return NULL;
}

err grad_attention(struct grad *r)
{
    const struct node *n = &r->n;
    bool more = n->n_in > 4 && (n->in[4] >= 0 || (n->n_in > 6 && n->in[6] >= 0));
    for (int i = 1; i < n->n_out; i++)
        more |= r->dy[i] >= 0;
    if (more || attr_f(n, "softcap", 0) > 0 || (n->n_in > 3 && r->need[3]))
        FAIL(UNSUPPORTED, "Attention '%.*s' has no gradient with a cache, a softcap, or for its mask",
             STR(n->name));
    TRY(more_outputs(r, 5));
    grad_node(r, OP_AttentionGrad,
              (const int[]){ r->dy[0], n->in[0], n->in[1], n->in[2], n->out[0], n->out[4],
                             n->n_in > 3 ? n->in[3] : -1 },
              7, 3, (struct attr){ 0 });
    return NULL;
}

err shape_packed(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    int64_t heads = attr_i(n, "q_num_heads", 1), kv = attr_i(n, "kv_num_heads", 1);
    if (!is_float(x->type) || (x->shape.rank >= 0 && x->shape.rank != 3))
        return node_err(g, n, "its input is no float of rank 3");
    if (heads < 1 || kv < 1 || heads % kv != 0 ||
        (x->shape.rank == 3 && x->shape.d[2] % (heads + 2 * kv) != 0))
        return node_err(g, n, "its width is not cut into %lld and %lld heads", (long long)heads,
                        (long long)kv);
    struct shape y = x->shape;
    if (y.rank == 3)
        y.d[2] = y.d[2] / (heads + 2 * kv) * heads;
    set(node_out(g, n, 0), x->type, y);
    set(node_out(g, n, 1), stash_type(x->type), y.rank == 3 ? SHAPE(y.d[0], heads, y.d[1]) : y);
    return NULL;
}

err grad_packed(struct grad *r)
{
    if (r->n.n_in > 1 && r->need[1])
        FAIL(UNSUPPORTED, "PackedAttention '%.*s' has no gradient for its mask", STR(r->n.name));
    TRY(more_outputs(r, 2));
    grad_node(
        r, OP_PackedAttentionGrad,
        (const int[]){ r->dy[0], r->n.in[0], r->n.out[0], r->n.out[1], r->n.n_in > 1 ? r->n.in[1] : -1 }, 5,
        1, (struct attr){ 0 });
    return NULL;
}

err shape_rotary(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    if (!is_float(x->type) || !is_float(node_in(g, n, 1)->type) || !is_float(node_in(g, n, 2)->type))
        return node_err(g, n, "its inputs are no floats");
    set(node_out(g, n, 0), x->type, x->shape);
    if (x->shape.rank < 0)
        return NULL;
    struct heads h;
    TRY(heads_of(g, n, x, "num_heads", &h));
    int64_t turned = attr_i(n, "rotary_embedding_dim", 0);
    turned = turned > 0 ? turned : h.size;
    for (int i = 1; i < 3; i++) {
        const struct shape *c = &node_in(g, n, i)->shape;
        int want = n->n_in > 3 && n->in[3] >= 0 ? 2 : 3;
        if (c->rank >= 0 && (c->rank != want || differ(c->d[want - 1], turned / 2)))
            return node_err(g, n, "its cosines and sines are not [.., %lld]", (long long)turned / 2);
    }
    if (turned % 2 != 0 || (h.size >= 0 && turned > h.size))
        return node_err(g, n, "it cannot turn %lld of a head's %lld numbers", (long long)turned,
                        (long long)h.size);
    return NULL;
}

/* Turned back: the same by the opposite angle. */
err grad_rotary(struct grad *r)
{
    const struct node *n = &r->n;
    struct attr back = { "back", ATTR_INT, .i = !attr_i(n, "back", 0) };
    if (r->need[1] || r->need[2])
        FAIL(UNSUPPORTED, "RotaryEmbedding '%.*s' has no gradient for its angles", STR(n->name));
    if (r->need[0])
        grad_node(r, OP_RotaryEmbedding,
                  (const int[]){ r->dy[0], n->in[1], n->in[2], n->n_in > 3 ? n->in[3] : -1 }, 4, 1, back);
    return NULL;
}

/* ---- recurrent nets ---- */

struct recurrent {
    int64_t steps, batch, input, hidden, dirs;
    bool layout;
};

static err recurrent_check(struct graph *g, struct node *n, int at, int64_t gates, struct recurrent *out)
{
    const struct value *x = node_in(g, n, at), *w = node_in(g, n, at + 1), *r = node_in(g, n, at + 2),
                       *b = node_in(g, n, at + 3);
    struct str direction = attr_s(n, "direction", S("forward"));
    bool layout = attr_i(n, "layout", 0) != 0;
    if (!is_float(x->type) || !is_float(w->type) || !is_float(r->type))
        return node_err(g, n, "its inputs are no floats");
    if (!str_is(direction, "forward") && !str_is(direction, "reverse") && !str_is(direction, "bidirectional"))
        return node_err(g, n, "there is no direction '%.*s'", STR(direction));
    *out = (struct recurrent){
        -1, -1, -1, attr_i(n, "hidden_size", -1), str_is(direction, "bidirectional") ? 2 : 1, layout
    };
    if (r->shape.rank == 3)
        out->hidden = r->shape.d[2];
    if (x->shape.rank == 3) {
        out->steps = x->shape.d[layout ? 1 : 0];
        out->batch = x->shape.d[layout ? 0 : 1];
        out->input = x->shape.d[2];
    }
    bool fits = (x->shape.rank == 3 || x->shape.rank < 0) && (w->shape.rank == 3 || w->shape.rank < 0) &&
                (r->shape.rank == 3 || r->shape.rank < 0);
    if (fits && w->shape.rank == 3 && r->shape.rank == 3)
        fits = !differ(w->shape.d[0], out->dirs) && !differ(r->shape.d[0], out->dirs) &&
               !differ(w->shape.d[2], out->input) && !differ(w->shape.d[1], gates * out->hidden) &&
               !differ(r->shape.d[1], gates * out->hidden);
    if (fits && b)
        fits = !differ(shape_count(&b->shape), out->hidden < 0 ? -1 : out->dirs * 2 * gates * out->hidden);
    if (!fits)
        return node_err(g, n, "its weights do not fit its input, direction and hidden size");
    return NULL;
}

static err states_check(struct graph *g, struct node *n, int from, int to, const struct recurrent *k)
{
    const struct value *lengths = node_in(g, n, 4);
    if (lengths && (lengths->type != TENSOR_I32 || lengths->shape.rank > 1 ||
                    differ(shape_count(&lengths->shape), k->batch)))
        return node_err(g, n, "its lengths are not one int32 for each row");
    for (int i = from; i < to; i++) {
        const struct value *v = node_in(g, n, i);
        int64_t want = k->batch < 0 || k->hidden < 0 ? -1 : k->dirs * k->batch * k->hidden;
        if (v && (!is_float(v->type) || differ(shape_count(&v->shape), want)))
            return node_err(g, n, "its first state (input %d) does not fit", i);
    }
    return NULL;
}

static void states_set(struct graph *g, struct node *n, const struct recurrent *k, int last)
{
    enum tensor_type t = node_in(g, n, 0)->type;
    set(node_out(g, n, 0), t,
        k->layout ? SHAPE(k->batch, k->steps, k->dirs, k->hidden)
                  : SHAPE(k->steps, k->dirs, k->batch, k->hidden));
    for (int i = 1; i <= last; i++)
        set(node_out(g, n, i), t,
            k->layout ? SHAPE(k->batch, k->dirs, k->hidden) : SHAPE(k->dirs, k->batch, k->hidden));
}

err shape_lstm(struct graph *g, struct node *n)
{
    struct recurrent k;
    TRY(recurrent_check(g, n, 0, 4, &k));
    TRY(states_check(g, n, 5, 7, &k));
    const struct value *p = node_in(g, n, 7);
    if (p && differ(shape_count(&p->shape), k.hidden < 0 ? -1 : 3 * k.dirs * k.hidden))
        return node_err(g, n, "its peepholes do not fit");
    states_set(g, n, &k, 2);
    enum tensor_type kept = stash_type(node_in(g, n, 0)->type);
    set(node_out(g, n, 3), kept, SHAPE(k.dirs, k.steps, k.batch, 4 * k.hidden));
    set(node_out(g, n, 4), kept, SHAPE(k.dirs, k.steps, k.batch, k.hidden));
    return NULL;
}

err shape_gru(struct graph *g, struct node *n)
{
    struct recurrent k;
    TRY(recurrent_check(g, n, 0, 3, &k));
    TRY(states_check(g, n, 5, 6, &k));
    states_set(g, n, &k, 1);
    set(node_out(g, n, 2), stash_type(node_in(g, n, 0)->type), SHAPE(k.dirs, k.steps, k.batch, 4 * k.hidden));
    return NULL;
}

/* Outputs of a backward node: X, W, R as they are, B, then first states of Y's type. */
static void recurrent_grad_set(struct graph *g, struct node *n, int at, int64_t gates, int n_out)
{
    const struct value *x = node_in(g, n, at), *r = node_in(g, n, at + 2);
    int64_t dirs = r->shape.d[0], hidden = r->shape.d[2], batch = x->shape.d[attr_i(n, "layout", 0) ? 0 : 1];
    for (int i = 0; i < 3; i++)
        set(node_out(g, n, i), node_in(g, n, at + i)->type, node_in(g, n, at + i)->shape);
    set(node_out(g, n, 3), stash_type(x->type), SHAPE(dirs, 2 * gates * hidden));
    for (int i = 4; i < n_out; i++)
        set(node_out(g, n, i), x->type,
            attr_i(n, "layout", 0) ? SHAPE(batch, dirs, hidden) : SHAPE(dirs, batch, hidden));
}

err shape_lstm_grad(struct graph *g, struct node *n)
{
    recurrent_grad_set(g, n, 3, 4, 6);
    return NULL;
}
err shape_gru_grad(struct graph *g, struct node *n)
{
    recurrent_grad_set(g, n, 2, 3, 5);
    return NULL;
}

/* outs: of the forward node that gradients come to; n_kept: outputs of it that the backward node reads, after Y. */
static err grad_recurrent(struct grad *r, enum op_id op, int n_dy, int n_kept, int n_states)
{
    int dy[3], in[12], n_in = 0;
    for (int i = 0; i < n_dy; i++)
        dy[i] = i < r->n.n_out ? r->dy[i] : -1;
    TRY(more_outputs(r, n_dy + n_kept));
    const struct node *n = &r->n;
    if (n->n_in > 7 && n->in[7] >= 0)
        FAIL(UNSUPPORTED, "%s '%.*s' has no gradient with peepholes", n->op->name, STR(n->name));
    for (int i = 0; i < n_dy; i++)
        in[n_in++] = dy[i];
    for (int i = 0; i < 3; i++)
        in[n_in++] = n->in[i];
    for (int i = 4; i < 5 + n_states; i++)
        in[n_in++] = i < n->n_in ? n->in[i] : -1;
    in[n_in++] = n->out[0];
    for (int i = 0; i < n_kept; i++)
        in[n_in++] = n->out[n_dy + i];
    struct attr *attrs = NEW_N(r->g->a, struct attr, n->n_attrs + 1); /* ended by a row without a name */
    memcpy(attrs, n->attrs, n->n_attrs * sizeof *attrs);
    int first = graph_add(r->g, &op_table[op], in, n_in, 4 + n_states, attrs);
    static const int of[] = {
        0, 1, 2, 3, 5, 6
    }; /* inputs of the forward node, by output of the backward one */
    for (int i = 0; i < 4 + n_states && first >= 0; i++)
        if (of[i] < n->n_in && n->in[of[i]] >= 0 && r->need[of[i]])
            r->dx[of[i]] = first + i;
    return NULL;
}

err grad_lstm(struct grad *r)
{
    return grad_recurrent(r, OP_LSTMGrad, 3, 2, 2);
}
err grad_gru(struct grad *r)
{
    return grad_recurrent(r, OP_GRUGrad, 2, 1, 1);
}
