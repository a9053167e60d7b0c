// SPDX-License-Identifier: Apache-2.0
/* doctor: what this machine has, and whether the data is sound. */
#include "cli/cli.h"
#include "data/data.h"
#include "engine/engine.h"
#include "train/train.h"
#include <stdlib.h>
#include <sys/statvfs.h>

static struct json report; /* of the one command in this process */
static bool healthy = true;

/* mark: what stands before it in the table. */
static void row(struct cli *c, const char *what, bool ok, const char *mark, struct str text)
{
    json_obj(&report);
    json_kstr(&report, "check", str_of(what));
    json_kbool(&report, "ok", ok);
    json_kstr(&report, "text", text);
    json_obj_end(&report);
    if (c->output == OUT_TABLE)
        printf("%s  %-14s %.*s\n", mark, what, STR(text));
}

static void line(struct cli *c, const char *what, bool ok, struct str text)
{
    row(c, what, ok, ok ? "ok  " : "MISS", text);
}

/* What models can run on; a device that is not there is no fault. */
static void devices(struct cli *c, struct runtime *rt)
{
    const struct runtime_device *v;
    size_t n = 0;
    err e = runtime_devices(rt, c->a, &v, &n);
    if (e)
        line(c, "device", false, e->text);
    for (size_t i = 0; i < n; i++)
        row(c, "device", true, v[i].why ? "no  " : "ok  ",
            v[i].why ? fmt(c->a, "%s is not here: %s", v[i].name, v[i].why) : str_of(v[i].name));
}

static void engines(struct cli *c)
{
    struct str path, version;
    struct runtime *ort;
    err e = duck_library(c->a, &path, &version);
    line(c, "duckdb", !e, e ? e->text : fmt(c->a, "%.*s  %.*s", STR(version), STR(path)));
    e = runtime_open(&(struct runtime_config){ 0 }, &ort);
    line(c, "onnxruntime", !e, e ? e->text : fmt(c->a, "%s", runtime_version(ort)));
    if (!e) {
        devices(c, ort);
        runtime_close(ort);
    }
    e = xgb_version(c->a, &version);
    line(c, "xgboost", !e, e ? e->text : version);
    /* Own kernels do its work where it is not there, more slowly: no fault. */
    e = onednn_version(c->a, &version);
    row(c, "onednn", true, e ? "no  " : "ok  ", e ? e->text : version);
}

static void machine(struct cli *c)
{
    struct statvfs disk;
    const char *data = cli_option(c, "data");
    line(c, "cores", true, fmt(c->a, "%d", cpu_count()));
    if (!statvfs(data, &disk)) {
        int64_t room = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
        line(c, "disk", room > (1LL << 30), fmt(c->a, "%.1f GiB free at %s", (double)room / (1 << 30), data));
    }
}

static void data_check(struct cli *c)
{
    struct store *s;
    struct strs lines = { 0 };
    struct store_config cfg = { .dir = str_of(cli_option(c, "data")), .read_only = true };
    if (!file_exists(cli_option(c, "data")))
        return line(c, "data", true, fmt(c->a, "%s is not there yet", cli_option(c, "data")));
    err e = store_open(&cfg, &s);
    if (!e) {
        e = store_check(s, c->a, &lines);
        for (size_t i = 0; i < lines.n; i++)
            line(c, "data", true, lines.v[i]);
        struct str head;
        int64_t entries;
        err broken = audit_verify(s, c->a, &entries, &head);
        line(c, "audit", !broken, broken ? broken->text : fmt(c->a, "%lld entries hold", (long long)entries));
        healthy = healthy && !broken;
        store_close(s);
    }
    healthy = healthy && !e;
    if (e)
        line(c, "data", false, e->text);
}

static err doctor_run(struct cli *c)
{
    struct http_reply r;
    report = json_new(c->a);
    json_arr(&report);
    machine(c);
    engines(c);
    data_check(c);
    err e = cli_call_raw(c, M_GET, S("/healthz"), S(""), &r);
    line(c, "daemon", !e, e ? e->text : fmt(c->a, "answers at %s", cli_option(c, "server")));
    json_arr_end(&report);
    c->exit = healthy ? 0 : 1;
    if (c->output == OUT_TABLE)
        return NULL;
    yyjson_val *v;
    TRY(json_parse(c->a, json_get(&report), &v));
    return cli_show(c, v, NULL);
}

static const struct option doctor_options[] = {
    { "data", 0, "DIR", "The data folder to check.", "./dhow_data", false },
    { 0 },
};
const struct cli_verb verb_doctor = {
    .name = "doctor",
    .args = "",
    .doc = "Check the machine, the engines and the data folder.",
    .examples = "  dhow doctor\n  dhow doctor --data /srv/dhow",
    .options = doctor_options,
    .run = doctor_run,
    .client = true,
};
