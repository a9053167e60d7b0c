// SPDX-License-Identifier: Apache-2.0
/* Measures on the rows held out, by the names that trees and gates use. Two classes: by engine/metrics.h over all scores; else
 * sums that are made row by row. */
#include "train/trainer_internal.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS_MAX = 1 << 28 };

struct measuring {
    const struct train_set *set;
    struct arena *a;                                   /* of the scores, emptied by reset */
    VEC(float) p, y;                                   /* two classes */
    double loss, squares, absolutes, sum, sum_squares; /* sums over predictions */
    int64_t n, right;
    int64_t *hits, *claims, *there; /* by class: right ones, predictions, labels */
    double bin_p[10], bin_right[10];
};

static bool many_classes(const struct net_task *t)
{
    return t->kind == TASK_LANGUAGE || (t->kind == TASK_CLASSIFICATION && !t->binary);
}

static void scores_free(void *a)
{
    arena_free(a);
}

err measuring_new(struct arena *a, const struct train_set *set, struct measuring **out)
{
    struct measuring *m = NEW(a, struct measuring);
    m->set = set;
    m->a = arena_new(0);
    arena_defer(a, scores_free, m->a);
    int64_t classes = many_classes(&set->task) ? set->task.outputs : 0;
    m->hits = NEW_N(a, int64_t, classes + 1);
    m->claims = NEW_N(a, int64_t, classes + 1);
    m->there = NEW_N(a, int64_t, classes + 1);
    *out = m;
    return NULL;
}

void measuring_reset(struct measuring *m)
{
    size_t classes = many_classes(&m->set->task) ? (size_t)m->set->task.outputs : 0;
    struct measuring to = {
        .set = m->set, .a = m->a, .hits = m->hits, .claims = m->claims, .there = m->there
    };
    arena_reset(m->a);
    memset(m->hits, 0, classes * sizeof *m->hits);
    memset(m->claims, 0, classes * sizeof *m->claims);
    memset(m->there, 0, classes * sizeof *m->there);
    *m = to;
}

static int64_t best_of(const float *p, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (p[i] > p[best])
            best = i;
    return best;
}

/* −log softmax(z)[label]. */
static double softmax_loss(const float *z, int64_t n, int64_t label)
{
    double max = z[best_of(z, n)], sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp(z[i] - max);
    return log(sum) + max - z[label];
}

static void class_add(struct measuring *m, const float *p, int64_t label)
{
    const struct net_task *t = &m->set->task;
    int64_t n = t->outputs, best = best_of(p, n);
    if (label < 0 || label >= n)
        return;
    bool right = best == label;
    m->n++;
    m->right += right;
    m->hits[label] += right;
    m->claims[best]++;
    m->there[label]++;
    if (t->kind == TASK_LANGUAGE) {
        m->loss += softmax_loss(p, n, label);
        return;
    }
    double q = p[label] < 1e-7f ? 1e-7 : p[label], top = p[best];
    int bin = (int)ceil(top * 10) - 1;
    m->loss -= log(q);
    m->bin_p[bin < 0 ? 0 : bin > 9 ? 9 : bin] += top;
    m->bin_right[bin < 0 ? 0 : bin > 9 ? 9 : bin] += right;
}

static void number_add(struct measuring *m, double p, double y)
{
    double e = p - y;
    m->n++;
    m->squares += e * e;
    m->absolutes += fabs(e);
    m->sum += y;
    m->sum_squares += y * y;
}

void measuring_add(struct measuring *m, const float *p, const void *label, const float *inputs, int64_t rows)
{
    const struct train_set *s = m->set;
    const struct net_task *t = &s->task;
    const int64_t *ids = label;
    int64_t n = rows * s->row_elements;
    if (many_classes(t)) {
        for (int64_t i = 0; i < n; i++)
            class_add(m, p + i * t->outputs, ids[i]);
        return;
    }
    for (int64_t i = 0; t->binary && i < n && m->p.n < ROWS_MAX; i++) {
        push(m->a, &m->p, p[i]);
        push(m->a, &m->y, (float)ids[i]);
    }
    const float *y = t->kind == TASK_AUTOENCODER ? inputs : label;
    for (int64_t i = 0; !t->binary && i < n * t->outputs; i++)
        number_add(m, p[i], y[i]);
}

static void measure(struct measures *out, struct str name, double v)
{
    if (out->n < MEASURES_MAX) {
        out->name[out->n] = name;
        out->value[out->n++] = v;
    }
}

static void classes_end(const struct measuring *m, struct measures *out)
{
    const struct net_task *t = &m->set->task;
    double n = (double)m->n, f1 = 0, gap = 0;
    int64_t seen = 0;
    measure(out, S("logLoss"), m->loss / n);
    measure(out, S("accuracy"), (double)m->right / n);
    if (t->kind == TASK_LANGUAGE) {
        measure(out, S("perplexity"), exp(m->loss / n));
        return;
    }
    for (int64_t i = 0; i < t->outputs; i++) {
        double both = (double)(m->claims[i] + m->there[i]);
        if (m->there[i] == 0)
            continue;
        seen++;
        f1 += both > 0 ? 2 * (double)m->hits[i] / both : 0;
    }
    for (int i = 0; i < 10; i++)
        gap += fabs(m->bin_p[i] - m->bin_right[i]);
    measure(out, S("f1"), f1 / (double)(seen ? seen : 1)); /* the mean over classes */
    measure(out, S("calibrationError"), gap / n);
}

void measuring_end(struct measuring *m, struct measures *out)
{
    const struct net_task *t = &m->set->task;
    *out = (struct measures){ 0 };
    if (many_classes(t)) {
        classes_end(m, out);
    } else if (t->binary) {
        auto_arena struct arena *scratch = arena_new(0);
        for (size_t i = 0; i < metric_table_n; i++)
            measure(out, metric_table[i].name, metric_table[i].of(scratch, m->p.v, m->y.v, m->p.n));
    } else {
        double n = (double)m->n, mean = m->sum / n, around = m->sum_squares - n * mean * mean;
        measure(out, S("rmse"), sqrt(m->squares / n));
        measure(out, S("mae"), m->absolutes / n);
        if (t->kind != TASK_AUTOENCODER)
            measure(out, S("r2"), 1 - m->squares / around);
    }
}

double measure_of(const struct measures *m, struct str name)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_eq(m->name[i], name))
            return m->value[i];
    return NAN;
}

err measure_choose(const struct train_set *s, struct str name, struct str *out, bool *more)
{
    const struct net_task *t = &s->task;
    bool classes = t->kind == TASK_CLASSIFICATION || t->kind == TASK_LANGUAGE;
    static const struct str of_classes[] = { S_INIT("logLoss"), S_INIT("accuracy"), S_INIT("f1"),
                                             S_INIT("calibrationError"), S_INIT("perplexity") },
                            of_numbers[] = { S_INIT("rmse"), S_INIT("mae"), S_INIT("r2") };
    if (!name.n)
        name = classes ? S("logLoss") : S("rmse");
    *out = name;
    const struct metric_info *info = t->binary ? metric_find(name) : NULL;
    if (info) {
        *more = info->more_is_better;
        return NULL;
    }
    const struct str *list = classes ? of_classes : of_numbers;
    for (size_t i = 0; !t->binary && i < (classes ? sizeof of_classes : sizeof of_numbers) / sizeof *list;
         i++)
        if (str_eq(list[i], name)) {
            *more = str_is(name, "accuracy") || str_is(name, "f1") || str_is(name, "r2");
            return NULL;
        }
    FAIL(INVALID, "'%.*s' is not measured in this task", STR(name));
}
