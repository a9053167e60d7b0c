// SPDX-License-Identifier: Apache-2.0
/* Ensembles: a graph of deployments and look-ups of features behind the face of one model: a session whose run is its
 * steps, so that all that knows models (metadata, queue, counts, protocols) knows ensembles. A step is a request of its
 * own to its deployment, which may be an ensemble itself: traffic chooses its version, and it is counted, logged and
 * observed there. Tensors go from step to step by pointer. */
#include "serve/policy.h"
#include <stdlib.h>

enum {
    STEPS_MAX = 32,
    NAMES_MAX = 256,
    DEEP_MAX = 8,     /* ensembles in one another */
    PICKS_MAX = 1024, /* models that one request asks */
};

/* ---- the graph ---- */

struct wire {
    struct str theirs; /* the name of an input or output there */
    size_t at;         /* of the tensor here */
};
struct step {
    struct str name, deployment, service;
    struct plan *plan; /* of a look-up */
    struct wire *in, *out;
    size_t in_n, out_n;
};
struct wiring {
    struct str names[NAMES_MAX]; /* of tensors */
    int8_t maker[NAMES_MAX];     /* step that makes it; -1: the request */
    bool taken[NAMES_MAX];
    size_t names_n;
    struct step step[STEPS_MAX];
    size_t steps_n, order[STEPS_MAX];
    size_t answer[TENSORS_MAX], answer_n; /* tensors that are the answer */
};

static err tensor_at(struct wiring *g, struct str name, size_t *out)
{
    size_t i = 0;
    while (i < g->names_n && !str_eq(g->names[i], name))
        i++;
    if (i == NAMES_MAX)
        FAIL(TOO_LARGE, "an ensemble has at most %d tensors", NAMES_MAX);
    if (i == g->names_n) {
        g->names[i] = name;
        g->maker[i] = -1;
        g->names_n++;
    }
    *out = i;
    return NULL;
}

static err wires_read(struct wiring *g, struct arena *a, const struct pairs *in, struct wire **out, size_t *n)
{
    *out = NEW_N(a, struct wire, in->n + 1);
    *n = in->n;
    for (size_t i = 0; i < in->n; i++) {
        (*out)[i].theirs = str_dup(a, in->v[i].key);
        TRY(tensor_at(g, str_dup(a, in->v[i].value), &(*out)[i].at));
    }
    return NULL;
}

static err step_read(struct wiring *g, struct arena *a, const struct ensemble_step *in)
{
    size_t n = g->steps_n++;
    struct step *s = &g->step[n];
    s->name = in->name.n ? str_dup(a, in->name) : fmt(a, "%zu", n + 1);
    s->deployment = str_dup(a, in->deployment);
    s->service = str_dup(a, in->features);
    for (size_t i = 0; i < n; i++)
        if (str_eq(g->step[i].name, s->name))
            FAIL(INVALID, "step '%.*s' is there twice", STR(s->name));
    if (!in->deployment.n == !in->features.n)
        FAIL(INVALID, "step '%.*s' names either a deployment or features", STR(s->name));
    if (!in->inputs.n || !in->outputs.n)
        FAIL(INVALID, "step '%.*s' has no inputs or no outputs", STR(s->name));
    TRY(wires_read(g, a, &in->inputs, &s->in, &s->in_n));
    TRY(wires_read(g, a, &in->outputs, &s->out, &s->out_n));
    for (size_t i = 0; i < s->in_n; i++)
        g->taken[s->in[i].at] = true;
    for (size_t i = 0; i < s->out_n; i++) {
        size_t at = s->out[i].at;
        if (g->maker[at] >= 0)
            FAIL(INVALID, "steps '%.*s' and '%.*s' both make '%.*s'", STR(g->step[g->maker[at]].name),
                 STR(s->name), STR(g->names[at]));
        g->maker[at] = (int8_t)n;
    }
    return NULL;
}

/* Are all tensors that step n takes there, once the steps in done have run? */
static bool may_run(const struct wiring *g, size_t n, uint64_t done)
{
    for (size_t i = 0; i < g->step[n].in_n; i++) {
        int8_t maker = g->maker[g->step[n].in[i].at];
        if (maker >= 0 && !(done >> maker & 1))
            return false;
    }
    return true;
}

static err order_find(struct wiring *g)
{
    uint64_t done = 0;
    for (size_t k = 0; k < g->steps_n; k++) {
        size_t n = 0;
        while (n < g->steps_n && (done >> n & 1 || !may_run(g, n, done)))
            n++;
        for (size_t i = 0; n == g->steps_n && i < g->steps_n; i++)
            if (!(done >> i & 1))
                FAIL(INVALID, "step '%.*s' waits for itself: its inputs come from steps that wait for it",
                     STR(g->step[i].name));
        g->order[k] = n;
        done |= (uint64_t)1 << n;
    }
    return NULL;
}

static err answer_find(struct wiring *g, const struct strs *want)
{
    for (size_t i = 0; i < want->n; i++) {
        size_t at = 0;
        while (at < g->names_n && (g->maker[at] < 0 || !str_eq(g->names[at], want->v[i])))
            at++;
        if (at == g->names_n)
            FAIL(INVALID, "no step makes '%.*s', which is to be an output", STR(want->v[i]));
        g->answer[g->answer_n++] = at;
    }
    for (size_t at = 0; !want->n && at < g->names_n; at++) {
        if (g->maker[at] < 0 || g->taken[at])
            continue;
        if (g->answer_n == TENSORS_MAX)
            FAIL(TOO_LARGE, "an ensemble has at most %d outputs", TENSORS_MAX);
        g->answer[g->answer_n++] = at;
    }
    if (!g->answer_n)
        FAIL(INVALID, "an ensemble has an output, that no step takes");
    return NULL;
}

static err wiring_read(struct wiring *g, struct arena *a, const struct ensemble *spec)
{
    const struct ensemble_step *step = spec->steps.v;
    for (size_t i = 0; i < spec->steps.n; i++)
        TRY(step_read(g, a, &step[i]));
    TRY(order_find(g));
    return answer_find(g, &spec->outputs);
}

err ensemble_check(struct arena *a, const struct ensemble *spec)
{
    err e = spec->steps.n ? wiring_read(NEW(a, struct wiring), a, spec) : NULL;
    return e ? err_field(err_wrap(e, "spec.ensemble"), S("spec.ensemble")) : NULL;
}

/* ---- the session ---- */

struct ensemble_session {
    struct session base; /* first member */
    struct serve *s;
    struct arena *a;
    struct str project, name; /* the deployment's */
    struct str graph, text;   /* the spec it was made of; that and the versions it was made for */
    int64_t made_ns;
    int deep; /* 1: no step of it is an ensemble; else one more than any of these */
    struct wiring g;
    struct session_info info;
};

static const struct session_info *ensemble_describe(struct session *s)
{
    return &((struct ensemble_session *)s)->info;
}

static void ensemble_unload(struct session *session)
{
    struct ensemble_session *e = (struct ensemble_session *)session;
    for (size_t i = 0; e && i < e->g.steps_n; i++)
        plan_unref(e->g.step[i].plan);
    if (e)
        arena_free(e->a); /* it lives in there itself */
}

static const struct tensor_spec *spec_of(const struct tensor_spec *v, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(v[i].name, name))
            return &v[i];
    return NULL;
}

static const struct ensemble_session *composed(const struct model *m)
{
    return m->composed ? (const struct ensemble_session *)m->session : NULL;
}

static const struct served *served_most(const struct entry *e)
{
    const struct served *most = NULL;
    for (size_t i = 0; e && i < e->n; i++)
        if (e->v[i].share > 0 && (!most || e->v[i].share > most->share))
            most = &e->v[i];
    return most;
}

/* ---- who runs the steps ---- */

struct picks {
    VEC(struct pick) v;
};

static err picks_add(struct infer *c, const struct ensemble_session *e, struct picks *to,
                     const struct entry **asleep);

/* Ensembles go down by `deep`, so that no run is without end, whatever the steps' deployments have become since this one
 * was made. */
static err pick_add(struct infer *c, const struct ensemble_session *e, const struct step *step,
                    struct picks *to, const struct entry **asleep)
{
    const struct entry *entry = snap_find(c->snap, e->project, step->deployment);
    if (entry && entry->state == ENTRY_IDLE) {
        *asleep = entry;
        return NULL;
    }
    const struct served *v = entry ? served_by_traffic(c, entry) : NULL;
    const struct ensemble_session *below = v ? composed(v->model) : NULL;
    if (!v)
        FAIL(UNAVAILABLE, "'%.*s' has no version ready", STR(step->deployment));
    if (below && below->deep >= e->deep)
        FAIL(UNAVAILABLE, "'%.*s' has other steps now, and this ensemble is not made anew yet",
             STR(step->deployment));
    if (to->v.n == PICKS_MAX)
        FAIL(TOO_LARGE, "it is more than %d models that a request asks", PICKS_MAX);
    size_t at = to->v.n;
    push(c->a, &to->v, (struct pick){ .entry = entry, .to = v });
    if (below)
        TRY(picks_add(c, below, to, asleep));
    to->v.v[at].below = to->v.n - at - 1;
    return NULL;
}

static err picks_add(struct infer *c, const struct ensemble_session *e, struct picks *to,
                     const struct entry **asleep)
{
    for (size_t i = 0; i < e->g.steps_n && !*asleep; i++) {
        const struct step *step = &e->g.step[e->g.order[i]];
        if (!step->plan)
            TRY_AS(pick_add(c, e, step, to, asleep), "step '%.*s'", STR(step->name));
    }
    return NULL;
}

err ensemble_enter(struct infer *c, const struct entry **asleep)
{
    struct picks to = { 0 };
    TRY(picks_add(c, composed(c->entry->v->model), &to, asleep));
    c->picks = to.v.v;
    return NULL;
}

/* ---- a step ---- */

struct asking {
    struct infer *c;
    struct run_control *control;
    int64_t until;
    struct arena *a;
    const struct pick *next;
    struct tensor *t;
    bool alone; /* c is no batch */
};

static err deployment_ask(struct asking *k, const struct step *step)
{
    const struct pick *pick = k->next;
    struct infer *c = NEW(k->a, struct infer);
    k->next += 1 + pick->below;
    *c = (struct infer){ .s = k->c->s,
                         .r = k->c->r,
                         .a = k->a,
                         .project = pick->entry->project,
                         .deployment = pick->entry->name,
                         .id = k->alone ? k->c->id : S(""),
                         .row_ids = k->alone ? k->c->row_ids : NULL,
                         .row_ids_n = k->alone ? k->c->row_ids_n : 0,
                         .inputs = NEW_N(k->a, struct named, step->in_n),
                         .inputs_n = step->in_n,
                         .asked = NEW_N(k->a, struct asked, step->out_n),
                         .asked_n = step->out_n,
                         .snap = k->c->snap,
                         .slot = k->c->slot,
                         .entry = pick->entry,
                         .to = pick->to,
                         .now = k->c->now,
                         .at.arrived = mono_ns(),
                         .picks = pick + 1,
                         .within = k->control,
                         .until = k->until };
    for (size_t i = 0; i < step->in_n; i++)
        c->inputs[i] = (struct named){ step->in[i].theirs, k->t[step->in[i].at] };
    for (size_t i = 0; i < step->out_n; i++)
        c->asked[i].name = step->out[i].theirs;
    TRY(infer_step(c));
    for (size_t i = 0; i < step->out_n; i++)
        k->t[step->out[i].at] = c->out[i];
    return NULL;
}

/* ---- features ---- */

static const struct tensor *input_of(const struct step *step, struct str theirs, const struct tensor *t)
{
    for (size_t i = 0; i < step->in_n; i++)
        if (str_eq(step->in[i].theirs, theirs))
            return &t[step->in[i].at];
    return NULL;
}

static err column_make(struct arena *a, const struct plan_input *in, const struct tensor *t,
                       struct columns *cols)
{
    struct column *c = columns_add(a, cols, in->name, in->type);
    enum tensor_type want = in->type == COL_STR ? TENSOR_TEXT : in->type == COL_F64 ? TENSOR_F64 : TENSOR_I64;
    if (t->type != want)
        FAIL(INVALID, "'%.*s' is %.*s, the features need %.*s", STR(in->name),
             STR(tensor_protocol_name(t->type)), STR(tensor_protocol_name(want)));
    if (in->type == COL_STR) {
        c->dict = t->data;
        c->dict_n = cols->rows;
        for (size_t i = 0; i < cols->rows; i++)
            c->code[i] = (uint32_t)i;
    } else {
        memcpy(in->type == COL_F64 ? (void *)c->f : (void *)c->i, t->data, t->bytes);
    }
    return NULL;
}

static err columns_make(const struct step *step, struct arena *a, const struct tensor *t,
                        struct columns *cols)
{
    const struct plan_input *in;
    size_t n = feature_plan_inputs(step->plan->plan, &in);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *one = input_of(step, in[i].name, t);
        int64_t rows;
        if (!one)
            continue;
        if (!one->rank || !tensor_count(one->dims, one->rank, COLUMNS_ROWS_MAX, &rows) ||
            rows != one->dims[0])
            FAIL(INVALID, "'%.*s' is not one value a row, or has more than %d rows", STR(in[i].name),
                 COLUMNS_ROWS_MAX);
        if (cols->n && cols->rows != (size_t)rows)
            FAIL(INVALID, "'%.*s' has %zu rows, others have %zu", STR(in[i].name), (size_t)rows, cols->rows);
        cols->rows = (size_t)rows;
        TRY(column_make(a, &in[i], one, cols));
    }
    return NULL;
}

static err features_look_up(struct asking *k, const struct step *step)
{
    struct arena *a = k->a;
    struct tensor *t = k->t;
    const struct str *names;
    struct columns cols = { 0 };
    struct plan_binding binding;
    TRY(columns_make(step, a, t, &cols));
    TRY(feature_plan_bind(step->plan->plan, &cols, &binding));
    size_t width = feature_plan_features(step->plan->plan, &names),
           views = feature_plan_views(step->plan->plan, &names);
    if (cols.rows > CELLS_MAX / width)
        FAIL(TOO_LARGE, "%zu rows of %zu features are more than %d values", cols.rows, width, CELLS_MAX);
    struct plan_row row = { NEW_N(a, double, width), NEW_N(a, uint8_t, views + 1),
                            NEW_N(a, int64_t, views + 1) };
    float *x = NEW_N(a, float, cols.rows *width);
    TRY(plan_read(k->c->s, step->plan, &cols, &binding, k->c->now, &row, false, x, &k->c->missing));
    t[step->out[0].at] = (struct tensor){ .type = TENSOR_F32,
                                          .rank = 2,
                                          .dims = { (int64_t)cols.rows, (int64_t)width },
                                          .data = x,
                                          .bytes = cols.rows * width * sizeof *x };
    return NULL;
}

/* ---- the run ---- */

err ensemble_run(struct infer *c, struct run_control *control, int64_t until, struct arena *a,
                 const struct tensor *in, struct tensor *out, size_t out_n)
{
    const struct ensemble_session *e = composed(c->to->model);
    const struct wiring *g = &e->g;
    c->missing = 0; /* a batch that failed runs again, one by one */
    struct asking k = { c, control, until, a, c->picks, NEW_N(a, struct tensor, g->names_n), in == c->in };
    for (size_t i = 0; i < e->info.n_inputs; i++)
        for (size_t n = 0; n < g->names_n; n++)
            if (g->maker[n] < 0 && str_eq(g->names[n], e->info.inputs[in[i].slot].name))
                k.t[n] = in[i];
    for (size_t i = 0; i < g->steps_n; i++) {
        const struct step *step = &g->step[g->order[i]];
        TRY_AS(step->plan ? features_look_up(&k, step) : deployment_ask(&k, step), "step '%.*s'",
               STR(step->name));
    }
    for (size_t i = 0; i < out_n; i++) {
        size_t slot = out[i].slot;
        out[i] = k.t[g->answer[slot]];
        out[i].slot = slot;
    }
    return NULL;
}

/* It is no session by itself: a run belongs to a request. */
static const struct runtime_ops runtime_ensemble = {
    .name = "ensemble",
    .describe = ensemble_describe,
    .unload = ensemble_unload,
};

/* ---- making one: the faces of its steps are its own ---- */

/* comes: it is being loaded, or asleep, which ends when wakes is set. */
static const struct model *model_now(struct serve *s, struct str project, struct str deployment, bool wakes,
                                     bool *comes)
{
    struct depl *d = depl_find(s, project, deployment);
    if (d && d->asleep && wakes)
        (void)depl_wake(s, d); /* nobody waits for one that is asleep */
    const struct served *v = d ? served_most(&d->now) : NULL;
    *comes = d && (!d->settled || d->asleep || d->waking);
    return v ? v->model : NULL;
}

/* The first step that takes (or makes) a tensor says what it is. */
static err face_of(const struct step *step, const struct wire *w, bool input, const struct model *m,
                   struct tensor_spec *out)
{
    const struct plan_input *in;
    const struct str *names;
    size_t n = step->plan ? feature_plan_inputs(step->plan->plan, &in) : 0;
    if (step->plan && !input) {
        *out = (struct tensor_spec){ .type = TENSOR_F32, .shaped = true, .rank = 2 };
        out->dims[0] = -1;
        out->dims[1] = (int64_t)feature_plan_features(step->plan->plan, &names);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (!str_eq(in[i].name, w->theirs))
            continue;
        *out = (struct tensor_spec){ .shaped = true, .rank = 1, .dims = { -1 } };
        out->type = in[i].type == COL_STR ? TENSOR_TEXT : in[i].type == COL_F64 ? TENSOR_F64 : TENSOR_I64;
        return NULL;
    }
    const struct tensor_spec *spec = !m      ? NULL
                                     : input ? spec_of(m->info->inputs, m->info->n_inputs, w->theirs)
                                             : spec_of(m->info->outputs, m->info->n_outputs, w->theirs);
    if (!spec)
        FAIL(INVALID, "step '%.*s': there is no %s '%.*s'", STR(step->name), input ? "input" : "output",
             STR(w->theirs));
    *out = *spec;
    memset(out->symbols, 0, sizeof out->symbols); /* they are the model's own */
    return NULL;
}

/* Inputs: what no step makes. Outputs: the answer. */
static err faces_find(struct ensemble_session *e, const struct model *const *models)
{
    struct wiring *g = &e->g;
    struct tensor_spec *in = NEW_N(e->a, struct tensor_spec, g->names_n + 1);
    struct tensor_spec *out = NEW_N(e->a, struct tensor_spec, g->answer_n + 1);
    bool known[NAMES_MAX] = { 0 };
    for (size_t i = 0; i < g->steps_n; i++)
        for (size_t k = 0; k < g->step[i].in_n; k++) {
            const struct wire *w = &g->step[i].in[k];
            if (g->maker[w->at] >= 0 || known[w->at])
                continue;
            if (e->info.n_inputs == TENSORS_MAX)
                FAIL(TOO_LARGE, "an ensemble has at most %d inputs", TENSORS_MAX);
            known[w->at] = true;
            struct tensor_spec *spec = &in[e->info.n_inputs++];
            TRY(face_of(&g->step[i], w, true, models[i], spec));
            spec->name = g->names[w->at];
        }
    for (size_t i = 0; i < g->answer_n; i++) {
        size_t at = g->answer[i];
        const struct step *step = &g->step[g->maker[at]];
        const struct wire *w = step->out;
        while (w->at != at)
            w++;
        TRY(face_of(step, w, false, models[g->maker[at]], &out[i]));
        out[i].name = g->names[at];
    }
    e->info.inputs = in;
    e->info.outputs = out;
    e->info.n_outputs = g->answer_n;
    e->info.labels = NEW_N(e->a, struct strs, g->answer_n);
    e->info.device = "cpu";
    e->info.why = "";
    return NULL;
}

static err look_up_open(struct ensemble_session *e, struct step *step)
{
    const struct str *names;
    if (step->out_n != 1 || !str_is(step->out[0].theirs, "features"))
        FAIL(INVALID, "step '%.*s': a look-up has one output, features", STR(step->name));
    TRY_AS(plan_new(e->s, e->project, step->service, &step->plan), "step '%.*s'", STR(step->name));
    if (feature_plan_features(step->plan->plan, &names) == 0)
        FAIL(INVALID, "step '%.*s': service '%.*s' has no features", STR(step->name), STR(step->service));
    return NULL;
}

/* Does a deployment that the steps ask, or one that those ask, ask the ensemble itself? */
static err circle_find(const struct ensemble_session *e, const struct ensemble *spec)
{
    VEC(const struct ensemble *) graphs = { 0 };
    push(e->a, &graphs, spec);
    for (size_t g = 0; g < graphs.n; g++) {
        const struct ensemble_step *step = graphs.v[g]->steps.v;
        for (size_t i = 0; i < graphs.v[g]->steps.n; i++) {
            if (str_eq(step[i].deployment, e->name))
                FAIL(INVALID, "the ensemble asks itself: one of its steps, or of theirs, is '%.*s'",
                     STR(e->name));
            const struct depl *d = depl_find(e->s, e->project, step[i].deployment);
            size_t k = 0;
            while (d && k < graphs.n && graphs.v[k] != &d->spec.ensemble)
                k++;
            if (d && k == graphs.n)
                push(e->a, &graphs, &d->spec.ensemble);
        }
    }
    return NULL;
}

/* UNAVAILABLE: a step's deployment is being loaded. */
static err session_make(struct ensemble_session *e, const struct ensemble *spec)
{
    const struct model *models[STEPS_MAX] = { 0 };
    TRY(wiring_read(&e->g, e->a, spec));
    TRY(circle_find(e, spec));
    e->deep = 1;
    for (size_t i = 0; i < e->g.steps_n; i++) {
        struct step *step = &e->g.step[i];
        bool comes = false;
        if (step->service.n) {
            TRY(look_up_open(e, step));
            continue;
        }
        models[i] = model_now(e->s, e->project, step->deployment, true, &comes);
        if (!models[i])
            FAIL(comes ? UNAVAILABLE : INVALID, "step '%.*s': '%.*s' has no version ready", STR(step->name),
                 STR(step->deployment));
        const struct ensemble_session *below = composed(models[i]);
        e->deep = below && below->deep >= e->deep ? below->deep + 1 : e->deep;
        if (e->deep > DEEP_MAX)
            FAIL(INVALID, "step '%.*s': ensembles are in one another %d deep at most", STR(step->name),
                 DEEP_MAX);
    }
    return faces_find(e, models);
}

/* What it is made of: equal texts, equal faces. *partly: a step has no version in memory now, and gets one when it is asked. */
static struct str parts_of(struct serve *s, struct arena *a, struct str project, struct str graph,
                           const struct ensemble *spec, bool *partly)
{
    const struct ensemble_step *step = spec->steps.v;
    struct buf b = buf_new(a);
    buf_str(&b, graph);
    *partly = false;
    for (size_t i = 0; i < spec->steps.n; i++) {
        bool comes = false;
        const struct model *m = step[i].deployment.n
                                    ? model_now(s, project, step[i].deployment, false, &comes)
                                    : NULL;
        const struct ensemble_session *below = m ? composed(m) : NULL;
        *partly = *partly || (!m && comes);
        buf_fmt(&b, " %.*s %lld", STR(m ? m->name : S("-")), below ? (long long)below->made_ns : 0);
    }
    return buf_get(&b);
}

static bool is_of(const struct model *m, struct str project, struct str name, bool ready)
{
    return m->composed && (m->state == MODEL_READY) == ready && str_eq(m->project, project) &&
           str_eq(m->name, name);
}

/* The one that is there, if it was made of the same; while a step sleeps, of the same graph. */
static struct model *model_good(struct serve *s, struct str project, struct str name, struct str graph,
                                struct str text, bool partly)
{
    for (struct model *m = s->models; m; m = m->next)
        if (is_of(m, project, name, true) &&
            (partly ? str_eq(composed(m)->graph, graph) : str_eq(composed(m)->text, text)))
            return m;
    return NULL;
}

static struct model *model_unmade(struct serve *s, struct str project, struct str name)
{
    struct model *m = s->models;
    while (m && !is_of(m, project, name, false))
        m = m->next;
    return m;
}

static struct model *model_new(struct serve *s, struct str project, struct str name)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->a = arena_new(0);
    m->project = str_dup(m->a, project);
    m->name = str_dup(m->a, name);
    m->number = S("1");
    m->composed = true;
    m->next = s->models;
    s->models = m;
    return m;
}

static void model_fill(struct serve *s, struct model *m, struct str name, struct str graph, struct str text,
                       const struct ensemble *spec)
{
    struct arena *a = arena_new(0);
    struct ensemble_session *e = NEW(a, struct ensemble_session);
    *e = (struct ensemble_session){ .base = { &runtime_ensemble }, .s = s, .a = a, .project = m->project };
    e->name = str_dup(a, name);
    e->graph = str_dup(a, graph);
    e->text = str_dup(a, text);
    e->made_ns = mono_ns();
    err failed = session_make(e, spec);
    if (failed) {
        m->state = failed->code == UNAVAILABLE ? MODEL_LOADING : MODEL_FAILED;
        if (!str_eq(m->message, failed->text))
            m->message = str_dup(m->a, failed->text);
        ensemble_unload(&e->base);
        return;
    }
    m->session = &e->base;
    m->info = &e->info;
    m->batches = !batch_unfit(m->a, m->info).n;
    m->state = MODEL_READY;
}

struct model *ensemble_want(struct serve *s, struct arena *a, struct str project, struct str name,
                            const struct deployment_spec *spec)
{
    struct depl *d = depl_find(s, project, name);
    struct str own = fmt(a, "%.*s:ensemble", STR(name)); /* no version has such a name */
    struct str graph = schema_text(&ensemble_schema, a, &spec->ensemble, 0);
    bool partly;
    struct str text = parts_of(s, a, project, graph, &spec->ensemble, &partly);
    struct model *m = d->plan_stale ? NULL : model_good(s, project, own, graph, text, partly);
    d->plan_stale = false;
    if (!m) {
        m = model_unmade(s, project, own);
        m = m ? m : model_new(s, project, own);
        model_fill(s, m, name, graph, text, &spec->ensemble);
    }
    m->refs++;
    return m;
}

/* ---- its steps, told ---- */

static void wires_write(struct json *j, const char *key, const struct wiring *g, const struct wire *v,
                        size_t n)
{
    json_key(j, str_of(key));
    json_obj(j);
    for (size_t i = 0; i < n; i++) {
        json_key(j, v[i].theirs);
        json_str(j, g->names[v[i].at]);
    }
    json_obj_end(j);
}

/* A look-up goes by its service's name. */
void ensemble_write(struct json *j, struct session *session)
{
    const struct wiring *g = &((struct ensemble_session *)session)->g;
    json_key(j, S("ensemble_scheduling"));
    json_obj(j);
    json_key(j, S("step"));
    json_arr(j);
    for (size_t i = 0; i < g->steps_n; i++) {
        const struct step *s = &g->step[i];
        json_obj(j);
        json_kstr(j, "model_name", s->deployment.n ? s->deployment : s->service);
        json_ki64(j, "model_version", -1);
        wires_write(j, "input_map", g, s->in, s->in_n);
        wires_write(j, "output_map", g, s->out, s->out_n);
        json_obj_end(j);
    }
    json_arr_end(j);
    json_obj_end(j);
}
