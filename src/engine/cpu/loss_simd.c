// SPDX-License-Identifier: Apache-2.0
// Losses and their gradients. What a loss is divided by is found first, from labels and weights alone, so that loss and gradient
// are one pass over the scores: a row of scores is read, and its gradient is written, while it is in the cache.
#include "engine/cpu/group.h"
#include "engine/cpu/rows.h"
#include <stdlib.h>

enum { POINTS = 256 };
enum point_kind { POINT_SIGMOID, POINT_SQUARED, POINT_ABSOLUTE, POINT_HUBER };

struct class_loss {
    int at;                         /* input of the scores: 1 in a gradient, behind dy */
    int64_t rows, per_row, classes; /* rows of scores, of which per_row make one row of the batch */
    int64_t rank_rows; /* as rows, of all that the rank has: what a loss is divided by counts them */
    int64_t ignore, labels_per_row;
    double smoothing;
};
struct point_loss {
    int at;
    enum point_kind kind;
    int64_t per_row, columns, labels_per_row;
    int64_t all, rank_rows; /* elements of the whole batch, 0: not known; rows of this rank */
    double smoothing, delta;
};

static const struct tensor *optional(const struct step *s, int i)
{
    return i < s->n_in ? s->in[i] : NULL;
}

static void scalar_put(struct tensor *t, double v)
{
    if (t)
        rows_put_f64(t, 0, 1, &v);
}

/* How many of the labels that run sees belong to one row of the batch. */
static int64_t labels_per_row(const struct bind *b, int64_t labels)
{
    int64_t rows = b->rows > 0 && labels % b->rows == 0 ? b->rows : labels;
    return rows > 0 ? labels / rows : 1;
}

static void bad_label(struct rank *r, int64_t per_row, int64_t label)
{
    if (!r->bad_label)
        r->bad_label = 1 + (r->row * per_row + label) / per_row;
}

/* Of all the rank's rows, where run sees n that belong to b->rows. */
static int64_t of_rank(const struct bind *b, int64_t n)
{
    return b->rows > 0 && n % b->rows == 0 ? n / b->rows * b->rows_rank : n;
}

/* May run look at input i beside the rows that it sees? So where it is an input of the program, which lies there whole. */
static bool lies_whole(const struct bind *b, int i)
{
    int v = i < b->n->n_in ? b->n->in[i] : -1;
    while (v >= 0 && value_at(b->g, v)->kind == VALUE_NODE) {
        const struct node *n = &b->g->nodes.v[value_at(b->g, v)->node];
        if (!device_cpu.view(n->op))
            return false;
        v = n->in[0];
    }
    return true;
}

/* −1: ignored, or no class at all. */
static int64_t class_label(const struct class_loss *k, struct rank *r, const struct tensor *labels, int64_t i)
{
    int64_t y = rows_whole(labels, i);
    if (y >= 0 && y < k->classes && y != k->ignore)
        return y;
    if (y != k->ignore)
        bad_label(r, k->labels_per_row, i);
    return -1;
}

#define REAL float
#define N(name) name##_f32
#include "engine/cpu/loss_rows.h"
#undef REAL
#undef N
#define REAL double
#define N(name) name##_f64
#include "engine/cpu/loss_rows.h"
#undef REAL
#undef N

static bool is_float(const struct tensor *t)
{
    return t->type == TENSOR_F32 || t->type == TENSOR_F64 || t->type == TENSOR_BF16 || t->type == TENSOR_F16;
}

static err bind_class_loss(struct bind *b, int at)
{
    const struct tensor *x = bind_in(b, at);
    struct class_loss *k = NEW(b->a, struct class_loss);
    if (!is_float(x))
        return cpu_no_kernel(b);
    k->at = at;
    k->classes = x->d[x->rank - 1];
    k->rows = k->classes ? x->n / k->classes : 0;
    k->per_row = x->d[0] ? k->rows / x->d[0] : 1;
    k->labels_per_row = labels_per_row(b, k->rows);
    k->rank_rows = of_rank(b, k->rows);
    k->ignore = attr_i(b->n, "ignore_index", -100);
    k->smoothing = (double)attr_f(b->n, "label_smoothing", 0);
    b->step->state = k;
    b->step->run = x->type == TENSOR_F64 ? softmax_xent_f64 : softmax_xent_f32;
    b->step->scratch = 2 * (size_t)k->classes * sizeof(double);
    b->step->whole = !lies_whole(b, at + 1) || !lies_whole(b, at + 3);
    return NULL;
}
static err bind_softmax_xent(struct bind *b)
{
    return bind_class_loss(b, 0);
}
static err bind_softmax_xent_grad(struct bind *b)
{
    return bind_class_loss(b, 1);
}

static err bind_point_loss(struct bind *b, int at, struct str of)
{
    const struct tensor *x = bind_in(b, at);
    struct point_loss *k = NEW(b->a, struct point_loss);
    if (!is_float(x))
        return cpu_no_kernel(b);
    k->at = at;
    k->kind = str_is(of, "SigmoidCrossEntropy") ? POINT_SIGMOID
              : str_is(of, "MeanSquaredError")  ? POINT_SQUARED
              : str_is(of, "MeanAbsoluteError") ? POINT_ABSOLUTE
                                                : POINT_HUBER;
    k->columns = x->rank > 1 ? x->d[x->rank - 1] : 1;
    k->per_row = x->d[0] ? x->n / x->d[0] : 1;
    k->labels_per_row = labels_per_row(b, x->n);
    k->all = b->rows > 0 && x->n % b->rows == 0 ? x->n / b->rows * b->rows_all : 0;
    k->rank_rows = of_rank(b, x->d[0]);
    k->smoothing = (double)attr_f(b->n, "label_smoothing", 0);
    k->delta = (double)attr_f(b->n, "delta", 1);
    b->step->state = k;
    b->step->run = x->type == TENSOR_F64 ? pointwise_f64 : pointwise_f32;
    b->step->scratch = (size_t)k->columns * sizeof(double);
    b->step->whole = k->all == 0 || !lies_whole(b, at + 3);
    return NULL;
}
static err bind_pointwise(struct bind *b)
{
    return bind_point_loss(b, 0, str_of(b->step->op->name));
}
static err bind_pointwise_grad(struct bind *b)
{
    return bind_point_loss(b, 1, attr_s(b->n, "of", S("")));
}

/* ---- ONNX's two, over axis 1 of scores [n, classes, inner…]: few, so in double throughout ---- */

struct onnx_loss {
    int at;
    bool softmax, has_ignore;
    enum { MEAN, SUM, NONE } reduction;
    int64_t outer, classes, inner, ignore, labels_per_row;
};

/* A label as index or −1, and its weight. */
static int64_t onnx_label(const struct onnx_loss *k, struct rank *r, const struct tensor *labels,
                          const struct tensor *cw, int64_t i, double *w)
{
    int64_t y = rows_whole(labels, i);
    bool ignored = k->has_ignore && y == k->ignore;
    *w = 0;
    if (!ignored && (y < 0 || y >= k->classes))
        bad_label(r, k->labels_per_row, i);
    if (ignored || y < 0 || y >= k->classes)
        return -1;
    *w = cw ? rows_one(cw, y) : 1;
    return y;
}

/* The column's log Σ exp; 0 where scores are log probabilities already. */
static double onnx_column(const struct onnx_loss *k, const struct tensor *x, int64_t from, double *v)
{
    for (int64_t c = 0; c < k->classes; c++)
        v[c] = rows_one(x, from + c * k->inner);
    if (!k->softmax)
        return 0;
    double max = rows_max_f64(v, k->classes);
    return max + log(rows_sum_exp_f64(v, k->classes, max));
}

static void onnx_loss(const struct step *s, struct rank *r)
{
    const struct onnx_loss *k = s->state;
    const struct tensor *x = s->in[k->at], *labels = s->in[k->at + 1], *cw = optional(s, k->at + 2);
    const struct tensor *dy = k->at ? s->in[0] : NULL;
    struct tensor *dx = k->at ? s->out[0] : NULL, *loss = k->at ? NULL : s->out[0],
                  *logp = k->at || s->n_out < 2 ? NULL : s->out[1];
    double *v = r->scratch, norm = 0, total = 0, w;
    if (k->reduction == MEAN) {
        for (int64_t i = 0; i < k->outer * k->inner; i++)
            onnx_label(k, r, labels, cw, i, &w), norm += w;
        team_sum(r, &norm, 1);
    }
    double share = k->reduction != MEAN ? 1 : norm == 0 ? 0 : 1 / norm;
    for (int64_t i = 0; i < k->outer * k->inner; i++) {
        int64_t from = i / k->inner * k->classes * k->inner + i % k->inner;
        int64_t y = onnx_label(k, r, labels, cw, i, &w);
        double lse = onnx_column(k, x, from, v), one = y < 0 ? 0 : (lse - v[y]) * w * share;
        total += one;
        if (loss && k->reduction == NONE)
            rows_put_f64(loss, i, 1, &one);
        for (int64_t c = 0; c < k->classes && logp; c++)
            rows_put_f64(logp, from + c * k->inner, 1, &(double){ v[c] - lse });
        double f = dx ? share * w * rows_one(dy, k->reduction == NONE ? i : 0) : 0;
        for (int64_t c = 0; c < k->classes && dx; c++)
            rows_put_f64(
                dx, from + c * k->inner, 1,
                &(double){ f == 0 ? 0 : f * ((k->softmax ? exp(v[c] - lse) : 0) - (c == y ? 1 : 0)) });
    }
    if (loss && k->reduction != NONE)
        scalar_put(loss, total);
}

static err bind_onnx(struct bind *b, int at, bool softmax)
{
    const struct tensor *x = bind_in(b, at);
    struct onnx_loss *k = NEW(b->a, struct onnx_loss);
    struct str reduction = attr_s(b->n, "reduction", S("mean"));
    if (!is_float(x))
        return cpu_no_kernel(b);
    *k = (struct onnx_loss){ .at = at, .softmax = softmax, .outer = x->d[0], .classes = x->d[1], .inner = 1 };
    for (int i = 2; i < x->rank; i++)
        k->inner *= x->d[i];
    if (x->n == 0)
        k->outer = 0, k->inner = 1;
    k->has_ignore = attr_find(b->n, "ignore_index");
    k->ignore = attr_i(b->n, "ignore_index", 0);
    k->reduction = str_is(reduction, "mean") ? MEAN : str_is(reduction, "sum") ? SUM : NONE;
    k->labels_per_row = labels_per_row(b, k->outer * k->inner);
    b->step->state = k;
    b->step->run = onnx_loss;
    b->step->whole = true;
    b->step->scratch = (size_t)k->classes * sizeof(double);
    return NULL;
}
static err bind_onnx_softmax(struct bind *b)
{
    return bind_onnx(b, 0, true);
}
static err bind_onnx_nll(struct bind *b)
{
    return bind_onnx(b, 0, false);
}
static err bind_onnx_grad(struct bind *b)
{
    return bind_onnx(b, 1, attr_i(b->n, "softmax", 0) != 0);
}

/* ---- pairs of a group ---- */

/* A group may reach over several ranks, so each rank gets all rows. It makes the gradients of its own, and the losses of the
 * pairs whose more relevant row is its own. */
struct ranking {
    int at;
    bool hinge;
    double margin;
    int64_t rows, all; /* this rank's, the whole batch */
};

/* The loss of a pair whose scores are d apart, and its slope. */
static double pair_loss(const struct ranking *k, double d, double *slope)
{
    if (k->hinge) {
        *slope = d < k->margin ? -1 : 0;
        return d < k->margin ? k->margin - d : 0;
    }
    double e = exp(d < 0 ? d : -d);
    *slope = d < 0 ? -1 / (1 + e) : -e / (1 + e);
    return log1p(e) + (d < 0 ? -d : 0);
}

static void ranking(const struct step *s, struct rank *r)
{
    const struct ranking *k = s->state;
    const struct tensor *x = s->in[k->at], *relevance = s->in[k->at + 1], *groups = s->in[k->at + 2];
    double *score = r->scratch, *rel = score + k->all, *group_low = rel + k->all,
           *group_high = group_low + k->all, *scratch = group_high + k->all;
    memset(score, 0, 4 * (size_t)k->all * sizeof *score);
    double pairs = 0, total = 0, dy = k->at ? rows_one(s->in[0], 0) : 0;
    for (int64_t i = 0, to = r->first; i < k->rows; i++, to++) {
        uint64_t id = (uint64_t)rows_whole(groups, i);
        score[to] = rows_one(x, i), rel[to] = rows_one(relevance, i);
        group_low[to] = (double)(id & 0xffffffffu), group_high[to] = (double)(id >> 32);
    }
    team_sum_f64(r, score, 4 * (size_t)k->all, scratch);
    for (int64_t i = r->first; i < r->first + k->rows; i++)
        for (int64_t j = 0; j < k->all; j++)
            pairs += rel[i] > rel[j] && group_low[i] == group_low[j] && group_high[i] == group_high[j];
    team_sum(r, &pairs, 1);
    double mean = pairs == 0 ? 0 : 1 / pairs;
    for (int64_t i = r->first; i < r->first + k->rows; i++) {
        double d = 0, slope;
        for (int64_t j = 0; j < k->all; j++) {
            if (rel[i] == rel[j] || group_low[i] != group_low[j] || group_high[i] != group_high[j])
                continue;
            if (rel[i] > rel[j]) {
                total += pair_loss(k, score[i] - score[j], &slope);
                d += slope;
            } else if (rel[i] < rel[j]) {
                pair_loss(k, score[j] - score[i], &slope);
                d -= slope;
            }
        }
        if (k->at)
            rows_put_f64(s->out[0], i - r->first, 1, &(double){ d * mean * dy });
    }
    if (!k->at)
        scalar_put(s->out[0], total * mean);
}

static err bind_ranking_at(struct bind *b, int at)
{
    const struct tensor *x = bind_in(b, at);
    struct ranking *k = NEW(b->a, struct ranking);
    if (!is_float(x))
        return cpu_no_kernel(b);
    k->at = at;
    k->hinge = attr_i(b->n, "hinge", 0) != 0;
    k->margin = (double)attr_f(b->n, "margin", 1);
    k->rows = x->n;
    k->all = b->rows_all > 0 ? b->rows_all : x->n;
    if (k->rows > k->all)
        return err_new(UNSUPPORTED, "%s '%.*s': its rows are not the batch's", b->step->op->name,
                       STR(b->step->name));
    b->step->state = k;
    b->step->run = ranking;
    b->step->whole = true;
    b->step->scratch = 8 * (size_t)k->all * sizeof(double);
    return NULL;
}
static err bind_ranking(struct bind *b)
{
    return bind_ranking_at(b, 0);
}
static err bind_ranking_grad(struct bind *b)
{
    return bind_ranking_at(b, 1);
}

/* ---- triplets ---- */

/* As of pairs: each rank gets all rows, and makes the losses of the pairs whose first is its own. Their gradients go to rows of any
 * rank, so they are summed over the team. Schroff, Kalenichenko & Philbin 2015, with distances that are not squared. */
struct triplet {
    int at;
    double margin;
    int64_t rows, all, columns;
};
struct negative {
    double far; /* from the row that it is a negative of */
    int64_t row;
};

static int by_far(const void *a, const void *b)
{
    const struct negative *x = a, *y = b;
    return x->far != y->far ? (x->far > y->far) - (x->far < y->far) : (x->row > y->row) - (x->row < y->row);
}

/* v by columns, [columns, all]: the inner loop goes over rows, which are many. */
static void distances(const struct triplet *k, const double *v, int64_t i, double *out)
{
    memset(out, 0, (size_t)k->all * sizeof *out);
    for (int64_t c = 0; c < k->columns; c++) {
        const double *column = v + c * k->all, own = column[i];
        for (int64_t j = 0; j < k->all; j++)
            out[j] += (column[j] - own) * (column[j] - own);
    }
    for (int64_t j = 0; j < k->all; j++)
        out[j] = sqrt(out[j]);
}

/* The nearest that is farther than `near`, or else the farthest. n > 0, by distance. */
static const struct negative *semi_hard(const struct negative *v, int64_t n, double near)
{
    int64_t low = 0, high = n - 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (v[middle].far > near)
            high = middle;
        else
            low = middle + 1;
    }
    return &v[low];
}

/* d of |xi − xj| to both, times f; nothing where they are one. */
static void pull(const struct triplet *k, const double *v, double *d, int64_t i, int64_t j, double distance,
                 double f)
{
    for (int64_t c = 0; c < k->columns && distance > 0; c++) {
        double slope = f * (v[c * k->all + i] - v[c * k->all + j]) / distance;
        d[c * k->all + i] += slope;
        d[c * k->all + j] -= slope;
    }
}

static void triplet(const struct step *s, struct rank *r)
{
    const struct triplet *k = s->state;
    const struct tensor *x = s->in[k->at], *labels = s->in[k->at + 1];
    const int64_t n = k->all, numbers = n * (k->columns + 1);
    double *v = r->scratch, *label = v + n * k->columns, *far = label + n, *scratch = far + n,
           *d = scratch + numbers;
    struct negative *negatives = (struct negative *)(d + numbers);
    double total = 0, pairs = 0, dy = k->at ? rows_one(s->in[0], 0) : 0;
    memset(v, 0, (size_t)numbers * sizeof *v);
    memset(d, 0, (size_t)numbers * sizeof *d);
    for (int64_t i = 0; i < k->rows; i++) {
        const double *row = rows_get_f64(x, i * k->columns, k->columns, scratch);
        for (int64_t c = 0; c < k->columns; c++)
            v[c * n + r->first + i] = row[c];
        label[r->first + i] = (double)rows_whole(labels, i); /* classes: far below 2^53 */
    }
    team_sum_f64(r, v, (size_t)numbers, scratch);
    for (int64_t i = r->first; i < r->first + k->rows; i++) {
        int64_t others = 0;
        distances(k, v, i, far);
        for (int64_t j = 0; j < n; j++)
            if (label[j] != label[i])
                negatives[others++] = (struct negative){ far[j], j };
        if (others == 0)
            continue;
        qsort(negatives, (size_t)others, sizeof *negatives, by_far);
        for (int64_t j = 0; j < n; j++) {
            if (j == i || label[j] != label[i])
                continue;
            const struct negative *other = semi_hard(negatives, others, far[j]);
            double loss = far[j] - other->far + k->margin;
            pairs++;
            if (loss <= 0)
                continue;
            total += loss;
            if (k->at) {
                pull(k, v, d, i, j, far[j], 1);
                pull(k, v, d, i, other->row, other->far, -1);
            }
        }
    }
    team_sum(r, &pairs, 1);
    double mean = pairs == 0 ? 0 : 1 / pairs;
    if (!k->at) {
        scalar_put(s->out[0], total * mean);
        return;
    }
    team_sum_f64(r, d, (size_t)(n * k->columns), scratch);
    for (int64_t i = 0; i < k->rows; i++)
        for (int64_t c = 0; c < k->columns; c++)
            rows_put_f64(s->out[0], i * k->columns + c, 1, &(double){ d[c * n + r->first + i] * mean * dy });
}

static err bind_triplet_at(struct bind *b, int at)
{
    const struct tensor *x = bind_in(b, at);
    struct triplet *k = NEW(b->a, struct triplet);
    if (!is_float(x))
        return cpu_no_kernel(b);
    *k = (struct triplet){ at, (double)attr_f(b->n, "margin", 1), x->d[0], x->d[0], x->d[1] };
    if (b->rows_all > 0)
        k->all = b->rows_all;
    if (k->rows > k->all)
        return err_new(UNSUPPORTED, "%s '%.*s': its rows are not the batch's", b->step->op->name,
                       STR(b->step->name));
    b->step->state = k;
    b->step->run = triplet;
    b->step->whole = true;
    /* Points and labels, and the same again as scratch and as gradients; distances; negatives. */
    b->step->scratch = (size_t)k->all * (3 * (size_t)k->columns + 4) * sizeof(double) +
                       (size_t)k->all * sizeof(struct negative);
    return NULL;
}
static err bind_triplet(struct bind *b)
{
    return bind_triplet_at(b, 0);
}
static err bind_triplet_grad(struct bind *b)
{
    return bind_triplet_at(b, 1);
}

#define K(op, fn, in_place) { OP_##op, fn, in_place },
const struct cpu_group SIMD(loss_group) = { { LOSS_KERNELS(K){ 0 } } };
#undef K
