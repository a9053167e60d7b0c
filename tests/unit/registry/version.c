// SPDX-License-Identifier: Apache-2.0
#define SUITE registry_version
#include "help.h"

static bool has_edge(const struct lineage *g, const char *input, const char *output)
{
    for (size_t i = 0; i < g->n; i++)
        if (str_eq(g->v[i].input, str_of(input)) && str_eq(g->v[i].output, str_of(output)))
            return true;
    return false;
}

TEST(a_job_becomes_one_version)
{
    struct lab l = shop_open();
    struct model_version_spec spec;
    struct str out;
    bool done;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    CHECK_OK(
        step_call(&l, &registry_register, "run-1", "{\"model\":\"late\",\"run\":\"train-1\"}", &out, &done));
    CHECK_STR(out, "{\"version\":\"late.1\",\"number\":1}");
    version_made(&l, 2, step_model(l.a, 0.6f, -1, 1), false);
    struct model_version_status status = version_now(&l, "late.1", &spec);
    CHECK(status.state == VERSION_CANDIDATE && spec.number == 1 && spec.onnx.n == 64);
    CHECK_STR(spec.service, "late_features");
    CHECK_STR(spec.definition, "{\"views\":[]}");
    CHECK_STR(spec.code_commit, "c0ffee");
    CHECK_STR(spec.job, "train-1");
    CHECK_STR(model_now(&l).latest, "late.2");
    lab_close(&l);
}

TEST(lineage_goes_both_ways)
{
    struct lab l = shop_open();
    struct lineage up, down;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    CHECK_OK(data_lineage(l.store, l.a, S("default"), S("ModelVersion/late.1"), true, &up));
    CHECK(has_edge(&up, "DatasetVersion/late_rows.1", "ModelVersion/late.1"));
    CHECK(has_edge(&up, "Job/train-1", "ModelVersion/late.1"));
    CHECK_OK(data_lineage(l.store, l.a, S("default"), S("DatasetVersion/late_rows.1"), false, &down));
    CHECK(has_edge(&down, "DatasetVersion/late_rows.1", "ModelVersion/late.1"));
    lab_close(&l);
}

TEST(a_run_tells_of_its_version)
{
    struct lab l = shop_open();
    struct run_spec spec;
    struct run_status status;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    CHECK_OK(resource_get(l.store, l.a, &run_resource, S("default"), S("train-1"), NULL, &spec, &status));
    CHECK_STR(status.version, "late.1");
    CHECK_STR(status.metrics, "{\"auc\":0.7}");
    CHECK_STR(spec.inputs.v[0], "DatasetVersion/late_rows.1");
    lab_close(&l);
}

TEST(hostile_bytes_and_unfinished_jobs_are_refused)
{
    struct lab l = shop_open();
    struct str out;
    bool done;
    trained_job(&l, "bad", S("\x08\x01not a model"));
    CHECK_ERR(step_call(&l, &registry_register, "r", "{\"model\":\"late\",\"run\":\"bad\"}", &out, &done),
              INVALID);
    trained_job(&l, "slow", step_model(l.a, 0, -1, 1));
    struct job_status status = { .phase = JOB_RUNNING, .attempts = 1 };
    CHECK_OK(resource_status(l.store, l.a, &job_resource, S("default"), S("slow"), -1, &status));
    CHECK_ERR(step_call(&l, &registry_register, "r", "{\"model\":\"late\",\"run\":\"slow\"}", &out, &done),
              CONFLICT);
    CHECK_ERR(step_call(&l, &registry_register, "r", "{\"model\":\"late\",\"run\":\"none\"}", &out, &done),
              NOT_FOUND);
    CHECK_ERR(step_call(&l, &registry_register, "r", "{\"model\":\"other\",\"run\":\"bad\"}", &out, &done),
              INVALID);
    CHECK(model_now(&l).versions == 0);
    lab_close(&l);
}

/* ---- gates ---- */

#define GATE(version, metrics, bounds) \
    "{\"model\":\"late\",\"version\":\"" version "\",\"metrics\":" metrics ",\"bounds\":[" bounds "]}"

TEST(a_gate_names_everything_that_fails)
{
    struct lab l = shop_open();
    struct model_version_spec spec;
    struct str out;
    bool done;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    err e = step_call(
        &l, &registry_gate, "r",
        GATE("late.1", "{\"auc\":0.668,\"logLoss\":0.6,\"champion\":null}",
             "{\"metric\":\"auc\",\"min\":0.7,\"max\":0.85},{\"metric\":\"logLoss\",\"max\":0.55},"
             "{\"metric\":\"auc\",\"championWithin\":0.005},{\"metric\":\"parityMaxAbs\",\"max\":0.00001}"),
        &out, &done);
    CHECK_ERR(e, GATE);
    CHECK_STR(
        e->text,
        "late.1: auc is 0.668, below its bound 0.7; logLoss is 0.6, above its bound 0.55; parityMaxAbs is not "
        "measured, above its bound 1e-05");
    struct model_version_status status = version_now(&l, "late.1", &spec);
    const struct gate_result *g = status.gates.v;
    CHECK(status.state == VERSION_REFUSED && status.gates.n == 5);
    CHECK(!g[0].ok && g[1].ok && !g[2].ok && g[3].ok && !g[4].ok && isnan(g[4].value));
    CHECK_STR(g[3].bound, "championWithin 0.005");
    struct events ev;
    CHECK_OK(event_list(l.store, l.a, 0, S("ModelVersion"), S("default"), S("late.1"), 100, &ev));
    CHECK_STR(ev.v[ev.n - 1].type, "modelversion.refused");
    lab_close(&l);
}

TEST(a_gate_compares_in_the_direction_of_the_metric)
{
    struct lab l = shop_open();
    struct str out;
    bool done;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    /* as a text, as evaluate gives it */
    CHECK_OK(step_call(
        &l, &registry_gate, "r",
        GATE(
            "late.1",
            "\"{\\\"auc\\\":0.70,\\\"logLoss\\\":0.50,\\\"champion\\\":{\\\"auc\\\":0.704,\\\"logLoss\\\":0.52}}\"",
            "{\"metric\":\"auc\",\"championWithin\":0.005},{\"metric\":\"logLoss\",\"championWithin\":0}"),
        &out, &done));
    CHECK(done);
    CHECK_STR(out, "{\"passed\":true}");
    CHECK_ERR(step_call(&l, &registry_gate, "r",
                        GATE("late.1", "{\"logLoss\":0.60,\"champion\":{\"logLoss\":0.52}}",
                             "{\"metric\":\"logLoss\",\"championWithin\":0.02}"),
                        &out, &done),
              GATE);
    CHECK_ERR(step_call(&l, &registry_gate, "r",
                        GATE("late.1", "{\"auc\":0.9,\"champion\":{}}",
                             "{\"metric\":\"auc\",\"championWithin\":0.02}"),
                        &out, &done),
              GATE);
    CHECK_ERR(step_call(&l, &registry_gate, "r", GATE("late.1", "{}", "{\"metric\":\"auc\"}"), &out, &done),
              INVALID);
    CHECK_ERR(step_call(&l, &registry_gate, "r", GATE("late.1", "[1]", "{\"metric\":\"auc\",\"min\":0}"),
                        &out, &done),
              INVALID);
    lab_close(&l);
}

TEST(a_gate_says_it_once)
{
    struct lab l = shop_open();
    struct events ev;
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), true);
    int64_t last = event_last(l.store);
    struct str out;
    bool done;
    CHECK_OK(step_call(&l, &registry_gate, "r",
                       GATE("late.1", "{\"auc\":0.7}", "{\"metric\":\"auc\",\"min\":0.5}"), &out, &done));
    CHECK_OK(event_list(l.store, l.a, last, S(""), S(""), S(""), 10, &ev));
    CHECK(ev.n == 0);
    lab_close(&l);
}

/* ---- aliases ---- */

static err rollback_run(struct tx *tx, void *arg)
{
    struct str now;
    (void)arg;
    return registry_rollback(tx, S("ann"), S("default"), S("late"), &now);
}

static err withdraw_run(struct tx *tx, void *arg)
{
    return registry_withdraw(tx, S("ann"), S("default"), S("late"), *(const struct str *)arg);
}

TEST(aliases_are_for_versions_that_passed)
{
    struct lab l = shop_open();
    version_made(&l, 1, step_model(l.a, 0.5f, -1, 1), false);
    CHECK_ERR(alias_set(&l, ALIAS_CHAMPION, "late.1"), CONFLICT);
    CHECK_ERR(alias_set(&l, ALIAS_CHALLENGER, "late.7"), NOT_FOUND);
    version_made(&l, 2, step_model(l.a, 0.6f, -1, 1), true);
    CHECK_OK(alias_set(&l, ALIAS_CHAMPION, "late.2"));
    CHECK_STR(model_now(&l).aliases.champion, "late.2");
    CHECK_ERR(alias_set(&l, ALIAS_CHALLENGER, "late.2"), CONFLICT);
    lab_close(&l);
}

TEST(a_rollback_goes_one_step_back)
{
    struct lab l = shop_open();
    for (int n = 1; n <= 3; n++)
        version_made(&l, n, step_model(l.a, 0.1f * (float)n, -1, 1), true);
    CHECK_OK(alias_set(&l, ALIAS_CHAMPION, "late.1"));
    CHECK_ERR(store_write(l.store, rollback_run, NULL), CONFLICT);
    CHECK_OK(alias_set(&l, ALIAS_CHALLENGER, "late.2"));
    CHECK_OK(alias_set(&l, ALIAS_CHAMPION, "late.2"));
    struct model_status m = model_now(&l);
    CHECK(m.former.n == 1 && m.aliases.challenger.n == 0);
    CHECK_OK(alias_set(&l, ALIAS_CHALLENGER, "late.3"));
    CHECK_OK(store_write(l.store, rollback_run, NULL)); /* the challenger goes first */
    m = model_now(&l);
    CHECK(m.aliases.challenger.n == 0 && str_is(m.aliases.champion, "late.2"));
    CHECK_OK(store_write(l.store, rollback_run, NULL));
    m = model_now(&l);
    CHECK(str_is(m.aliases.champion, "late.1") && m.former.n == 0);
    CHECK_OK(alias_set(&l, ALIAS_CHAMPION, "late.3"));
    CHECK_OK(store_write(l.store, withdraw_run, &S("late.3")));
    CHECK_STR(model_now(&l).aliases.champion, "late.1");
    CHECK_OK(store_write(l.store, withdraw_run, &S("late.1")));
    CHECK_STR(model_now(&l).aliases.champion, "");
    lab_close(&l);
}
