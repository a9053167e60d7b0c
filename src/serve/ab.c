// SPDX-License-Identifier: Apache-2.0
/* A/B tests: who answered is remembered by the row's id until its outcome comes; then the outcome counts for that version.
 * The first version that an id met is the one, and an id counts once. The test itself is engine/sequential.h. */
#include "serve/infer.h"
#include <stdlib.h>

enum { WAYS = 4 }; /* places of one hash */

SCHEMA_TABLE(told_outcome, TOLD_OUTCOME, "What became true of one row.");
SCHEMA_TABLE(told_outcomes, TOLD_OUTCOMES, "What became true.");

struct seen {
    uint64_t key;
    float score;
    uint32_t order; /* of coming, to forget the oldest */
    bool live, joined, b;
};
struct contest {
    int refs;            /* with serve.m held */
    struct str of;       /* owned: which test it is */
    struct str a, b;     /* owned: versions */
    struct ab_test spec; /* a and b are the ones above */
    struct sequential test;
    pthread_mutex_t m; /* of what follows */
    struct moments arm_a, arm_b;
    double p;
    int64_t unmatched, since, decided;
    enum ab_decision decision;
    uint32_t order;
    struct seen *seen; /* SEEN_MAX */
};

static struct str own(struct str s)
{
    char *p = strndup(s.n ? s.p : "", s.n);
    if (!p)
        abort();
    return (struct str){ p, s.n };
}

/* ---- life ---- */

static struct moments moments_of(const struct ab_arm *arm)
{
    return (struct moments){ arm->n, arm->n ? arm->mean : 0, arm->n ? arm->m2 : 0 };
}

static struct contest *contest_new(struct str of, const struct ab_test *spec, const struct ab_status *before)
{
    struct contest *t = calloc(1, sizeof *t);
    struct seen *seen = calloc(SEEN_MAX, sizeof *seen); /* untouched pages cost nothing */
    if (!t || !seen)
        abort();
    *t = (struct contest){ .refs = 1, .of = own(of), .a = own(spec->a), .b = own(spec->b), .spec = *spec };
    t->seen = seen;
    t->spec.a = t->a;
    t->spec.b = t->b;
    t->test = (struct sequential){ spec->alpha, spec->min_effect,
                                   spec->metric == AB_SHARE || spec->metric == AB_HIT };
    t->p = 1;
    t->since = now_us();
    pthread_mutex_init(&t->m, NULL);
    if (!str_eq(before->of, of))
        return t;
    t->arm_a = moments_of(&before->a);
    t->arm_b = moments_of(&before->b);
    t->p = before->p;
    t->unmatched = before->unmatched;
    t->since = before->since;
    t->decided = before->decided;
    t->decision = (enum ab_decision)before->decision;
    return t;
}

static struct str fingerprint(struct arena *a, const struct ab_test *spec)
{
    uint64_t hash = hash64(schema_text(&ab_test_schema, a, spec, WRITE_DEFAULTS));
    return hex(a, &hash, sizeof hash);
}

enum ab_decision contest_decided(struct arena *a, const struct ab_test *spec, const struct ab_status *st)
{
    return str_eq(st->of, fingerprint(a, spec)) ? st->decision : AB_OPEN;
}

struct contest *contest_need(struct contest *old, struct arena *a, const struct ab_test *spec,
                             const struct ab_status *before)
{
    struct str of = fingerprint(a, spec);
    return old && str_eq(old->of, of) ? old : contest_new(of, spec, before);
}

struct contest *contest_ref(struct contest *t)
{
    if (t)
        t->refs++;
    return t;
}

void contest_unref(struct contest *t)
{
    if (!t || --t->refs)
        return;
    pthread_mutex_destroy(&t->m);
    free((char *)(uintptr_t)t->of.p);
    free((char *)(uintptr_t)t->a.p);
    free((char *)(uintptr_t)t->b.p);
    free(t->seen);
    free(t);
}

/* ---- joining ---- */

static struct seen *seen_find(struct contest *t, uint64_t key)
{
    struct seen *set = &t->seen[key % (SEEN_MAX / WAYS) * WAYS];
    for (int i = 0; i < WAYS; i++)
        if (set[i].live && set[i].key == key)
            return &set[i];
    return NULL;
}

static struct seen *seen_place(struct contest *t, uint64_t key)
{
    struct seen *set = &t->seen[key % (SEEN_MAX / WAYS) * WAYS], *oldest = set;
    for (int i = 0; i < WAYS; i++) {
        if (!set[i].live)
            return &set[i];
        if (t->order - set[i].order > t->order - oldest->order)
            oldest = &set[i];
    }
    return oldest;
}

void contest_predicted(struct contest *t, struct str id, const struct prediction *p)
{
    bool b = str_eq(p->version, t->b);
    if (!b && !str_eq(p->version, t->a))
        return;
    for (size_t i = 0; i < p->n; i++) {
        struct str row = p->ids ? p->ids[i] : p->n == 1 ? id : S("");
        uint64_t key = hash64(row);
        if (!row.n)
            continue;
        LOCKED(&t->m);
        if (seen_find(t, key))
            continue;
        *seen_place(t, key) = (struct seen){
            .key = key, .score = p->scores ? p->scores[i] : NAN, .order = ++t->order, .live = true, .b = b
        };
    }
}

/* What an outcome is worth by the test's metric; NaN: nothing. */
static double worth(const struct contest *t, double score, double value)
{
    switch ((enum ab_metric)t->spec.metric) {
    case AB_SHARE:
        return value >= 0.5;
    case AB_MEAN:
        return value;
    case AB_HIT:
        return isnan(score) ? NAN : (score > 0.5) == (value >= 0.5);
    case AB_ERROR:
        return (score - value) * (score - value);
    }
    return NAN;
}

static bool more_is_better(const struct ab_test *spec)
{
    return spec->metric == AB_HIT || (spec->metric != AB_ERROR && spec->better == AB_MORE);
}

/* A look, after each outcome. */
static void judge(struct contest *t)
{
    double p, d = t->arm_b.mean - t->arm_a.mean;
    struct interval in = sequential_difference(&t->test, &t->arm_a, &t->arm_b, &p);
    t->p = p < t->p ? p : t->p;
    if (t->decision != AB_OPEN)
        return;
    if (p <= t->test.alpha)
        t->decision = (d > 0) == more_is_better(&t->spec) ? AB_B : AB_A;
    else if (in.low > -t->spec.min_effect && in.high < t->spec.min_effect)
        t->decision = AB_EQUAL;
    else if (t->spec.max_requests && t->arm_a.n + t->arm_b.n >= t->spec.max_requests)
        t->decision = AB_NEITHER;
    if (t->decision != AB_OPEN)
        t->decided = now_us();
}

struct joined {
    bool matched, decided; /* decided: by this one */
};

static struct joined contest_outcome(struct contest *t, struct str id, double value)
{
    LOCKED(&t->m);
    struct seen *s = seen_find(t, hash64(id));
    double x = s && !s->joined ? worth(t, s->score, value) : NAN;
    if (!isfinite(x)) {
        t->unmatched += !s;
        return (struct joined){ 0 };
    }
    bool open = t->decision == AB_OPEN;
    s->joined = true;
    moments_add(s->b ? &t->arm_b : &t->arm_a, x);
    judge(t);
    return (struct joined){ true, open && t->decision != AB_OPEN };
}

/* ---- who tells ---- */

static void decided(struct serve *s, struct str project, struct str deployment)
{
    LOCKED(&s->m);
    control_poke(s->control, S("Deployment"), project, deployment);
}

static bool outcome_put(struct serve *s, struct str project, struct str deployment, struct str id,
                        double value, struct joined *out)
{
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    const struct entry *e = snap_find(snap, project, deployment);
    bool tests = e && e->contest;
    *out = tests ? contest_outcome(e->contest, id, value) : (struct joined){ 0 };
    snap_leave(s, slot);
    if (out->decided)
        decided(s, project, deployment);
    return tests;
}

bool serve_outcome(struct serve *s, struct str project, struct str deployment, struct str id, double value)
{
    struct joined j;
    return outcome_put(s, project, deployment, id, value, &j);
}

err outcomes_post(struct req *r)
{
    struct serve *s = (struct serve *)(uintptr_t)r->route->self;
    struct str project = req_param(r, S("project")), name = req_param(r, S("name"));
    struct told_outcomes in;
    int64_t matched = 0;
    TRY(schema_read_text(&told_outcomes_schema, r->a, S(""), r->body, 0, &in));
    const struct told_outcome *v = in.outcomes.v;
    for (size_t i = 0; i < in.outcomes.n; i++) {
        struct joined j;
        if (!outcome_put(s, project, name, v[i].id, v[i].value, &j))
            FAIL(NOT_FOUND, "there is no deployment '%.*s' with an A/B test", STR(str_sub(name, 0, 64)));
        matched += j.matched;
    }
    struct json j = json_new(r->a);
    json_obj(&j);
    json_ki64(&j, "outcomes", (int64_t)in.outcomes.n);
    json_ki64(&j, "matched", matched);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

/* ---- status ---- */

static double known(double v)
{
    return isfinite(v) ? v : NAN;
}

static struct ab_arm arm_status(const struct contest *t, struct arena *a, struct str version,
                                const struct moments *m)
{
    struct interval in = sequential_mean(&t->test, m);
    return (struct ab_arm){ .version = str_dup(a, version),
                            .n = m->n,
                            .mean = m->n ? m->mean : NAN,
                            .low = known(in.low),
                            .high = known(in.high),
                            .m2 = m->m2 };
}

/* Before there are outcomes, of a share as if it were a half: more are never needed. */
static int64_t needed(const struct contest *t)
{
    double va = moments_variance(&t->arm_a, t->test.proportion),
           vb = moments_variance(&t->arm_b, t->test.proportion);
    bool known_by_now = t->arm_a.n >= SEQUENTIAL_MIN && t->arm_b.n >= SEQUENTIAL_MIN;
    if (!known_by_now && !t->test.proportion)
        return 0;
    int64_t n = sequential_needed(&t->test, known_by_now ? va : 0.25, known_by_now ? vb : 0.25, t->spec.share,
                                  t->spec.min_effect);
    return n == INT64_MAX ? 0 : n;
}

void contest_status(struct contest *t, struct arena *a, struct ab_status *out)
{
    LOCKED(&t->m);
    struct interval in = sequential_difference(&t->test, &t->arm_a, &t->arm_b, NULL);
    *out = (struct ab_status){ .of = str_dup(a, t->of),
                               .a = arm_status(t, a, t->a, &t->arm_a),
                               .b = arm_status(t, a, t->b, &t->arm_b),
                               .difference = t->arm_a.n && t->arm_b.n ? t->arm_b.mean - t->arm_a.mean : NAN,
                               .low = known(in.low),
                               .high = known(in.high),
                               .p = t->p,
                               .needed = needed(t),
                               .unmatched = t->unmatched,
                               .decision = t->decision,
                               .since = t->since,
                               .decided = t->decided };
}
