// SPDX-License-Identifier: Apache-2.0
/* Predictions by entity key: the online rows, read on this thread, are the model's input. */
#include "serve/infer.h"

static int64_t *times_of(struct infer *c, const struct columns *cols, const struct plan_binding *b)
{
    const struct plan_input *in;
    size_t n = feature_plan_inputs(c->entry->plan->plan, &in);
    for (size_t i = 0; i < n; i++) {
        if (!in[i].time || b->at[i] < 0)
            continue;
        const struct column *col = &cols->v[b->at[i]];
        if (!col->i)
            return NULL;
        int64_t *at = NEW_N(c->a, int64_t, c->n);
        for (size_t r = 0; r < c->n; r++)
            at[r] = column_null(col, r) ? c->now : col->i[r];
        return at;
    }
    return NULL;
}

/* Room for one row, or for all of them if they are to be returned. */
static struct plan_row *rows_new(struct infer *c, size_t n, size_t features, size_t views)
{
    struct plan_row *rows = NEW_N(c->a, struct plan_row, n);
    double *values = NEW_N(c->a, double, n *features);
    uint8_t *status = NEW_N(c->a, uint8_t, n * views + 1);
    int64_t *known_at = NEW_N(c->a, int64_t, n * views + 1);
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct plan_row){ values + i * features, status + i * views, known_at + i * views };
    return rows;
}

err keys_take(struct infer *c)
{
    const struct plan *plan_of = c->entry->plan;
    const struct feature_plan *plan = plan_of ? plan_of->plan : NULL;
    const struct str *names;
    struct columns cols;
    struct plan_binding binding;
    if (!plan || c->to->unfit.n)
        FAIL(UNAVAILABLE, "requests by key are not answered: %.*s",
             STR(c->to->unfit.n ? c->to->unfit : S("no feature service")));
    TRY(feature_plan_read(plan, c->a, S("entities"), c->entities, &cols));
    TRY(feature_plan_bind(plan, &cols, &binding));
    c->n = cols.rows;
    c->features = feature_plan_features(plan, &names);
    size_t views = feature_plan_views(plan, &names);
    if (!c->n)
        FAIL(INVALID, "entities has no rows");
    if (c->n > CELLS_MAX / c->features)
        FAIL(TOO_LARGE, "%zu rows of %zu features are more than %d values", c->n, c->features, CELLS_MAX);
    bool keep = c->p.return_features;
    struct plan_row *rows = rows_new(c, keep ? c->n : 1, c->features, views);
    float *x = NEW_N(c->a, float, c->n * c->features);
    c->event_at = times_of(c, &cols, &binding);
    TRY(plan_read(c->s, plan_of, &cols, &binding, c->now, rows, keep, x, &c->missing));
    size_t texts = c->to->model->texts;
    struct str *text = NEW_N(c->a, struct str, c->n * texts + 1);
    for (size_t r = 0; texts && r < c->n; r++)
        feature_plan_row_texts(plan, &cols, &binding, r, text + r * texts);
    c->x = x;
    c->rows = keep ? rows : NULL;
    c->in[0] = (struct tensor){ .type = TENSOR_F32,
                                .rank = 2,
                                .dims = { (int64_t)c->n, (int64_t)c->features },
                                .data = x,
                                .bytes = c->n * c->features * sizeof *x };
    if (texts)
        c->in[1] = (struct tensor){ .slot = 1,
                                    .type = TENSOR_TEXT,
                                    .rank = 2,
                                    .dims = { (int64_t)c->n, (int64_t)texts },
                                    .data = text,
                                    .bytes = c->n * texts * sizeof *text };
    return NULL;
}
