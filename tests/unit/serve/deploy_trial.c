// SPDX-License-Identifier: Apache-2.0
/* Trials: steps, what ends one, A/B tests, shadows. */
#define SUITE serve_trial
#include "deploy.h"
#include "monitor/monitor.h"

#define PATH "/api/v1/projects/default/deployments/late"

static void deploy_begin(struct world *w, const char *run, const char *version)
{
    struct str out;
    bool done;
    CHECK_OK(step_call(&w->l, &serve_deploy, run,
                       fmtz(w->l.a, "{\"deployment\":\"late\",\"version\":\"%s\"}", version), &out, &done));
    CHECK(!done);
}

/* late.1 is champion, late.2 on trial. */
static struct world *trial(const char *canary)
{
    struct world *w = versions(2);
    struct str out;
    spec_put(w, fmtz(w->l.a, "{\"model\":\"late\",\"canary\":%s}", canary), 201);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    deploy_begin(w, "late-2", "late.2");
    for (int i = 0; i < 2000 && deployment_now(w).phase != DEPLOYMENT_CANARY; i++)
        nap();
    CHECK(deployment_now(w).phase == DEPLOYMENT_CANARY);
    return w;
}

static int events_of(struct world *w, const char *type)
{
    struct events all;
    int n = 0;
    CHECK_OK(event_list(w->l.store, w->l.a, 0, S("Deployment"), S("default"), S("late"), 1000, &all));
    for (size_t i = 0; i < all.n; i++)
        n += str_eq(all.v[i].type, str_of(type));
    return n;
}

static void ask_many(struct world *w, const char *prefix, int n)
{
    int status;
    for (int i = 0; i < n; i++)
        (void)answered_by(w, fmtz(w->l.a, "%s-%d", prefix, i), 0, &status);
}

static double share_of(struct world *w, const char *version)
{
    struct deployment_status s = deployment_now(w);
    const struct traffic *v = s.traffic.v;
    for (size_t i = 0; i < s.traffic.n; i++)
        if (str_eq(v[i].version, str_of(version)))
            return v[i].share;
    return NAN;
}

/* ---- steps ---- */

TEST(a_step_ends_when_its_time_and_its_requests_are_reached)
{
    struct world *w = trial("{\"steps\":[{\"share\":0.1,\"requests\":10},"
                            "{\"share\":0.5,\"for\":\"300ms\"},{\"share\":0.9,\"requests\":20}]}");
    CHECK(deployment_now(w).rollout.step == 1 && share_of(w, "late.2") == 0.1);
    ask_many(w, "a", 400);
    for (int i = 0; i < 2000 && deployment_now(w).rollout.step == 1; i++)
        nap();
    struct deployment_status s = deployment_now(w);
    int64_t since = s.rollout.since;
    CHECK(s.rollout.step == 2 && s.rollout.step_requests >= 10 && share_of(w, "late.2") == 0.5);
    for (int i = 0; i < 2000 && deployment_now(w).rollout.step == 2; i++)
        nap();
    s = deployment_now(w); /* by time alone */
    CHECK(s.rollout.step == 3 && s.rollout.since - since >= 300000 && share_of(w, "late.2") == 0.9);
    CHECK(s.rollout.state == ROLLOUT_CANARY && events_of(w, "canary.stepped") == 3);
    ask_many(w, "b", 40);
    for (int i = 0; i < 2000 && deployment_now(w).rollout.state == ROLLOUT_CANARY; i++)
        nap();
    s = deployment_now(w);
    cr_assert(s.rollout.state == ROLLOUT_DONE, "%d %.*s", s.rollout.state, STR(s.rollout.message));
    CHECK_STR(model_now(&w->l).aliases.champion, "late.2");
    world_free(w);
}

/* What a version's requests took, as infer.c would have counted it. */
static void took(struct world *w, const char *version, int64_t us, int n)
{
    LOCKED(&w->serve->m);
    struct depl *d = depl_find(w->serve, S("default"), S("late"));
    for (size_t i = 0; i < d->counted_n; i++) {
        struct stripe *s = &d->counted[i].tally->stripe[0];
        size_t b = 0;
        while (bucket_us[b] < us)
            b++;
        if (!str_eq(d->counted[i].version, str_of(version)))
            continue;
        atomic_fetch_add(&s->requests, n);
        atomic_fetch_add(&s->buckets[PHASE_ALL][b], n);
    }
}

static struct deployment_status ended(struct world *w)
{
    for (int i = 0; i < 2000 && deployment_now(w).rollout.state == ROLLOUT_CANARY; i++)
        nap();
    struct deployment_status s = deployment_now(w);
    cr_assert(s.rollout.state == ROLLOUT_FAILED, "state %d", s.rollout.state);
    CHECK_STR(model_now(&w->l).aliases.champion, "late.1");
    CHECK(events_of(w, "deployment.rolledback") == 1);
    return s;
}

TEST(a_slow_challenger_goes)
{
    struct world *w = trial("{\"steps\":[{\"share\":0.5,\"for\":\"1h\"}],\"abort\":{\"p99\":\"20ms\"}}");
    took(w, "late.2", 4000, 970);
    took(w, "late.2", 90000, 5); /* five in a thousand: not its p99 */
    for (int i = 0; i < 100; i++)
        nap();
    CHECK(deployment_now(w).rollout.state == ROLLOUT_CANARY);
    took(w, "late.2", 90000, 25);
    CHECK(has(ended(w).rollout.message, "late.2 answers 99 of 100 requests in "));
    world_free(w);
}

TEST(a_challenger_slower_than_the_champion_goes)
{
    struct world *w = trial("{\"steps\":[{\"share\":0.5,\"for\":\"1h\"}],\"abort\":{\"latencyRatio\":5}}");
    took(w, "late.2", 20000, 500); /* alone it says nothing */
    for (int i = 0; i < 100; i++)
        nap();
    CHECK(deployment_now(w).rollout.state == ROLLOUT_CANARY);
    took(w, "late.1", 900, 500);
    CHECK(has(ended(w).rollout.message, "the champion late.1 in "));
    world_free(w);
}

static err alarm_tx(struct tx *tx, void *arg)
{
    struct object o = { .kind = S("Monitor"), .project = S("default"), .name = S("watch"), .spec = S("{}") };
    const struct str *version = arg;
    TRY(object_put(tx, S("t"), &o, -1, NULL, NULL));
    return object_status(tx, S("Monitor"), S("default"), S("watch"), -1,
                         fmt(tx_arena(tx), "{\"alarm\":\"drifted\",\"version\":\"%.*s\"}", STR(*version)));
}

TEST(a_monitor_ends_the_trial_of_its_version_only)
{
    struct world *w = trial("{\"steps\":[{\"share\":0.5,\"for\":\"1h\"}],\"abort\":{\"monitor\":\"watch\"}}");
    CHECK_OK(store_write(w->l.store, alarm_tx, &S("late.1")));
    for (int i = 0; i < 100; i++)
        nap();
    CHECK(deployment_now(w).rollout.state == ROLLOUT_CANARY);
    CHECK_OK(store_write(w->l.store, alarm_tx, &S("late.2")));
    CHECK(has(ended(w).rollout.message, "monitor watch says that late.2 drifted"));
    world_free(w);
}

/* ---- A/B tests ---- */

#define AB(more) \
    "{\"model\":\"late\",\"abTest\":{\"a\":\"late.1\",\"b\":\"late.2\",\"minEffect\":0.05" more "}}"

/* Asks about `n` rows and tells their outcomes: with pa and pb of them 1. */
static void trial_rows(struct world *w, const char *prefix, int n, double pa, double pb)
{
    uint64_t seed = hash64(str_of(prefix));
    struct buf b = buf_new(w->l.a);
    int status;
    buf_str(&b, S("{\"outcomes\":["));
    for (int i = 0; i < n; i++) {
        const char *id = fmtz(w->l.a, "%s-%d", prefix, i);
        double p = str_is(answered_by(w, id, 0, &status), "1") ? pa : pb;
        bool is = (double)(splitmix(&seed) >> 11) * 0x1p-53 < p;
        buf_fmt(&b, "%s{\"id\":\"%s\",\"value\":%d}", i ? "," : "", id, is);
    }
    buf_str(&b, S("]}"));
    struct http_reply r = ask(w, M_POST, PATH "/outcomes", buf_get(&b));
    CHECK_STR(r.body, fmtz(w->l.a, "{\"outcomes\":%d,\"matched\":%d}", n, n));
}

static struct ab_status ab_now(struct world *w)
{
    struct ab_status out;
    LOCKED(&w->serve->m);
    contest_status(depl_find(w->serve, S("default"), S("late"))->now.contest, w->l.a, &out);
    return out;
}

TEST(the_better_version_wins_and_it_is_told_once)
{
    struct world *w = versions(2);
    spec_put(w, AB(""), 201);
    wait_traffic(w, 2);
    CHECK(ab_now(w).needed > 1000 && ab_now(w).decision == AB_OPEN);
    trial_rows(w, "one", 400, 0.2, 0.6);
    struct ab_status s = ab_now(w);
    CHECK(s.decision == AB_B && s.p <= 0.05 && s.low > 0 && s.a.n + s.b.n == 400);
    CHECK(s.difference > s.low && s.difference < s.high && s.a.high < s.b.high && s.decided);
    for (int i = 0; i < 2000 && deployment_now(w).ab_test.decision != AB_B; i++)
        nap();
    CHECK(deployment_now(w).ab_test.decision == AB_B);
    trial_rows(w, "two", 100, 0.2, 0.6);
    CHECK(events_of(w, "abtest.decided") == 1);
    world_free(w);
}

TEST(a_winner_is_promoted_if_that_is_asked_for)
{
    struct world *w = versions(2);
    struct model_status model = { 0 };
    spec_put(w, AB(",\"promote\":true"), 201);
    wait_traffic(w, 2);
    trial_rows(w, "one", 400, 0.2, 0.6);
    wait_traffic(w, 1);
    for (int i = 0; i < 2000 && !str_is(model.aliases.champion, "late.2"); i++, nap())
        CHECK_OK(
            resource_get(w->l.store, w->l.a, &model_resource, S("default"), S("late"), NULL, NULL, &model));
    CHECK_STR(model.aliases.champion, "late.2");
    CHECK_STR(deployment_now(w).version, "late.2");
    CHECK(deployment_now(w).ab_test.decision == AB_B && events_of(w, "abtest.decided") == 1);
    spec_put(w, AB(",\"promote\":true,\"alpha\":0.01"), 200); /* another test: both answer again */
    wait_traffic(w, 2);
    world_free(w);
}

TEST(an_outcome_counts_once_and_only_of_what_was_asked)
{
    struct world *w = versions(2);
    int status;
    spec_put(w, AB(",\"metric\":\"error\""), 201);
    wait_traffic(w, 2);
    (void)answered_by(w, "x", 0, &status);
    want(w, M_POST, PATH "/outcomes", "{\"outcomes\":[{\"id\":\"y\",\"value\":1}]}", 200);
    CHECK(ab_now(w).unmatched == 1);
    for (int i = 0; i < 2; i++)
        want(w, M_POST, PATH "/outcomes", "{\"outcomes\":[{\"id\":\"x\",\"value\":1}]}", 200);
    struct ab_status s = ab_now(w);
    CHECK(s.a.n + s.b.n == 1 && s.unmatched == 1);
    CHECK(counted(w, "dhow_ab_outcomes_total", "1", s.a.n ? "1" : "0"));
    CHECK(counted(w, "dhow_ab_outcomes_total", "2", s.a.n ? "0" : "1"));
    double score = s.a.n ? 1 / (1 + exp(1)) : 1 / (1 + exp(2)), mean = s.a.n ? s.a.mean : s.b.mean;
    CHECK(fabs(mean - (score - 1) * (score - 1)) < 1e-6);
    want(w, M_POST, PATH "/outcomes", "{\"outcomes\":[{\"id\":\"x\"}]}", 400);
    want(w, M_POST, "/api/v1/projects/default/deployments/none/outcomes",
         "{\"outcomes\":[{\"id\":\"x\",\"value\":1}]}", 404);
    world_free(w);
}

static err thing_put(struct tx *tx, const char *kind, const char *name, const char *spec)
{
    struct object o = { .kind = str_of(kind),
                        .project = S("default"),
                        .name = str_of(name),
                        .labels = S("{}"),
                        .spec = str_of(spec) };
    return object_put(tx, S("t"), &o, -1, NULL, NULL);
}

static err monitor_tx(struct tx *tx, void *arg)
{
    (void)arg;
    TRY(thing_put(tx, "Dataset", "flights",
                  "{\"sources\":[\"raw\"],\"query\":\"select 1\",\"id\":\"id\",\"eventTime\":\"ts\"}"));
    return thing_put(tx, "Monitor", "watch",
                     "{\"deployment\":\"late\",\"outcome\":{\"dataset\":\"flights\",\"label\":\"late\"}}");
}

TEST(what_a_monitors_dataset_is_told_counts_for_the_test)
{
    struct world *w = versions(2);
    struct monitors *m;
    struct object o;
    struct columns rows = { .rows = 3 };
    int64_t again;
    int status;
    spec_put(w, AB(""), 201);
    wait_traffic(w, 2);
    CHECK_OK(alias_set(&w->l, ALIAS_CHAMPION, "late.1"));
    CHECK_OK(store_write(w->l.store, monitor_tx, NULL));
    CHECK_OK(object_get(w->l.store, w->l.a, S("Monitor"), S("default"), S("watch"), &o));
    CHECK_OK(monitors_open(&(struct monitors_config){ w->l.store, w->serve, NULL, 1000 }, &m));
    struct reconciler r = monitors_reconciler(m);
    CHECK_OK(r.step(r.self, w->l.a, &o, NULL, &again));
    (void)answered_by(w, "7", 0, &status);
    (void)answered_by(w, "8", 0, &status);
    struct column *id = columns_add(w->l.a, &rows, S("id"), COL_I64),
                  *late = columns_add(w->l.a, &rows, S("late"), COL_I64);
    for (int i = 0; i < 3; i++) {
        id->i[i] = 7 + i;
        late->i[i] = 1;
    }
    monitors_pushed(m, S("default"), S("flights"), &rows);
    struct ab_status s = ab_now(w);
    cr_assert(s.a.n + s.b.n == 2 && s.unmatched == 1, "%lld %lld %lld", (long long)s.a.n, (long long)s.b.n,
              (long long)s.unmatched);
    CHECK((s.a.n ? s.a.mean : s.b.mean) == 1);
    world_free(w);
    monitors_close(m);
}

TEST(a_test_goes_on_after_a_restart_and_begins_anew_with_another_spec)
{
    struct world *w = versions(2);
    spec_put(w, AB(",\"maxRequests\":120"), 201);
    wait_traffic(w, 2);
    trial_rows(w, "one", 120, 0.5, 0.5);
    struct ab_status before = ab_now(w);
    CHECK(before.decision == AB_NEITHER);
    for (int i = 0; i < 2000 && deployment_now(w).ab_test.decision != AB_NEITHER; i++)
        nap();
    world_stop(w);
    world_start(w);
    struct ab_status s = ab_now(w);
    CHECK(s.a.n == before.a.n && s.b.n == before.b.n && s.a.mean == before.a.mean && s.b.m2 == before.b.m2);
    CHECK(s.decision == AB_NEITHER && s.decided == before.decided);
    spec_put(w, AB(",\"maxRequests\":500"), 200);
    for (int i = 0; i < 2000 && ab_now(w).a.n; i++)
        nap();
    CHECK(ab_now(w).a.n + ab_now(w).b.n == 0 && ab_now(w).decision == AB_OPEN);
    world_free(w);
}

/* ---- shadows ---- */

static struct str shadow_now(struct world *w, int64_t requests)
{
    struct http_reply r = { 0 };
    for (int i = 0; i < 2000; i++, nap()) {
        yyjson_val *v;
        r = want(w, M_GET, PATH "/shadow", "", 200);
        CHECK_OK(json_parse(w->l.a, r.body, &v));
        if (yyjson_get_int(yyjson_obj_get(v, "requests")) + yyjson_get_int(yyjson_obj_get(v, "failed")) +
                yyjson_get_int(yyjson_obj_get(v, "dropped")) >=
            requests)
            return r.body;
    }
    return r.body;
}

TEST(a_shadow_is_compared_and_never_answers)
{
    struct world *w = versions(2);
    int hits[10], status;
    spec_put(
        w,
        "{\"model\":\"late\",\"version\":\"late.1\",\"shadow\":{\"version\":\"late.2\",\"tolerance\":0.2}}",
        201);
    wait_traffic(w, 2);
    counts(w, "r", 20, hits); /* 1/(1+e) − 1/(1+e²) = 0.1497: within */
    CHECK(hits[1] == 20);
    CHECK(has(shadow_now(w, 20), "\"rows\":20,\"differ\":0,\"share\":0,\"max\":0.1497"));
    spec_put(
        w,
        "{\"model\":\"late\",\"version\":\"late.1\",\"shadow\":{\"version\":\"late.2\",\"tolerance\":0.1}}",
        200);
    for (int i = 0; i < 2000 && !has(shadow_now(w, 0), "\"rows\":0"); i++)
        nap();
    (void)answered_by(w, "far", 0, &status);
    struct str report = shadow_now(w, 1);
    CHECK(has(report, "\"rows\":1,\"differ\":1,\"share\":1") && has(report, "\"worst\":[\"far\"]"));
    CHECK(counted(w, "dhow_shadow_requests_total", "2", "1"));
    CHECK(counted(w, "dhow_shadow_rows_different_total", "2", "1"));
    CHECK(counted(w, "dhow_shadow_dropped_total", "2", "0"));
    struct deployment_status s = deployment_now(w);
    for (size_t i = 0; i < s.traffic.n; i++) {
        const struct traffic *v = s.traffic.v;
        CHECK(!str_is(v[i].version, "late.2") || (v[i].share == 0 && v[i].requests == 0));
    }
    world_free(w);
}

TEST(a_shadow_that_falls_behind_is_left_out)
{
    struct world *w = versions(2);
    int status;
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\",\"shadow\":{\"version\":\"late.2\"}}", 201);
    wait_traffic(w, 2);
    atomic_fetch_add(&w->serve->copy_bytes, COPY_BYTES_MAX); /* as if so much waited */
    (void)answered_by(w, "x", 0, &status);
    CHECK(status == 200 && has(shadow_now(w, 1), "\"dropped\":1"));
    atomic_fetch_sub(&w->serve->copy_bytes, COPY_BYTES_MAX);
    (void)answered_by(w, "x", 0, &status);
    CHECK(has(shadow_now(w, 2), "\"requests\":1"));
    world_free(w);
}
