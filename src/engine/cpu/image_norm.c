// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/image.h"
#include "engine/cpu/image_rows.h"

#include <math.h>

/* Batch normalisation over the rows of all ranks. What is summed lies in doubles, so that its order over ranks does not show. */
struct norm_step {
    struct picture p;
    const struct image_kernels *k;
    const struct image_rows *rows; /* channels lie last, in F32 or BF16; else NULL */
    int64_t pixels;
    double epsilon, momentum;
    bool training, relu, half;
};

static double number_at(const struct tensor *t, int64_t i)
{
    return t->type == TENSOR_F64 ? ((const double *)t->p)[i] : (double)((const float *)t->p)[i];
}

static void put_number(const struct tensor *t, int64_t i, double x)
{
    if (t->type == TENSOR_F64)
        ((double *)t->p)[i] = x;
    else
        ((float *)t->p)[i] = (float)x;
}

/* Over all ranks, some at a time. */
static void sum_all(struct rank *r, double *v, int64_t n)
{
    if (r->size < 2)
        return;
    for (int64_t i = 0; i < n; i += TEAM_SUM_MAX)
        team_sum(r, v + i, (size_t)(n - i < TEAM_SUM_MAX ? n - i : TEAM_SUM_MAX));
}

static struct tensor *out_at(const struct step *s, int i)
{
    return i < s->n_out ? s->out[i] : NULL;
}

/* n doubles as floats, at place i of those at `to`; v becomes what was rounded. */
static const float *rounded(double *to, int i, double *v, int64_t n)
{
    float *f = (float *)(void *)to + i * n;
    for (int64_t c = 0; c < n; c++)
        v[c] = (double)(f[c] = (float)v[c]);
    return f;
}

/* Mean and variance of each channel over all ranks. Sums are taken about a pivot near the mean, so that squares do not
 * drown the variance: the running mean is one that all ranks know. */
static void statistics(const struct step *s, struct rank *r, const void *x, double *mean, double *variance,
                       double *sums)
{
    const struct norm_step *v = s->state;
    const int64_t c_n = v->p.c;
    for (int64_t c = 0; c < c_n; c++)
        mean[c] = number_at(s->in[3], c);
    if (v->rows)
        v->rows->moments(v->half, v->pixels, c_n, x, rounded(sums + 2 * c_n + 1, 0, mean, c_n), sums);
    else
        v->k->moments(&v->p, x, mean, sums);
    sums[2 * c_n] = (double)picture_pixels(&v->p);
    sum_all(r, sums, 2 * c_n + 1);
    const double n = sums[2 * c_n];
    for (int64_t c = 0; c < c_n; c++) {
        double m = sums[2 * c] / n, q = sums[2 * c + 1] / n - m * m;
        mean[c] += m;
        variance[c] = q > 0 || q != q ? q : 0;
    }
}

static void run_batch_norm(const struct step *s, struct rank *r)
{
    const struct norm_step *v = s->state;
    const int64_t c_n = v->p.c;
    double *mean = r->scratch, *variance = mean + c_n, *by = variance + c_n, *plus = by + c_n,
           *sums = plus + c_n;
    if (v->training)
        statistics(s, r, s->in[0]->p, mean, variance, sums);
    for (int64_t c = 0; c < c_n; c++) {
        if (!v->training) {
            mean[c] = number_at(s->in[3], c);
            variance[c] = number_at(s->in[4], c);
        }
        by[c] = number_at(s->in[1], c) / sqrt(variance[c] + v->epsilon);
        plus[c] = number_at(s->in[2], c) - mean[c] * by[c];
        const double keep = v->training ? v->momentum : 1;
        if (out_at(s, 1))
            put_number(out_at(s, 1), c, keep * number_at(s->in[3], c) + (1 - keep) * mean[c]);
        if (out_at(s, 2))
            put_number(out_at(s, 2), c, keep * number_at(s->in[4], c) + (1 - keep) * variance[c]);
        if (out_at(s, 3))
            put_number(out_at(s, 3), c, mean[c]);
        if (out_at(s, 4))
            put_number(out_at(s, 4), c, variance[c]);
    }
    const struct tensor *addend = s->n_in > 5 ? s->in[5] : NULL;
    if (v->rows) {
        double *f = sums + 2 * c_n + 1;
        const float *fb = rounded(f, 0, by, c_n), *fp = rounded(f, 1, plus, c_n);
        v->rows->norm(v->half, v->pixels, c_n, s->in[0]->p, fb, fp, addend ? addend->p : NULL, v->relu,
                      s->out[0]->p);
        return;
    }
    v->k->norm(&v->p, s->in[0]->p, by, plus, addend ? addend->p : NULL, v->relu, s->out[0]->p);
}

static void run_batch_norm_grad(const struct step *s, struct rank *r)
{
    const struct norm_step *v = s->state;
    const int64_t c_n = v->p.c;
    double *mean = r->scratch, *by_g = mean + c_n, *by_x = by_g + c_n, *plus = by_x + c_n, *sums = plus + c_n;
    const void *y = s->n_in > 5 && s->in[5] ? s->in[5]->p : NULL;
    for (int64_t c = 0; c < c_n; c++)
        mean[c] = number_at(s->in[3], c);
    double *f = sums + 2 * c_n + 1;
    if (v->rows)
        v->rows->back_sums(v->half, v->pixels, c_n, s->in[0]->p, s->in[1]->p, y, rounded(f, 0, mean, c_n),
                           sums);
    else
        v->k->norm_back_sums(&v->p, s->in[0]->p, s->in[1]->p, y, mean, sums);
    for (int64_t c = 0; c < c_n; c++) {
        const double inv = 1 / sqrt(number_at(s->in[4], c) + v->epsilon);
        by_g[c] = number_at(s->in[2], c) * inv;
        by_x[c] = plus[c] = 0;
        /* Of this rank's rows: whoever adds up the ranks' gradients adds up these. */
        if (out_at(s, 1))
            put_number(out_at(s, 1), c, sums[2 * c + 1] * inv);
        if (out_at(s, 2))
            put_number(out_at(s, 2), c, sums[2 * c]);
    }
    if (v->training) {
        sums[2 * c_n] = (double)picture_pixels(&v->p);
        sum_all(r, sums, 2 * c_n + 1);
        const double n = sums[2 * c_n];
        /* dx = scale · inv · (g − mean(g) − x̂ · mean(g · x̂)), gathered by g and x. */
        for (int64_t c = 0; c < c_n; c++) {
            const double inv2 = 1 / (number_at(s->in[4], c) + v->epsilon);
            by_x[c] = -by_g[c] * inv2 * sums[2 * c + 1] / n;
            plus[c] = -by_g[c] * sums[2 * c] / n - by_x[c] * mean[c];
        }
    }
    void *dx = out_at(s, 0) ? out_at(s, 0)->p : NULL, *dz = out_at(s, 3) ? out_at(s, 3)->p : NULL;
    if (v->rows && dx)
        v->rows->back(v->half, v->pixels, c_n, s->in[0]->p, s->in[1]->p, y, rounded(f, 0, by_g, c_n),
                      rounded(f, 1, by_x, c_n), rounded(f, 2, plus, c_n), dx, dz);
    else if (dx)
        v->k->norm_back(&v->p, s->in[0]->p, s->in[1]->p, y, by_g, by_x, plus, dx, dz);
}

/* Kernels over rows of channels, or those for any strides. */
static bool rows_fit(const struct bind *b, const struct tensor *x)
{
    if ((x->type != TENSOR_F32 && x->type != TENSOR_BF16) || !(x->nhwc || x->rank == 2))
        return false;
    for (int i = 0; i < b->step->n_in; i++) {
        const struct tensor *t = bind_in(b, i);
        if (t && t->n == x->n && t->rank == x->rank && (t->type != x->type || t->nhwc != x->nhwc))
            return false;
    }
    return true;
}

static err norm_of(struct bind *b, const struct tensor *x)
{
    struct norm_step *v = NEW(b->a, struct norm_step);
    v->p = picture_of(x);
    v->k = image_reference(x->type);
    v->epsilon = (double)attr_f(b->n, "epsilon", 1e-5f);
    v->momentum = (double)attr_f(b->n, "momentum", 0.9f);
    v->training = attr_i(b->n, "training_mode", 0) != 0;
    v->relu = attr_i(b->n, "act", 0) != 0;
    v->pixels = picture_pixels(&v->p);
    v->half = x->type == TENSOR_BF16;
    if (x->rank > 2 + WINDOW_AXES)
        return cpu_no_kernel(b);
    if (rows_fit(b, x))
        v->rows = SIMD_PICK(image_rows);
    b->step->state = v;
    b->step->scratch = (size_t)(8 * v->p.c + 2) * sizeof(double);
    return v->k || v->rows ? NULL : cpu_no_kernel(b);
}

static err exact_types(const struct bind *b, int from, int to)
{
    for (int i = from; i < to; i++) {
        const struct tensor *t = bind_in(b, i);
        if (t && t->type != TENSOR_F32 && t->type != TENSOR_F64)
            return cpu_no_kernel(b);
    }
    return NULL;
}

err bind_batch_norm(struct bind *b)
{
    if (any_half(b) && !rows_fit(b, bind_in(b, 0)))
        return bind_widened(b, bind_batch_norm);
    TRY(exact_types(b, 1, 5));
    TRY(norm_of(b, bind_in(b, 0)));
    b->step->run = run_batch_norm;
    b->step->whole = true;
    return NULL;
}

err bind_batch_norm_grad(struct bind *b)
{
    if (any_half(b) && !rows_fit(b, bind_in(b, 1)))
        return bind_widened(b, bind_batch_norm_grad);
    TRY(exact_types(b, 2, 5));
    TRY(norm_of(b, bind_in(b, 1)));
    b->step->run = run_batch_norm_grad;
    b->step->whole = true;
    return NULL;
}
