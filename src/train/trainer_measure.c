// SPDX-License-Identifier: Apache-2.0
/* Measures on the rows held out, by the names that trees and gates use: which ones a task has; engine/stream_metrics.h counts. */
#include "train/trainer_internal.h"

#include <math.h>

static const struct kind {
    enum meter_task task;
    struct str names[MEASURES_MAX]; /* the first is what is watched where the form says nothing */
} kinds[] = {
    { METER_BINARY,
      { S_INIT("logLoss"), S_INIT("auc"), S_INIT("calibrationError"), S_INIT("rmse"), S_INIT("accuracy"),
        S_INIT("averagePrecision") } },
    { METER_CLASSES, { S_INIT("logLoss"), S_INIT("accuracy"), S_INIT("f1"), S_INIT("calibrationError") } },
    { METER_TOKENS, { S_INIT("logLoss"), S_INIT("accuracy"), S_INIT("perplexity") } },
    { METER_NUMBERS, { S_INIT("rmse"), S_INIT("mae"), S_INIT("r2") } },
};

static const struct kind *kind_of(const struct net_task *t)
{
    return &kinds[t->kind == TASK_LANGUAGE ? 2 : t->kind != TASK_CLASSIFICATION ? 3 : t->binary ? 0 : 1];
}

/* "auc, logLoss, …": what a task has. */
static struct str names_of(struct arena *a, enum meter_task task)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < meter_table_n; i++)
        if (meter_table[i].tasks & task)
            buf_fmt(&b, "%s%.*s", b.n ? ", " : "", STR(meter_table[i].name));
    return buf_get(&b);
}

static err measure_add(struct train_set *s, const char *key, struct str name)
{
    const enum meter_task task = kind_of(&s->task)->task;
    const struct meter_metric *m = meter_find(name);
    if (!m || !(m->tasks & task)) {
        auto_arena struct arena *a = arena_new(0);
        return err_hint(err_new(INVALID, "%s: '%.*s' is not measured in this task", key, STR(name)),
                        "it has %.*s", STR(names_of(a, task)));
    }
    for (size_t i = 0; i < s->n_measured; i++)
        if (str_eq(s->measured[i], name))
            return NULL;
    if (s->n_measured == MEASURES_MAX)
        FAIL(TOO_LARGE, "%s: more than %d are measured", key, MEASURES_MAX);
    s->measured[s->n_measured++] = m->name;
    return NULL;
}

err measures_find(struct train_set *s, const struct train_with *w)
{
    const struct kind *k = kind_of(&s->task);
    for (size_t i = 0; i < MEASURES_MAX && k->names[i].n; i++)
        TRY(measure_add(s, "metrics", k->names[i]));
    for (size_t i = 0; i < w->metrics.n; i++)
        TRY(measure_add(s, "metrics", w->metrics.v[i]));
    return w->early_stop.metric.n ? measure_add(s, "earlyStop.metric", w->early_stop.metric) : NULL;
}

struct measuring {
    const struct train_set *set;
    const struct kind *kind;
    struct meter *meter;
    struct arena *a;
    float *y; /* of two classes, as the meter takes them */
    int64_t room;
};

err measuring_new(struct arena *a, const struct train_set *set, struct measuring **out)
{
    struct measuring *m = NEW(a, struct measuring);
    *m = (struct measuring){ .set = set, .kind = kind_of(&set->task), .a = a };
    TRY(meter_new(a, &(struct meter_spec){ .task = m->kind->task, .classes = set->task.outputs }, &m->meter));
    *out = m;
    return NULL;
}

void measuring_reset(struct measuring *m)
{
    meter_reset(m->meter);
}

static const float *labels_of(struct measuring *m, const int64_t *ids, int64_t n)
{
    if (n > m->room) {
        m->room = n;
        m->y = NEW_N(m->a, float, n);
    }
    for (int64_t i = 0; i < n; i++)
        m->y[i] = (float)ids[i];
    return m->y;
}

err measuring_add(struct measuring *m, const float *p, const void *label, const float *inputs, int64_t rows)
{
    const struct net_task *t = &m->set->task;
    int64_t n = rows * m->set->row_elements;
    const void *y = t->kind == TASK_AUTOENCODER ? inputs : t->binary ? labels_of(m, label, n) : label;
    return meter_add(m->meter, p, y, (size_t)(n * (m->kind->task == METER_NUMBERS ? t->outputs : 1)));
}

void measuring_end(struct measuring *m, struct measures *out)
{
    *out = (struct measures){ 0 };
    for (; out->n < m->set->n_measured; out->n++) {
        out->name[out->n] = m->set->measured[out->n];
        out->value[out->n] = meter_value(m->meter, out->name[out->n]);
    }
}

double measure_of(const struct measures *m, struct str name)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_eq(m->name[i], name))
            return m->value[i];
    return NAN;
}

struct str measure_watched(const struct train_set *s, struct str name, bool *more)
{
    const struct meter_metric *m = meter_find(name.n ? name : s->measured[0]);
    *more = m->more_is_better;
    return m->name;
}
