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
    { METER_RANKING, { S_INIT("pairAccuracy"), S_INIT("ndcg") } },
    { METER_POINTS, { S_INIT("recallAt1"), S_INIT("recallAt5") } },
};

enum meter_task measure_task(const struct net_task *t)
{
    static const enum meter_task tasks[] = {
        [TASK_CLASSIFICATION] = METER_CLASSES, [TASK_REGRESSION] = METER_NUMBERS,
        [TASK_LANGUAGE] = METER_TOKENS,        [TASK_AUTOENCODER] = METER_NUMBERS,
        [TASK_RANKING] = METER_RANKING,        [TASK_EMBEDDING] = METER_POINTS,
    };
    return t->binary ? METER_BINARY : tasks[t->kind];
}

static const struct kind *kind_of(const struct net_task *t)
{
    const struct kind *k = kinds;
    while (k->task != measure_task(t))
        k++;
    return k;
}

const char *measure_name(struct arena *a, const char *part, struct str name)
{
    return fmtz(a, "%s.%.*s", part, STR(str_is(name, "logLoss") ? S("logloss") : name));
}

const char *loss_name(const struct net_task *t)
{
    return t->kind == TASK_CLASSIFICATION || t->kind == TASK_LANGUAGE ? "train.logloss" : "train.loss";
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
    void *y; /* labels, as the meter takes them */
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

static void *room_for(struct measuring *m, int64_t n, size_t size)
{
    if (n > m->room) {
        m->room = n;
        m->y = arena_alloc(m->a, arena_mul((size_t)n, size), 16);
    }
    return m->y;
}

static const float *labels_of(struct measuring *m, const int64_t *ids, int64_t n)
{
    float *y = room_for(m, n, sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)ids[i];
    return y;
}

static const struct meter_ranked *ranked_of(struct measuring *m, const float *relevance,
                                            const int64_t *groups, int64_t n)
{
    struct meter_ranked *y = room_for(m, n, sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = (struct meter_ranked){ relevance[i], groups[i] };
    return y;
}

/* What an autoencoder should give back: its inputs side by side. */
static const float *inputs_of(struct measuring *m, const void *const *batch, int64_t rows)
{
    const struct train_set *s = m->set;
    int64_t width = s->task.outputs, at = 0;
    float *y = room_for(m, rows * width, sizeof *y);
    for (size_t i = 0; i < s->n_in; i++) {
        int64_t n = s->t[s->tensor[i]].n;
        for (int64_t r = 0; r < rows; r++)
            memcpy(y + r * width + at, (const float *)batch[s->tensor[i]] + r * n, (size_t)n * sizeof *y);
        at += n;
    }
    return y;
}

err measuring_add(struct measuring *m, const float *p, const void *const *batch, int64_t rows)
{
    const struct train_set *s = m->set;
    const struct net_task *t = &s->task;
    int64_t n = rows * s->row_elements;
    const void *label = s->label < 0 ? NULL : batch[s->label];
    const void *y = t->binary                     ? labels_of(m, label, n)
                    : t->kind == TASK_RANKING     ? ranked_of(m, label, batch[s->group], n)
                    : t->kind == TASK_AUTOENCODER ? inputs_of(m, batch, rows)
                                                  : label;
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
