// SPDX-License-Identifier: Apache-2.0
/* The reconciler over a real store, its steps called by hand: what people see in the status, and the event. */
#define SUITE monitor_watch
#include "help.h"
#include <stdlib.h>

enum { ROWS = 5000, CALL = 500 };

struct world {
    struct arena *a;
    char dir[32];
    struct store *store;
    struct monitors *m;
    struct reconciler r;
    struct str baseline;
};

struct put {
    struct object o;
    struct str status;
};

static err put_run(struct tx *tx, void *arg)
{
    const struct put *p = arg;
    TRY(object_put(tx, S("ann"), &p->o, -1, NULL, NULL));
    return object_status(tx, p->o.kind, p->o.project, p->o.name, -1, p->status);
}

static void put(struct world *w, const char *kind, const char *name, struct str spec, struct str status)
{
    struct put p = {
        { .kind = str_of(kind), .project = S("p"), .name = str_of(name), .labels = S("{}"), .spec = spec },
        status.n ? status : S("{}")
    };
    CHECK_OK(store_write(w->store, put_run, &p));
}

static err delete_run(struct tx *tx, void *arg)
{
    const struct object *o = arg;
    return object_delete(tx, S("ann"), o->kind, o->project, o->name, -1);
}

static void champion_set(struct world *w, const char *version)
{
    put(w, "Model", "late", S("{}"), fmt(w->a, "{\"aliases\":{\"champion\":\"%s\"}}", version));
}

static void monitors_start(struct world *w)
{
    CHECK_OK(monitors_open(&(struct monitors_config){ .store = w->store, .predictions_max = 100000 }, &w->m));
    w->r = monitors_reconciler(w->m);
}

#define MONITOR_SPEC_TEXT                                                                                      \
    "{\"deployment\":\"late\",\"window\":\"1d\",\"sustain\":2,\"features\":{\"wasserstein\":0.1,\"psi\":0.25," \
    "\"share\":0.3},\"outcome\":{\"dataset\":\"flights\",\"label\":\"late\"}}"

static struct world world_new(void)
{
    struct world w = { .a = arena_new(0), .dir = "/tmp/dhow-monitor-XXXXXX" };
    CHECK(mkdtemp(w.dir));
    CHECK_OK(store_open(&(struct store_config){ .dir = str_of(w.dir), .kv_bytes_max = 1 << 20 }, &w.store));
    const struct baseline *b = baseline_of(w.a, rows_make(w.a, 1, ROWS, 0), scores_make(w.a, 2, ROWS), ROWS);
    CHECK_OK(blob_put(store_blobs(w.store), w.a, baseline_write(w.a, b), &w.baseline));
    for (int i = 1; i <= 2; i++)
        put(&w, "ModelVersion", fmtz(w.a, "late.%d", i),
            fmt(w.a, "{\"model\":\"late\",\"number\":%d,\"baseline\":\"%.*s\"}", i, STR(w.baseline)), S(""));
    put(&w, "Dataset", "flights",
        S("{\"sources\":[\"raw\"],\"query\":\"select 1\",\"id\":\"id\",\"eventTime\":\"ts\",\"knownAt\":\"known_at\"}"),
        S(""));
    put(&w, "Deployment", "late", S("{\"model\":\"late\"}"), S(""));
    champion_set(&w, "late.1");
    put(&w, "Monitor", "drift", S(MONITOR_SPEC_TEXT), S(""));
    monitors_start(&w);
    return w;
}

static void world_free(struct world *w)
{
    monitors_close(w->m);
    store_close(w->store);
    dir_remove(w->dir);
    arena_free(w->a);
}

static int64_t step(struct world *w, const char *kind, const char *name)
{
    struct object o;
    int64_t again_ms = 0;
    err e = object_get(w->store, w->a, str_of(kind), S("p"), str_of(name), &o);
    if (e)
        o = (struct object){ .kind = str_of(kind), .project = S("p"), .name = str_of(name) };
    CHECK_OK(w->r.step(w->r.self, w->a, &o, NULL, &again_ms));
    return again_ms;
}

static struct monitor_status status(struct world *w)
{
    struct monitor_status st;
    CHECK_OK(resource_get(w->store, w->a, &monitor_resource, S("p"), S("drift"), NULL, NULL, &st));
    return st;
}

/* Of this moment, written or not. */
static struct monitor_status live(struct world *w)
{
    struct monitor_status st;
    watch_status(w->m->first, w->a, &st);
    return st;
}

static size_t events_told(struct world *w, struct str *data)
{
    struct events list;
    size_t n = 0;
    CHECK_OK(event_list(w->store, w->a, 0, S("Monitor"), S("p"), S("drift"), 10000, &list));
    for (size_t i = 0; i < list.n; i++)
        if (str_is(list.v[i].type, "monitor.drifted")) {
            n++;
            *data = list.v[i].data;
        }
    return n;
}

/* One day of traffic in calls of 500 rows, then a step. */
static void day(struct world *w, int number, double shift, const char *version)
{
    for (int i = 0; i < 4; i++) {
        struct prediction p = prediction_of(w->a, (uint64_t)(number * 10 + i), CALL, shift,
                                            MAY + number * DAY + i * 6 * HOUR, 6 * HOUR);
        p.version = str_of(version);
        p.ids = ids_make(w->a, CALL, (size_t)(number * 4 + i) * CALL);
        monitors_predicted(w->m, &p);
    }
    step(w, "Monitor", "drift");
}

TEST(the_example_is_the_grammar)
{
    auto_arena struct arena *a = arena_new(0);
    struct monitor_spec s;
    CHECK_OK(schema_read_text(
        &monitor_spec_schema, a, S("spec"),
        S("{\"deployment\":\"late\",\"window\":\"3d\",\"sustain\":2,\"features\":{\"wasserstein\":0.1,"
          "\"psi\":0.25,\"share\":0.3},\"outcome\":{\"dataset\":\"flights\",\"label\":\"late\"}}"),
        0, &s));
    CHECK(s.window == 3 * 24 * 3600 * 1000 && s.features.min == 200 && s.outcome.min == 100);
    CHECK_OK(schema_read_text(&monitor_spec_schema, a, S("spec"), S("{\"deployment\":\"late\"}"), 0, &s));
    CHECK(s.sustain == 2 && s.features.wasserstein == 0.1 && s.features.psi == 0.25 && !s.outcome.dataset.n);
    CHECK(s.cooldown == 14ll * 24 * 3600 * 1000);
    CHECK_ERR(schema_read_text(&monitor_spec_schema, a, S("spec"),
                               S("{\"deployment\":\"late\",\"window\":\"0s\"}"), 0, &s),
              INVALID);
    CHECK_ERR(schema_read_text(&monitor_spec_schema, a, S("spec"),
                               S("{\"deployment\":\"late\",\"outcome\":{\"dataset\":\"flights\"}}"), 0, &s),
              INVALID);
}

TEST(a_sustained_shift_is_one_event)
{
    struct world w = world_new();
    struct str data = S("");
    CHECK(step(&w, "Monitor", "drift") > 0);
    CHECK_STR(status(&w).version, "late.1");
    for (int i = 0; i < 3; i++)
        day(&w, i, 0, "late.1");
    struct monitor_status st = status(&w);
    CHECK(st.windows_closed == 2 && st.alarm == ALARM_NONE && st.share == 0 && st.drift.n == FEATURES + 1);
    CHECK(events_told(&w, &data) == 0);
    for (int i = 3; i < 9; i++)
        day(&w, i, 1.5, "late.1");
    st = status(&w);
    CHECK(events_told(&w, &data) == 1 && st.events == 1);
    CHECK(st.alarm == ALARM_DRIFTED && st.since == MAY + 5 * DAY && st.windows_closed == 8 &&
          st.history.n == 8);
    CHECK(str_starts(
        data,
        S("{\"time\":\"2001-05-06T00:00:00Z\",\"deployment\":\"late\",\"version\":\"late.1\",\"share\":0.66")));
    const struct monitor_past *past = st.history.v;
    CHECK(past[0].from == MAY && past[0].predictions == 4 * CALL && past[0].share == 0 &&
          past[7].wasserstein_max > 0.5);
    const struct monitor_drift *d = st.drift.v;
    CHECK(d[0].over && d[1].over && !d[2].over && !d[3].over && d[0].wasserstein > 0.6 && d[0].psi > 0.25);
    CHECK(!drift_named(d, st.drift.n, "hour")->over && !drift_named(d, st.drift.n, "score")->over);
    CHECK_STR(st.judged.version, "late.1");
    CHECK(st.judged.from == MAY + 7 * DAY && st.judged.until == MAY + 8 * DAY &&
          st.judged.predictions == 4 * CALL && st.judged.features == 3 && st.judged.over == 2 &&
          st.judged.share == st.share && st.judged.at > MAY);
    CHECK(strstr(str_z(w.a, data),
                 "\"window\":{\"from\":\"2001-05-05T00:00:00Z\",\"until\":\"2001-05-06T00:00:00Z\","
                 "\"predictions\":2000},\"features\":{\""));
    CHECK(strstr(str_z(w.a, data), "\"delay\":{") && strstr(str_z(w.a, data), "\"flights\":{") &&
          !strstr(str_z(w.a, data), "\"hour\""));
    const struct monitor_told *told = &st.last_alarm;
    CHECK(told->time == MAY + 5 * DAY && told->features.n == 2 && fabs(told->share - 2.0 / 3) < 1e-12);
    CHECK(str_starts(told->reason, S("2 of 3 features over a bound, in 2 windows running; the worst: ")));
    world_free(&w);
}

TEST(one_odd_day_is_none)
{
    struct world w = world_new();
    struct str data;
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 8; i++)
        day(&w, i, i % 3 == 1 ? 1.5 : 0, "late.1");
    CHECK(events_told(&w, &data) == 0);
    CHECK(status(&w).windows_closed == 7 && status(&w).events == 0);
    world_free(&w);
}

TEST(a_new_champion_starts_anew)
{
    struct world w = world_new();
    struct str data;
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 4; i++)
        day(&w, i, 1.5, "late.1");
    CHECK(status(&w).alarm == ALARM_DRIFTED);
    champion_set(&w, "late.2");
    step(&w, "Model", "late");
    step(&w, "Monitor", "drift");
    day(&w, 4, 1.5, "late.1"); /* not the champion any more */
    day(&w, 5, 1.5, "late.2");
    day(&w, 6, 1.5, "late.2");
    struct monitor_status st = status(&w);
    CHECK_STR(st.version, "late.2");
    CHECK(st.alarm == ALARM_WATCHING && st.windows_closed == 4 && st.history.n == 4 && st.events == 1);
    day(&w, 7, 1.5, "late.2");
    CHECK(events_told(&w, &data) == 2); /* within the cooldown of the first, but another version */
    world_free(&w);
}

/* A new champion: what was judged and told last still stands, with its version, over a restart, too. */
static void check_kept(const struct monitor_status *st, const char *watched)
{
    CHECK_STR(st->version, watched);
    CHECK_STR(st->judged.version, "late.1");
    CHECK(st->judged.until == MAY + 3 * DAY && st->judged.over == 2 && st->drift.n == FEATURES + 1);
    CHECK(drift_named(st->drift.v, st->drift.n, "delay")->wasserstein > 0.6);
    CHECK_STR(st->last_alarm.version, "late.1");
    CHECK(st->last_alarm.time == MAY + 2 * DAY && st->last_alarm.at > MAY && st->last_alarm.features.n == 2);
    CHECK(st->events == 1 && st->history.n == 3);
}

static bool drift_measured(struct world *w)
{
    struct buf out = buf_new(w->a);
    monitors_metrics(w->m, &out);
    return strstr(str_z(w->a, buf_get(&out)), "dhow_monitor_drift_psi{") != NULL;
}

TEST(what_was_judged_stays_when_the_champion_changes)
{
    struct world w = world_new();
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 4; i++)
        day(&w, i, 1.5, "late.1");
    struct monitor_status st = live(&w);
    check_kept(&st, "late.1");
    CHECK(drift_measured(&w));
    champion_set(&w, "late.2");
    step(&w, "Model", "late");
    step(&w, "Monitor", "drift");
    day(&w, 4, 0, "late.2");
    st = live(&w);
    check_kept(&st, "late.2");
    CHECK(st.alarm == ALARM_NONE && isnan(st.share) && isnan(st.auc) && st.window.predictions > 0);
    CHECK(!drift_measured(&w)); /* gauges are of the version that is watched */
    monitors_close(w.m);
    monitors_start(&w);
    step(&w, "Monitor", "drift");
    st = live(&w);
    check_kept(&st, "late.2");
    day(&w, 5, 0, "late.2");
    day(&w, 6, 0, "late.2");
    st = live(&w);
    CHECK_STR(st.judged.version, "late.2");
    CHECK(st.judged.over == 0 && st.judged.share == 0 && st.last_alarm.features.n == 2);
    world_free(&w);
}

/* Beside a champion that is asked as ever, a challenger whose traffic moves. */
TEST(a_challenger_is_watched_while_there_is_one)
{
    struct world w = world_new();
    struct str data;
    put(&w, "Monitor", "drift", fmt(w.a, "{\"watch\":\"challenger\",%s", MONITOR_SPEC_TEXT + 1), S(""));
    step(&w, "Monitor", "drift");
    CHECK_STR(status(&w).message, "model 'late' has no challenger now");
    day(&w, 0, 1.5, "late.1");
    CHECK(status(&w).windows_closed == 0);
    put(&w, "Model", "late", S("{}"), S("{\"aliases\":{\"champion\":\"late.1\",\"challenger\":\"late.2\"}}"));
    step(&w, "Model", "late");
    for (int i = 1; i < 4; i++) {
        day(&w, i, 3, "late.1"); /* the champion's is not its */
        day(&w, i, 0, "late.2");
    }
    CHECK_STR(status(&w).version, "late.2");
    CHECK(status(&w).windows_closed == 2 && status(&w).alarm == ALARM_NONE && events_told(&w, &data) == 0);
    for (int i = 4; i < 7; i++)
        day(&w, i, 1.5, "late.2");
    CHECK(status(&w).alarm == ALARM_DRIFTED && events_told(&w, &data) == 1);
    champion_set(&w, "late.1"); /* it is taken back */
    step(&w, "Model", "late");
    step(&w, "Monitor", "drift");
    day(&w, 7, 1.5, "late.2");
    CHECK_STR(live(&w).version, "late.2");
    CHECK(live(&w).alarm == ALARM_DRIFTED && live(&w).message.n && live(&w).window.predictions == 0);
    put(&w, "Deployment", "late", S("{\"model\":\"late\",\"abTest\":{\"a\":\"late.2\",\"b\":\"late.1\"}}"),
        S(""));
    step(&w, "Deployment", "late");
    CHECK_STR(live(&w).version, "late.1");
    CHECK(live(&w).alarm == ALARM_NONE && !live(&w).message.n);
    world_free(&w);
}

TEST(another_deployment_has_nothing_to_show_yet)
{
    struct world w = world_new();
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 4; i++)
        day(&w, i, 1.5, "late.1");
    put(&w, "Deployment", "other", S("{\"model\":\"late\"}"), S(""));
    put(&w, "Monitor", "drift", S("{\"deployment\":\"other\"}"), S("{}"));
    step(&w, "Monitor", "drift");
    struct monitor_status st = live(&w);
    CHECK(!st.judged.version.n && !st.judged.until && isnan(st.judged.share) && st.drift.n == 0 &&
          !st.last_alarm.reason.n && !st.last_alarm.time);
    CHECK(st.history.n == 3 && st.events == 1);
    world_free(&w);
}

static void push_day(struct world *w, int number, size_t n)
{
    struct columns b = { .rows = n };
    uint64_t seed = 5;
    struct column *id = columns_add(w->a, &b, S("id"), COL_I64);
    for (size_t i = 0; i < n; i++)
        id->i[i] = number * 4 * CALL + (int64_t)i;
    struct column *late = columns_add(w->a, &b, S("late"), COL_I64);
    for (size_t i = 0; i < n; i++)
        late->i[i] = splitmix(&seed) & 1;
    monitors_pushed(w->m, S("p"), S("other"), &b);
    monitors_pushed(w->m, S("p"), S("flights"), &b);
}

TEST(outcomes_are_joined_by_the_datasets_id)
{
    struct world w = world_new();
    step(&w, "Monitor", "drift");
    day(&w, 0, 0, "late.1");
    push_day(&w, 0, 4 * CALL);
    day(&w, 1, 0, "late.1");
    push_day(&w, 1, 50);
    push_day(&w, 77, 3);
    day(&w, 2, 0, "late.1");
    struct monitor_status st = status(&w);
    CHECK(st.outcomes == 4 * CALL + 50 + 3 && st.unmatched == 3 && st.versions.n == 1);
    const struct monitor_past *past = st.history.v;
    CHECK(past[0].auc > 0.4 && past[0].auc < 0.6 && isnan(past[1].auc)); /* 50 are too few */
    CHECK(isnan(st.auc) && st.auc_total > 0.4 && st.auc_total < 0.6 && st.auc_error < 0.01);
    struct buf out = buf_new(w.a);
    monitors_metrics(w.m, &out);
    CHECK(strstr(str_z(w.a, buf_get(&out)),
                 "dhow_monitor_outcomes_unmatched{project=\"p\",monitor=\"drift\",deployment=\"late\"} 3\n"));
    CHECK(strstr(str_z(w.a, buf_get(&out)),
                 "dhow_monitor_drift_psi{project=\"p\",monitor=\"drift\",deployment=\"late\","
                 "feature=\"score\"} "));
    CHECK(strstr(str_z(w.a, buf_get(&out)), "version=\"late.1\"} 0.4") ||
          strstr(str_z(w.a, buf_get(&out)), "version=\"late.1\"} 0.5"));
    world_free(&w);
}

/* Share of pairs of a row that became true and one that did not in which the first has the higher score. */
static double auc_slow(const float *score, const bool *positive, size_t n)
{
    double won = 0, pairs = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; positive[i] && k < n; k++)
            if (!positive[k]) {
                pairs++;
                won += score[i] > score[k] ? 1 : score[i] == score[k] ? 0.5 : 0;
            }
    return won / pairs;
}

/* Traffic as a replay makes it: each hour first what landed is pushed, then what leaves is asked; a flight lands three
 * hours later. Ten rows were asked before the monitor was there. */
struct flow {
    size_t n, asked, pushed;
    float *score;
    bool *positive;
    struct prediction rows;
};
enum { FLIGHT_HOURS = 3, EARLIER = 10, HOURLY = 100 };

static struct flow flow_make(struct arena *a, size_t hours)
{
    struct flow t = { .n = hours * HOURLY };
    uint64_t seed = 9;
    t.rows = prediction_of(a, 31, t.n, 0, MAY, (int64_t)hours * HOUR);
    t.positive = NEW_N(a, bool, t.n);
    t.score = NEW_N(a, float, t.n);
    for (size_t i = 0; i < t.n; i++) {
        t.score[i] = t.rows.scores[i] * t.rows.scores[i]; /* crowded near 0, as of something rare */
        t.positive[i] = uniform(&seed) < 0.05 + 0.8 * (double)t.score[i];
    }
    return t;
}

static void land(struct world *w, struct flow *t, int64_t now)
{
    size_t end = t->pushed;
    struct columns b = { 0 };
    while (end < t->n && t->rows.at[end] + FLIGHT_HOURS * HOUR <= now)
        end++;
    b.rows = end - t->pushed;
    if (b.rows == 0)
        return;
    struct column *id = columns_add(w->a, &b, S("id"), COL_I64);
    for (size_t i = 0; i < b.rows; i++)
        id->i[i] = (int64_t)(t->pushed + i);
    struct column *late = columns_add(w->a, &b, S("late"), COL_I64);
    for (size_t i = 0; i < b.rows; i++)
        late->i[i] = t->positive[t->pushed + i];
    struct column *known = columns_add(w->a, &b, S("known_at"), COL_TIME);
    for (size_t i = 0; i < b.rows; i++)
        known->i[i] = t->rows.at[t->pushed + i] + FLIGHT_HOURS * HOUR;
    monitors_pushed(w->m, S("p"), S("flights"), &b);
    t->pushed = end;
}

static void leave(struct world *w, struct flow *t, const char *version, int64_t now)
{
    while (t->asked < t->n && t->rows.at[t->asked] < now + HOUR) {
        struct prediction p = t->rows;
        p.version = str_of(version);
        p.n = HOURLY;
        p.features += t->asked * FEATURES;
        p.scores = t->score + t->asked;
        p.at += t->asked;
        p.ids = ids_make(w->a, HOURLY, t->asked);
        if (t->asked < EARLIER) { /* nobody remembers them */
            struct str *ids = ids_make(w->a, HOURLY, t->asked);
            for (size_t i = 0; i < EARLIER; i++)
                ids[i] = S("");
            p.ids = ids;
        }
        monitors_predicted(w->m, &p);
        t->asked += HOURLY;
    }
}

/* The AUC of rows [from, until) without the ten, exactly. */
static double auc_exact(const struct flow *t, size_t from, size_t until)
{
    from = from < EARLIER ? EARLIER : from;
    return auc_slow(t->score + from, t->positive + from, until - from);
}

TEST(the_realised_auc_is_the_exact_one_within_its_error)
{
    struct world w = world_new();
    struct flow t = flow_make(w.a, 40);
    step(&w, "Monitor", "drift");
    for (int64_t hour = 0; hour < 40; hour++) { /* the champion changes at hour 30 */
        if (hour == 30) {
            champion_set(&w, "late.2");
            step(&w, "Model", "late");
        }
        land(&w, &t, MAY + hour * HOUR);
        leave(&w, &t, hour < 30 ? "late.1" : "late.2", MAY + hour * HOUR);
        step(&w, "Monitor", "drift");
    }
    struct monitor_status st = status(&w);
    size_t landed = (24 - FLIGHT_HOURS) * HOURLY +
                    1; /* when the first day closed, with what is known at its end */
    double exact = auc_exact(&t, 0, landed);
    CHECK_STR(st.judged.version, "late.1");
    CHECK(st.judged.until == MAY + DAY && st.judged.outcomes == (int64_t)landed - EARLIER);
    cr_assert(fabs(st.judged.auc - exact) <= st.judged.auc_error && st.judged.auc_error < 0.002,
              "%g, not %g within %g", st.judged.auc, exact, st.judged.auc_error);
    land(&w, &t, MAY + 90 * DAY); /* the rest: no window, but the totals */
    st = live(&w);
    const struct monitor_version *v = st.versions.v;
    CHECK(st.versions.n == 2 && v[0].outcomes == 30 * HOURLY - EARLIER && v[1].outcomes == 10 * HOURLY);
    CHECK(fabs(v[0].auc - auc_exact(&t, 0, 30 * HOURLY)) <= v[0].auc_error && v[0].auc_error < 0.002);
    CHECK(fabs(v[1].auc - auc_exact(&t, 30 * HOURLY, 40 * HOURLY)) <= v[1].auc_error &&
          v[1].auc_error < 0.002);
    CHECK(st.auc_total == v[1].auc && st.outcomes == 40 * HOURLY && st.unmatched == EARLIER);
    world_free(&w);
}

TEST(outcomes_close_the_last_window_when_requests_end)
{
    struct world w = world_new();
    struct flow t = flow_make(w.a, 22);
    step(&w, "Monitor", "drift");
    for (int64_t hour = 0; hour < 24; hour++) {
        land(&w, &t, MAY + hour * HOUR);
        leave(&w, &t, "late.1", MAY + hour * HOUR);
    }
    step(&w, "Monitor", "drift");
    CHECK(status(&w).windows_closed == 0);
    land(&w, &t, MAY + 25 * HOUR); /* the last ones land after midnight */
    step(&w, "Monitor", "drift");
    struct monitor_status st = status(&w);
    CHECK(st.windows_closed == 1 && st.judged.until == MAY + DAY && st.judged.predictions == 22 * HOURLY &&
          st.judged.outcomes == 22 * HOURLY - EARLIER); /* with those that the same push told of */
    CHECK(fabs(st.auc - auc_exact(&t, 0, 22 * HOURLY)) <= st.judged.auc_error);
    CHECK(st.window.from == MAY + DAY && st.window.predictions == 0);
    world_free(&w);
}

TEST(a_restart_keeps_the_alarm_and_begins_a_window)
{
    struct world w = world_new();
    struct str data;
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 4; i++)
        day(&w, i, 1.5, "late.1");
    monitors_close(w.m);
    monitors_start(&w);
    step(&w, "Monitor", "drift");
    struct monitor_status st = status(&w);
    CHECK(st.alarm == ALARM_DRIFTED && st.history.n == 3 && st.windows_closed == 3 && !st.window.from);
    for (int i = 4; i < 8; i++)
        day(&w, i, 1.5, "late.1");
    CHECK(events_told(&w, &data) == 1 && status(&w).windows_closed == 6);
    world_free(&w);
}

TEST(what_is_missing_is_said_and_waited_for)
{
    struct world w = world_new();
    struct object gone = { .kind = S("Deployment"), .project = S("p"), .name = S("late") };
    CHECK_OK(store_write(w.store, delete_run, &gone));
    CHECK(step(&w, "Monitor", "drift") > 0);
    CHECK(status(&w).message.n && !status(&w).version.n);
    day(&w, 0, 0, "late.1");
    put(&w, "Deployment", "late", S("{\"model\":\"late\",\"version\":\"late.2\"}"), S(""));
    step(&w, "Deployment", "late");
    day(&w, 1, 0, "late.2");
    day(&w, 2, 0, "late.2");
    CHECK(!status(&w).message.n && status(&w).windows_closed == 1);
    CHECK_STR(status(&w).version, "late.2");
    put(&w, "ModelVersion", "late.3", S("{\"model\":\"late\",\"number\":3}"), S(""));
    put(&w, "Deployment", "late", S("{\"model\":\"late\",\"version\":\"late.3\"}"), S(""));
    step(&w, "Deployment", "late");
    day(&w, 3, 9, "late.3");
    day(&w, 4, 9, "late.3");
    struct monitor_status st = status(&w);
    CHECK(st.message.n && st.windows_closed == 2 && isnan(st.share) && st.alarm == ALARM_NONE);
    CHECK_STR(st.judged.version, "late.2"); /* what cannot be judged hides nothing */
    world_free(&w);
}

TEST(a_new_spec_and_a_deleted_monitor_are_followed)
{
    struct world w = world_new();
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 4; i++)
        day(&w, i, 1.5, "late.1");
    put(&w, "Monitor", "drift",
        S("{\"deployment\":\"late\",\"window\":\"2d\",\"features\":{\"wasserstein\":5,\"psi\":50}}"),
        S("{}"));
    for (int i = 4; i < 9; i++)
        day(&w, i, 1.5, "late.1");
    struct monitor_status st = status(&w);
    const struct monitor_past *past = st.history.v;
    CHECK(st.alarm == ALARM_NONE && st.windows_closed == 4 && past[3].until - past[3].from == 2 * DAY &&
          past[3].share == 0);
    struct object gone = { .kind = S("Monitor"), .project = S("p"), .name = S("drift") };
    CHECK_OK(store_write(w.store, delete_run, &gone));
    CHECK(step(&w, "Monitor", "drift") == 0);
    CHECK(!w.m->first);
    world_free(&w);
}

TEST(history_is_bounded)
{
    struct world w = world_new();
    step(&w, "Monitor", "drift");
    for (int i = 0; i < 60; i++)
        day(&w, i, 0, "late.1");
    struct monitor_status st = status(&w);
    const struct monitor_past *past = st.history.v;
    CHECK(st.windows_closed == 59 && st.history.n == MONITOR_HISTORY && past[49].from == MAY + 58 * DAY);
    world_free(&w);
}

TEST(the_control_thread_judges_a_window_as_soon_as_it_is_closed)
{
    struct world w = world_new();
    struct control *control;
    int64_t start = mono_ns();
    CHECK_OK(control_start(w.store, &w.r, 1, &control));
    monitors_set_control(w.m, control);
    while (!status(&w).version.n && mono_ns() - start < 20000000000)
        event_wait(w.store, event_last(w.store), 20);
    for (int i = 0; i < 2; i++) {
        struct prediction p = prediction_of(w.a, 5, CALL, 0, MAY + i * DAY, DAY);
        monitors_predicted(w.m, &p);
    }
    while (status(&w).windows_closed < 1 && mono_ns() - start < 20000000000)
        event_wait(w.store, event_last(w.store), 20);
    CHECK(status(&w).windows_closed == 1 && status(&w).share == 0);
    control_stop(control);
    world_free(&w);
}
