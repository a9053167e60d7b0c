// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/elements.h"

/* Registers together stay within this, well below a first cache of 32 KiB, beside the tensors that stream through it. */
enum { REGISTERS_BYTES = 20 << 10, CHUNK_MAX = 1024, CHUNK_MIN = 64, WHOLE_CHUNK = 1 << 30 };
enum { SLOTS = ELEMENTS_INPUTS + ELEMENTS_OUTPUTS + ELEMENTS_MAX };

enum operand_kind {
    OPERAND_UNUSED,
    OPERAND_DIRECT, /* read where it lies */
    OPERAND_LOAD,   /* each chunk, contiguous or by a stride */
    OPERAND_SAME,   /* the same in all chunks: once a run */
    OPERAND_ROW,    /* one number for a row that is longer than a chunk: once a row */
    OPERAND_SPREAD, /* each chunk, row by row */
};
struct operand {
    enum operand_kind kind;
    element_load *load;
    size_t size;                     /* bytes of an element in memory */
    int64_t stride[TENSOR_RANK_MAX]; /* by axis of the program; the last: along a row */
};
struct result {
    element_store *store; /* NULL: written where it lies */
    size_t size;
    int slot;
};
struct ready {
    element_fn *fn;
    int16_t d, in[3]; /* slots; −1: none */
    double k[2];
};
/* A program on given shapes. Slots: inputs, outputs, then registers. */
struct program {
    size_t size; /* of a register's element */
    int n_axes;
    int64_t axis[TENSOR_RANK_MAX]; /* sizes, merged where all operands allow it; the last is a row */
    int64_t row, rows;
    int64_t chunk; /* elements: pieces of a row, or whole rows */
    bool pieces;
    int n_in, n_out, n, n_registers;
    struct operand in[ELEMENTS_INPUTS];
    struct result out[ELEMENTS_OUTPUTS];
    struct ready *v;
};

/* ---- running ---- */

static int64_t offset_of(const struct program *p, const struct operand *o, int64_t row)
{
    int64_t at = 0;
    for (int i = p->n_axes - 2; i > 0; i--) {
        at += row % p->axis[i] * o->stride[i];
        row /= p->axis[i];
    }
    return p->n_axes > 1 ? at + row * o->stride[0] : 0;
}

/* Rows from `row` on, each repeated or read along the operand's own strides, side by side in a register. */
static void spread(const struct program *p, const struct operand *o, const char *from, char *to, int64_t row,
                   int64_t n)
{
    int64_t at[TENSOR_RANK_MAX] = { 0 }, rest = row, inner = o->stride[p->n_axes - 1],
            place = offset_of(p, o, row);
    for (int i = p->n_axes - 2; i > 0; i--) {
        at[i] = rest % p->axis[i];
        rest /= p->axis[i];
    }
    for (int64_t r = 0; r < n; r++) {
        o->load(to + (size_t)(r * p->row) * p->size, from + place * (int64_t)o->size, inner, (size_t)p->row);
        int i = p->n_axes - 2;
        place += i >= 0 ? o->stride[i] : 0;
        for (; i > 0 && ++at[i] == p->axis[i]; i--) {
            place += o->stride[i - 1] - at[i] * o->stride[i];
            at[i] = 0;
        }
    }
}

static void instructions(const struct program *p, char **slot, size_t n)
{
    for (int i = 0; i < p->n; i++) {
        const struct ready *v = &p->v[i];
        v->fn(slot[v->d], slot[v->in[0]], v->in[1] < 0 ? NULL : slot[v->in[1]],
              v->in[2] < 0 ? NULL : slot[v->in[2]], n, v->k);
    }
}

/* One chunk: n elements from column col of row `row` on. */
static void chunk(const struct program *p, const struct step *s, char **slot, int64_t row, int64_t col,
                  int64_t n)
{
    int64_t flat = row * p->row + col;
    for (int i = 0; i < p->n_in; i++) {
        const struct operand *o = &p->in[i];
        const char *from = o->kind > OPERAND_UNUSED ? s->in[i]->p : NULL;
        int64_t inner = o->stride[p->n_axes - 1], at = p->pieces ? offset_of(p, o, row) + col * inner : flat;
        if (o->kind == OPERAND_DIRECT)
            slot[i] = (char *)from + at * (int64_t)o->size;
        else if (o->kind == OPERAND_LOAD)
            o->load(slot[i], from + at * (int64_t)o->size, inner, (size_t)n);
        else if (o->kind == OPERAND_ROW && col == 0)
            o->load(slot[i], from + at * (int64_t)o->size, 0,
                    (size_t)(p->row < p->chunk ? p->row : p->chunk));
        else if (o->kind == OPERAND_SPREAD)
            spread(p, o, from, slot[i], row, n / p->row);
    }
    for (int i = 0; i < p->n_out; i++)
        if (!p->out[i].store)
            slot[p->n_in + i] = (char *)s->out[i]->p + flat * (int64_t)p->out[i].size;
    instructions(p, slot, (size_t)n);
    for (int i = 0; i < p->n_out; i++)
        if (p->out[i].store)
            p->out[i].store((char *)s->out[i]->p + flat * (int64_t)p->out[i].size, slot[p->out[i].slot],
                            (size_t)n);
}

static void run(const struct step *s, struct rank *rank)
{
    const struct program *p = s->state;
    char *slot[SLOTS];
    if (p->row == 0 || p->rows == 0)
        return;
    /* Registers stand behind the slots of inputs and outputs; an input that is loaded has one of its own. */
    char *free = rank->scratch;
    size_t bytes = p->chunk == WHOLE_CHUNK ? 0 : (size_t)p->chunk * p->size;
    for (int i = 0; i < p->n_in; i++)
        if (p->in[i].kind > OPERAND_DIRECT) {
            slot[i] = free;
            free += bytes;
        }
    for (int i = 0; i < p->n_registers; i++, free += bytes)
        slot[p->n_in + p->n_out + i] = free;
    for (int i = 0; i < p->n_in; i++)
        if (p->in[i].kind == OPERAND_SAME) {
            const struct operand *o = &p->in[i];
            if (p->pieces)
                o->load(slot[i], s->in[i]->p, 0, (size_t)(p->row < p->chunk ? p->row : p->chunk));
            else
                spread(p, o, s->in[i]->p, slot[i], 0,
                       p->rows < p->chunk / p->row ? p->rows : p->chunk / p->row);
        }
    if (!p->pieces) {
        int64_t many = p->chunk / p->row;
        for (int64_t row = 0; row < p->rows; row += many)
            chunk(p, s, slot, row, 0, (p->rows - row < many ? p->rows - row : many) * p->row);
        return;
    }
    for (int64_t row = 0; row < p->rows; row++)
        for (int64_t col = 0; col < p->row; col += p->chunk)
            chunk(p, s, slot, row, col, p->row - col < p->chunk ? p->row - col : p->chunk);
}

/* ---- binding: where numbers lie ---- */

/* The logical axes in the order in which a tensor's memory has them. */
static int axis_at(bool nhwc, int i)
{
    static const int nhwc_order[] = { 0, 2, 3, 1 };
    return nhwc ? nhwc_order[i] : i;
}

/* Strides by logical axis of a shape that is broadcast to rank `rank`; 0 along a size of 1. */
static void strides_of(const struct shape *s, bool nhwc, int rank, int64_t *out)
{
    int64_t stride = 1;
    memset(out, 0, TENSOR_RANK_MAX * sizeof *out);
    for (int i = s->rank - 1; i >= 0; i--) {
        int axis = axis_at(nhwc && s->rank == 4, i);
        out[axis + rank - s->rank] = s->d[axis] == 1 ? 0 : stride;
        stride *= s->d[axis];
    }
}

static struct shape shape_of(const struct tensor *t)
{
    struct shape s = { .rank = t->rank };
    memcpy(s.d, t->d, sizeof s.d);
    return s;
}

static bool fits(const struct shape *s, const struct shape *to)
{
    for (int i = 0; i < s->rank; i++)
        if (to->rank < s->rank || (s->d[i] != 1 && s->d[i] != to->d[i + to->rank - s->rank]))
            return false;
    return true;
}

/* Axes in the order of the output's memory, those of size 1 left out, neighbours merged where each operand steps through
 * both as through one. */
static void axes_merge(struct program *p, const struct shape *s, bool nhwc)
{
    int n = 0, order[TENSOR_RANK_MAX];
    for (int i = 0; i < s->rank; i++)
        if (s->d[axis_at(nhwc && s->rank == 4, i)] != 1)
            order[n++] = axis_at(nhwc && s->rank == 4, i);
    int64_t size[TENSOR_RANK_MAX], stride[ELEMENTS_INPUTS][TENSOR_RANK_MAX];
    int to = 0;
    for (int i = 0; i < n; i++) {
        bool merge = to > 0;
        for (int k = 0; k < p->n_in && merge; k++)
            merge = p->in[k].kind == OPERAND_UNUSED ||
                    stride[k][to - 1] == p->in[k].stride[order[i]] * s->d[order[i]];
        to -= merge;
        size[to] = s->d[order[i]] * (merge ? size[to] : 1);
        for (int k = 0; k < p->n_in; k++)
            stride[k][to] = p->in[k].stride[order[i]];
        to++;
    }
    if (to == 0) {
        size[0] = 1;
        for (int k = 0; k < p->n_in; k++)
            stride[k][0] = 0;
        to = 1;
    }
    p->n_axes = to;
    memcpy(p->axis, size, sizeof size);
    for (int k = 0; k < p->n_in; k++)
        memcpy(p->in[k].stride, stride[k], sizeof stride[k]);
    p->row = size[to - 1];
    p->rows = 1;
    for (int i = 0; i < to - 1; i++)
        p->rows *= size[i];
}

static bool contiguous(const struct program *p, const struct operand *o)
{
    int64_t stride = 1;
    for (int i = p->n_axes - 1; i >= 0; i--) {
        if (o->stride[i] != stride)
            return false;
        stride *= p->axis[i];
    }
    return true;
}

static bool same_rows(const struct program *p, const struct operand *o)
{
    for (int i = 0; i < p->n_axes - 1; i++)
        if (o->stride[i] != 0)
            return false;
    return true;
}

static enum operand_kind kind_of(const struct program *p, const struct operand *o, bool native)
{
    int64_t inner = o->stride[p->n_axes - 1];
    if (p->pieces && inner == 0)
        return same_rows(p, o) ? OPERAND_SAME : OPERAND_ROW;
    if (p->pieces)
        return native && inner == 1 ? OPERAND_DIRECT : OPERAND_LOAD;
    if (contiguous(p, o))
        return native ? OPERAND_DIRECT : OPERAND_LOAD;
    return same_rows(p, o) ? OPERAND_SAME : OPERAND_SPREAD;
}

static enum tensor_type native_type(const struct element_table *t)
{
    return t == &elements_f64 ? TENSOR_F64 : t == &elements_i64 ? TENSOR_I64 : TENSOR_F32;
}

/* ---- binding: registers ---- */

/* Results live from their instruction to their last use; those that are outputs and have no place of their own to the end. */
static void registers(struct program *p, const struct elements *e)
{
    int last[ELEMENTS_MAX], slot[ELEMENTS_MAX], until[ELEMENTS_MAX] = { 0 };
    for (int i = 0; i < e->n; i++) {
        last[i] = i;
        slot[i] = -1;
        for (int k = 0; k < e->v[i].n_in; k++)
            if (e->v[i].in[k] < 0)
                last[-1 - e->v[i].in[k]] = i;
    }
    for (int i = 0; i < p->n_out; i++)
        if (p->out[i].store)
            last[e->out[i]] = e->n;
        else
            slot[e->out[i]] = p->n_in + i;
    for (int i = 0; i < e->n; i++) {
        struct ready *r = &p->v[i];
        if (slot[i] < 0) {
            int reg = 0;
            while (reg < p->n_registers && until[reg] > i)
                reg++;
            p->n_registers += reg == p->n_registers;
            until[reg] = last[i];
            slot[i] = p->n_in + p->n_out + reg;
        }
        r->d = (int16_t)slot[i];
        for (int k = 0; k < 3; k++)
            r->in[k] = k >= e->v[i].n_in
                           ? -1
                           : (int16_t)(e->v[i].in[k] >= 0 ? e->v[i].in[k] : slot[-1 - e->v[i].in[k]]);
    }
    for (int i = 0; i < p->n_out; i++)
        p->out[i].slot = slot[e->out[i]];
}

/* Output 0 may lie where an input lay; then nothing may be read from there after it was written. */
static bool late_reads(const struct program *p, const struct elements *e, int from)
{
    for (int i = from + 1; i < e->n; i++)
        for (int k = 0; k < e->v[i].n_in; k++)
            if (e->v[i].in[k] >= 0 && p->in[e->v[i].in[k]].kind == OPERAND_DIRECT)
                return true;
    return false;
}

static void outputs_place(struct program *p, const struct bind *b, const struct elements *e,
                          const struct element_table *t)
{
    for (int i = 0; i < p->n_out; i++) {
        enum tensor_type type = b->step->out[i]->type;
        bool twice = false; /* one result for two outputs is stored for the second */
        for (int k = 0; k < i; k++)
            twice |= e->out[k] == e->out[i];
        bool direct = type == native_type(t) && !twice && !(i == 0 && late_reads(p, e, e->out[0]));
        p->out[i] = (struct result){ .store = direct ? NULL : t->store[type], .size = tensor_size(type) };
    }
}

/* ---- binding ---- */

static err inputs_place(struct program *p, const struct bind *b, const struct elements *e,
                        const struct element_table *t, const struct shape *s)
{
    bool used[ELEMENTS_INPUTS] = { 0 };
    for (int i = 0; i < e->n; i++)
        for (int k = 0; k < e->v[i].n_in; k++)
            if (e->v[i].in[k] >= 0)
                used[e->v[i].in[k]] = true;
    for (int i = 0; i < p->n_in; i++) {
        const struct tensor *x = bind_in(b, i);
        if (!used[i] || !x)
            continue;
        struct shape own = e->view[i].rank >= 0 && i < e->n_in ? e->view[i] : shape_of(x);
        if (!fits(&own, s) || !t->load[x->type])
            return cpu_no_kernel(b);
        p->in[i] = (struct operand){ .kind = OPERAND_LOAD,
                                     .load = t->load[x->type],
                                     .size = tensor_size(x->type) };
        strides_of(&own, x->nhwc, s->rank, p->in[i].stride);
    }
    return NULL;
}

err elements_bind(struct bind *b, const struct elements *e, const struct element_table *t)
{
    struct step *step = b->step;
    const struct tensor *y = bind_out(b, 0);
    if (!y || step->n_in > ELEMENTS_INPUTS || step->n_out > ELEMENTS_OUTPUTS || e->n == 0)
        return cpu_no_kernel(b);
    struct program *p = NEW(b->a, struct program);
    struct shape s = shape_of(y);
    *p = (struct program){ .size = t->size, .n_in = step->n_in, .n_out = e->n_out, .n = e->n };
    p->v = NEW_N(b->a, struct ready, e->n);
    for (int i = 0; i < e->n; i++) {
        p->v[i] = (struct ready){ .fn = t->fn[e->v[i].f], .k = { e->v[i].k[0], e->v[i].k[1] } };
        if (!p->v[i].fn)
            return cpu_no_kernel(b);
    }
    for (int i = 0; i < e->n_out; i++)
        if (!t->store[step->out[i]->type] || step->out[i]->n != y->n || step->out[i]->nhwc != y->nhwc)
            return cpu_no_kernel(b);
    TRY(inputs_place(p, b, e, t, &s));
    axes_merge(p, &s, y->nhwc);
    /* Which operands need a register depends on whether a row is cut, and that on the number of registers: at most all. */
    int most = p->n_in + e->n;
    int64_t chunk = REGISTERS_BYTES / (int64_t)t->size / most / 16 * 16;
    chunk = chunk > CHUNK_MAX ? CHUNK_MAX : chunk < CHUNK_MIN ? CHUNK_MIN : chunk;
    int64_t all = y->n > 0 ? (y->n + 15) / 16 * 16 : 16;
    chunk = chunk > all ? all : chunk;
    p->pieces = p->n_axes == 1 || p->row * 2 > chunk;
    bool any = false;
    for (int i = 0; i < p->n_in; i++)
        if (p->in[i].kind != OPERAND_UNUSED) {
            p->in[i].kind = kind_of(p, &p->in[i], b->step->in[i]->type == native_type(t));
            any |= p->in[i].kind != OPERAND_DIRECT;
        }
    outputs_place(p, b, e, t);
    registers(p, e);
    int64_t pieces = (p->row + chunk - 1) / chunk;
    p->chunk = !any && p->n_registers == 0 && p->pieces ? WHOLE_CHUNK
               : p->pieces ? ((p->row + pieces - 1) / (pieces ? pieces : 1) + 15) / 16 * 16
                           : chunk / p->row * p->row;
    int loaded = 0;
    for (int i = 0; i < p->n_in; i++)
        loaded += p->in[i].kind > OPERAND_DIRECT;
    step->scratch = p->chunk == WHOLE_CHUNK ? 0 : (size_t)(p->chunk * (loaded + p->n_registers)) * p->size;
    step->state = p;
    step->run = run;
    return NULL;
}

const struct element_table *elements_domain(const struct bind *b)
{
    bool any_float = false, any_double = false;
    for (int i = 0; i < b->step->n_in; i++) {
        const struct tensor *t = bind_in(b, i);
        enum tensor_type type = t ? t->type : TENSOR_NONE;
        any_double |= type == TENSOR_F64;
        any_float |= type == TENSOR_F32 || type == TENSOR_BF16 || type == TENSOR_F16;
    }
    return any_double ? &elements_f64 : any_float ? SIMD_PICK(elements_f32) : &elements_i64;
}

/* ---- what nodes do ---- */

struct simple {
    int op;
    enum element f;
    const char *k[2];
    double def[2];
};
#define SAME(name)                                 \
    {                                              \
        OP_##name, ELEMENT_##name, { NULL, NULL }, \
        {                                          \
            0, 0                                   \
        }                                          \
    }
static const struct simple simples[] = {
    SAME(Relu),
    SAME(Sigmoid),
    SAME(HardSwish),
    SAME(Tanh),
    SAME(Erf),
    SAME(Softplus),
    SAME(Softsign),
    SAME(Mish),
    SAME(Exp),
    SAME(Log),
    SAME(Sqrt),
    SAME(Abs),
    SAME(Neg),
    SAME(Reciprocal),
    SAME(Sin),
    SAME(Cos),
    SAME(Tan),
    SAME(Asin),
    SAME(Acos),
    SAME(Atan),
    SAME(Sinh),
    SAME(Cosh),
    SAME(Asinh),
    SAME(Acosh),
    SAME(Atanh),
    SAME(Sign),
    SAME(Floor),
    SAME(Ceil),
    SAME(Round),
    SAME(Not),
    SAME(IsNaN),
    SAME(PRelu),
    SAME(Equal),
    SAME(Less),
    SAME(LessOrEqual),
    SAME(Greater),
    SAME(GreaterOrEqual),
    SAME(And),
    SAME(Or),
    SAME(Xor),
    SAME(Where),
    SAME(ReluGrad),
    SAME(SigmoidGrad),
    SAME(TanhGrad),
    SAME(HardSwishGrad),
    SAME(MishGrad),
    { OP_Cast, ELEMENT_Copy, { NULL, NULL }, { 0, 0 } },
    { OP_CastLike, ELEMENT_Copy, { NULL, NULL }, { 0, 0 } },
    { OP_BroadcastTo, ELEMENT_Copy, { NULL, NULL }, { 0, 0 } },
    { OP_LeakyRelu, ELEMENT_LeakyRelu, { "alpha", NULL }, { 0.01, 0 } },
    { OP_LeakyReluGrad, ELEMENT_LeakyReluGrad, { "alpha", NULL }, { 0.01, 0 } },
    { OP_ThresholdedRelu, ELEMENT_ThresholdedRelu, { "alpha", NULL }, { 1, 0 } },
    { OP_Elu, ELEMENT_Elu, { "alpha", NULL }, { 1, 0 } },
    { OP_EluGrad, ELEMENT_EluGrad, { "alpha", NULL }, { 1, 0 } },
    { OP_Celu, ELEMENT_Celu, { "alpha", NULL }, { 1, 0 } },
    { OP_CeluGrad, ELEMENT_CeluGrad, { "alpha", NULL }, { 1, 0 } },
    { OP_Selu, ELEMENT_Selu, { "alpha", "gamma" }, { 1.6732632423543772, 1.0507009873554805 } },
    { OP_SeluGrad, ELEMENT_SeluGrad, { "alpha", "gamma" }, { 1.6732632423543772, 1.0507009873554805 } },
    { OP_HardSigmoid, ELEMENT_HardSigmoid, { "alpha", "beta" }, { 0.2, 0.5 } },
    { OP_HardSigmoidGrad, ELEMENT_HardSigmoidGrad, { "alpha", "beta" }, { 0.2, 0.5 } },
    { OP_Swish, ELEMENT_Swish, { "alpha", NULL }, { 1, 0 } },
    { OP_SwishGrad, ELEMENT_SwishGrad, { "alpha", NULL }, { 1, 0 } },
    { OP_Shrink, ELEMENT_Shrink, { "lambd", "bias" }, { 0.5, 0 } },
};
#undef SAME

static const struct simple *simple_of(int op)
{
    for (size_t i = 0; i < sizeof simples / sizeof *simples; i++)
        if (simples[i].op == op)
            return &simples[i];
    return NULL;
}

#define NO_REF INT16_MIN
/* The reference to the result; NO_REF: there is no room. */
static int16_t emit(struct elements *e, enum element f, int n_in, int16_t x, int16_t y, int16_t z, double k0,
                    double k1)
{
    if (e->n >= ELEMENTS_MAX || (n_in > 0 && x == NO_REF) || (n_in > 1 && y == NO_REF) ||
        (n_in > 2 && z == NO_REF))
        return NO_REF;
    e->v[e->n++] = (struct instruction){ (uint8_t)f, (uint8_t)n_in, { x, y, z }, { k0, k1 } };
    return (int16_t)-e->n;
}
#define EMIT1(f, x) emit(e, ELEMENT_##f, 1, x, 0, 0, 0, 0)
#define EMIT2(f, x, y) emit(e, ELEMENT_##f, 2, x, y, 0, 0, 0)
#define EMIT3(f, x, y, z) emit(e, ELEMENT_##f, 3, x, y, z, 0, 0)

/* The only number of a constant of floats. */
static bool number_of(const struct graph *g, const struct node *n, int i, double *out)
{
    const struct value *v = node_in(g, n, i);
    if (!v || v->kind != VALUE_CONST || !v->data || shape_count(&v->shape) != 1)
        return false;
    if (v->type == TENSOR_F64)
        *out = *(const double *)v->data;
    else if (v->type == TENSOR_F32)
        *out = *(const float *)v->data;
    else
        return false;
    return true;
}

static int16_t emit_pow(struct elements *e, const struct graph *g, const struct node *n, const int16_t *in)
{
    double k = 0;
    bool known = number_of(g, n, 1, &k) && node_in(g, n, 0)->type == node_in(g, n, 1)->type;
    if (known && k == 1)
        return EMIT1(Copy, in[0]);
    if (known && k == 2)
        return EMIT1(Square, in[0]);
    if (known && k == 3)
        return EMIT2(Mul, EMIT1(Square, in[0]), in[0]);
    if (known && k == 0.5)
        return EMIT1(Sqrt, in[0]);
    if (known && k == -1)
        return EMIT1(Reciprocal, in[0]);
    return EMIT2(Pow, in[0], in[1]);
}

/* Sums and products with a constant need no register for it. */
static int16_t emit_binary(struct elements *e, const struct graph *g, const struct node *n, const int16_t *in)
{
    double k;
    for (int i = 0; i < 2; i++) { /* input 1 − i is the number */
        bool alone = shape_same(&node_in(g, n, i)->shape, &node_out(g, n, 0)->shape);
        if (!alone || !number_of(g, n, 1 - i, &k))
            continue;
        if (n->op->id == OP_Mul)
            return emit(e, ELEMENT_Scale, 1, in[i], 0, 0, k, 0);
        if (n->op->id == OP_Add || (n->op->id == OP_Sub && i == 0))
            return emit(e, ELEMENT_Shift, 1, in[i], 0, 0, n->op->id == OP_Add ? k : -k, 0);
    }
    return n->op->id == OP_Add   ? EMIT2(Add, in[0], in[1])
           : n->op->id == OP_Sub ? EMIT2(Sub, in[0], in[1])
           : n->op->id == OP_Mul ? EMIT2(Mul, in[0], in[1])
                                 : EMIT2(Div, in[0], in[1]);
}

static int16_t emit_many(struct elements *e, const struct graph *g, const struct node *n, const int16_t *in)
{
    (void)g;
    enum element f = n->op->id == OP_Min ? ELEMENT_Min : n->op->id == OP_Max ? ELEMENT_Max : ELEMENT_Add;
    int16_t y = n->n_in > 1 ? in[0] : EMIT1(Copy, in[0]);
    for (int i = 1; i < n->n_in; i++)
        y = emit(e, f, 2, y, in[i], 0, 0, 0);
    return n->op->id == OP_Mean ? emit(e, ELEMENT_Scale, 1, y, 0, 0, 1.0 / n->n_in, 0) : y;
}

static int16_t emit_clip(struct elements *e, const struct node *n, const int16_t *in)
{
    bool low = n->n_in > 1 && n->in[1] >= 0, high = n->n_in > 2 && n->in[2] >= 0;
    return low && high ? EMIT3(Clip, in[0], in[1], in[2])
           : low       ? EMIT2(Max, in[0], in[1])
           : high      ? EMIT2(Min, in[0], in[2])
                       : EMIT1(Copy, in[0]);
}

static int16_t emit_clip_grad(struct elements *e, const struct node *n, const int16_t *in)
{
    int16_t y = in[0];
    if (n->n_in > 2 && n->in[2] >= 0)
        y = EMIT3(AtLeastGrad, y, in[1], in[2]);
    if (n->n_in > 3 && n->in[3] >= 0)
        y = EMIT3(AtMostGrad, y, in[1], in[3]);
    return y == in[0] ? EMIT1(Copy, y) : y;
}

static int16_t emit_node(struct elements *e, const struct graph *g, const struct node *n, const int16_t *in)
{
    const struct simple *s = simple_of(n->op->id);
    if (s) {
        double k0 = s->k[0] ? (double)attr_f(n, s->k[0], (float)s->def[0]) : 0,
               k1 = s->k[1] ? (double)attr_f(n, s->k[1], (float)s->def[1]) : 0;
        int n_in = n->op->id == OP_CastLike || n->op->id == OP_BroadcastTo ? 1 : n->n_in;
        return emit(e, s->f, n_in, in[0], n_in > 1 ? in[1] : 0, n_in > 2 ? in[2] : 0, k0, k1);
    }
    bool tanh = str_is(attr_s(n, "approximate", (struct str){ 0 }), "tanh");
    switch (n->op->id) {
    case OP_Add:
    case OP_Sub:
    case OP_Mul:
    case OP_Div:
        return emit_binary(e, g, n, in);
    case OP_Pow:
        return emit_pow(e, g, n, in);
    case OP_Mod:
        return attr_i(n, "fmod", 0) ? EMIT2(Fmod, in[0], in[1]) : EMIT2(Mod, in[0], in[1]);
    case OP_Min:
    case OP_Max:
    case OP_Sum:
    case OP_Mean:
        return emit_many(e, g, n, in);
    case OP_Clip:
        return emit_clip(e, n, in);
    case OP_ClipGrad:
        return emit_clip_grad(e, n, in);
    case OP_Gelu:
        return tanh ? EMIT1(GeluTanh, in[0]) : EMIT1(Gelu, in[0]);
    case OP_GeluGrad:
        return tanh ? EMIT2(GeluTanhGrad, in[0], in[1]) : EMIT2(GeluGrad, in[0], in[1]);
    case OP_IsInf:
        return emit(e, ELEMENT_IsInf, 1, in[0], 0, 0, (double)attr_i(n, "detect_negative", 1),
                    (double)attr_i(n, "detect_positive", 1));
    default:
        return NO_REF;
    }
}

bool elements_add(struct elements *e, const struct graph *g, const struct node *n, const int16_t *in,
                  int16_t *result)
{
    int before = e->n;
    if (n->n_in > ELEMENTS_INPUTS)
        return false;
    int16_t y = emit_node(e, g, n, in);
    if (y == NO_REF)
        e->n = before;
    else
        *result = y;
    return y != NO_REF;
}

/* ---- as attributes ---- */

struct attr *elements_write(const struct elements *e, struct arena *a, size_t *n)
{
    struct attr *attrs = NEW_N(a, struct attr, 5);
    int64_t *code = NEW_N(a, int64_t, e->n * 5 + 1),
            *view = NEW_N(a, int64_t, e->n_in * (TENSOR_RANK_MAX + 1) + 1),
            *out = NEW_N(a, int64_t, e->n_out + 1);
    float *k = NEW_N(a, float, e->n * 2 + 1);
    for (int i = 0; i < e->n; i++) {
        const struct instruction *v = &e->v[i];
        const int64_t row[] = { v->f, v->n_in, v->in[0], v->in[1], v->in[2] };
        memcpy(code + i * 5, row, sizeof row);
        k[2 * i] = (float)v->k[0];
        k[2 * i + 1] = (float)v->k[1];
    }
    for (int i = 0; i < e->n_in; i++) {
        view[i * (TENSOR_RANK_MAX + 1)] = e->view[i].rank;
        memcpy(view + i * (TENSOR_RANK_MAX + 1) + 1, e->view[i].d, sizeof e->view[i].d);
    }
    for (int i = 0; i < e->n_out; i++)
        out[i] = e->out[i];
    attrs[0] = (struct attr){ "code", ATTR_INTS, .is = code, .n = (size_t)e->n * 5 };
    attrs[1] = (struct attr){ "k", ATTR_FLOATS, .fs = k, .n = (size_t)e->n * 2 };
    attrs[2] = (struct attr){ "view", ATTR_INTS, .is = view, .n = (size_t)e->n_in * (TENSOR_RANK_MAX + 1) };
    attrs[3] = (struct attr){ "out", ATTR_INTS, .is = out, .n = (size_t)e->n_out };
    *n = 4;
    return attrs;
}

err elements_read(const struct node *n, struct elements *e)
{
    const struct attr *code = attr_find(n, "code"), *k = attr_find(n, "k"), *view = attr_find(n, "view"),
                      *out = attr_find(n, "out");
    if (!code || !k || !view || !out || code->n > ELEMENTS_MAX * 5 || out->n > ELEMENTS_OUTPUTS ||
        (int)out->n != n->n_out || n->n_in > ELEMENTS_INPUTS ||
        view->n != (size_t)n->n_in * (TENSOR_RANK_MAX + 1))
        FAIL(INVALID, "Fused '%.*s' has no program", STR(n->name));
    e->n = (int)(code->n / 5);
    e->n_in = n->n_in;
    e->n_out = n->n_out;
    for (int i = 0; i < e->n; i++) {
        const int64_t *c = code->is + i * 5;
        e->v[i] = (struct instruction){ (uint8_t)c[0],
                                        (uint8_t)c[1],
                                        { (int16_t)c[2], (int16_t)c[3], (int16_t)c[4] },
                                        { (double)k->fs[2 * i], (double)k->fs[2 * i + 1] } };
    }
    for (int i = 0; i < e->n_in; i++) {
        e->view[i].rank = (int)view->is[i * (TENSOR_RANK_MAX + 1)];
        memcpy(e->view[i].d, view->is + i * (TENSOR_RANK_MAX + 1) + 1, sizeof e->view[i].d);
    }
    for (int i = 0; i < e->n_out; i++)
        e->out[i] = (int)out->is[i];
    return NULL;
}
