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
    for (; out->n < MEASURES_MAX && m->kind->names[out->n].n; out->n++) {
        out->name[out->n] = m->kind->names[out->n];
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

err measure_choose(const struct train_set *s, struct str name, struct str *out, bool *more)
{
    const struct str *names = kind_of(&s->task)->names;
    *out = name.n ? name : names[0];
    for (size_t i = 0; i < MEASURES_MAX && names[i].n; i++)
        if (str_eq(names[i], *out)) {
            *more = meter_find(names[i])->more_is_better;
            return NULL;
        }
    FAIL(INVALID, "'%.*s' is not measured in this task", STR(name));
}
