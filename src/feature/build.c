// SPDX-License-Identifier: Apache-2.0
/* The worker type `build`: label rows of a dataset version, and for each the features that were known then. */
#include "feature/internal.h"

#include <unistd.h>

/* ---- in the daemon: prepare ---- */

/* The version of a dataset to read: the one asked for if it is one, else the newest. */
static err version_choose(struct store *s, struct arena *a, struct str project, struct str dataset,
                          struct str asked, struct dataset_version_spec *v, struct str *out)
{
    struct dataset_status status = { 0 };
    struct str of = fmt(a, "Dataset/%.*s", STR(dataset));
    if (asked.n) {
        TRY(resource_get(s, a, &dataset_version_resource, project, asked, NULL, v, NULL));
        *out = asked;
        if (!str_eq(v->of, of))
            FAIL(INVALID, "version '%.*s' is of %.*s, not of %.*s", STR(asked), STR(v->of), STR(of));
        return NULL;
    }
    TRY(resource_get(s, a, &dataset_resource, project, dataset, NULL, NULL, &status));
    if (!status.latest.n)
        return err_hint(err_new(INVALID, "dataset '%.*s' has no version yet", STR(dataset)),
                        "run a job of type ingest first");
    *out = status.latest;
    return resource_get(s, a, &dataset_version_resource, project, *out, NULL, v, NULL);
}

struct versions {
    struct str dataset[VIEWS_MAX + 1], version[VIEWS_MAX + 1], fingerprint[VIEWS_MAX + 1];
    size_t n;
};

static err version_need(struct store *s, struct arena *a, struct str project, struct str dataset,
                        struct str asked, struct versions *out)
{
    struct dataset_version_spec v;
    for (size_t i = 0; i < out->n; i++)
        if (str_eq(out->dataset[i], dataset))
            return NULL;
    out->dataset[out->n] = dataset;
    TRY(version_choose(s, a, project, dataset, asked, &v, &out->version[out->n]));
    out->fingerprint[out->n++] = v.fingerprint;
    return NULL;
}

/* "versions": {dataset: {name, spec}, …} */
static err versions_put(struct store *s, struct arena *a, struct str project, const struct versions *v,
                        struct json *out)
{
    json_key(out, S("versions"));
    json_obj(out);
    for (size_t i = 0; i < v->n; i++)
        TRY(version_put(s, a, project, v->version[i], str_z(a, v->dataset[i]), out));
    json_obj_end(out);
    return NULL;
}

/* For both workers: the versions that a service's views read. */
err service_versions_put(struct store *s, struct arena *a, struct str project, const struct service *svc,
                         struct str first, struct str asked, struct str *hash, struct json *out)
{
    struct versions v = { 0 };
    struct buf b = buf_new(a);
    if (first.n)
        TRY(version_need(s, a, project, first, asked, &v));
    for (size_t i = 0; i < svc->views_n; i++)
        TRY(version_need(s, a, project, svc->views[i].def.dataset, S(""), &v));
    TRY(versions_put(s, a, project, &v, out));
    for (size_t i = 0; i < v.n; i++)
        buf_fmt(&b, "%.*s %.*s\n", STR(v.version[i]), STR(v.fingerprint[i]));
    *hash = buf_get(&b);
    return NULL;
}

static err names_check(const struct service *svc, const struct training_set_spec *set,
                       const struct dataset_spec *d)
{
    struct str taken[] = { set->label, d->id, d->event_time };
    const struct request_feature *r = svc->def.request.v;
    for (size_t f = 0; f < svc->features_n + svc->texts.n; f++)
        for (size_t i = 0; i < 3; i++)
            if (str_eq(svc->features[f], taken[i]))
                FAIL(INVALID, "feature '%.*s' has the name of a column that is kept beside it",
                     STR(taken[i]));
    for (size_t i = 0; i < svc->def.request.n; i++)
        for (size_t k = 0; k < svc->views_n; k++)
            for (size_t c = 0; c < svc->views[k].def.keys.n; c++)
                if (str_eq(r[i].name, svc->views[k].def.keys.v[c]) && !str_eq(r[i].name, r[i].column))
                    FAIL(INVALID, "feature '%.*s' has the name of a key, and is of column '%.*s'",
                         STR(r[i].name), STR(r[i].column));
    if (str_eq(set->label, d->id) || str_eq(set->label, d->event_time))
        FAIL(INVALID, "the label cannot be the dataset's id or event time");
    return NULL;
}

static err build_prepare(struct job_context *c, const struct job *job, struct json *out)
{
    const struct build_with *with = job->with;
    struct training_set_spec set;
    struct dataset_spec dataset;
    struct service svc;
    struct str hash, known;
    TRY(resource_get(c->store, c->a, &training_set_resource, job->project, with->training_set, NULL, &set,
                     NULL));
    TRY(resource_get(c->store, c->a, &dataset_resource, job->project, set.dataset, NULL, &dataset, NULL));
    TRY(dataset_events(&dataset, set.dataset));
    TRY(service_load(c->store, c->a, job->project, set.service, &svc));
    TRY_AS(names_check(&svc, &set, &dataset), "TrainingSet '%.*s'", STR(with->training_set));
    json_kraw(out, "set", schema_text(&training_set_spec_schema, c->a, &set, WRITE_DEFAULTS));
    json_kraw(out, "definition", svc.text);
    json_kstr(out, "id", dataset.id);
    json_kstr(out, "eventTime", dataset.event_time);
    TRY(service_versions_put(c->store, c->a, job->project, &svc, set.dataset, with->version, &hash, out));
    hash = sha256_hex(c->a, fmt(c->a, "build 1\n%.*s\n%.*s\n%.*s %.*s %.*s %.17g %.*s\n%lld %lld\n%.*s",
                                STR(svc.text), STR(set.dataset), STR(dataset.id), STR(dataset.event_time),
                                STR(set.label), set.sample, STR(set.known_at), (long long)with->from,
                                (long long)with->until, STR(hash)));
    json_kstr(out, "fingerprint", hash);
    err e = version_find(c->store, c->a, job->project, fmt(c->a, "TrainingSet/%.*s", STR(with->training_set)),
                         hash, &known);
    if (!e)
        json_kstr(out, "known", known);
    return e && e->code != NOT_FOUND ? e : NULL;
}

/* ---- in the child ---- */

struct table {
    struct str dataset;
    struct version_in version;
    struct columns columns;
    struct strs names; /* columns to read */
};
struct build {
    struct worker *w;
    struct arena *a;
    struct training_set_spec set;
    struct service svc;
    struct str id, event_time;
    struct table tables[VIEWS_MAX + 1];
    size_t tables_n;
    uint32_t *rows; /* label rows, of tables[0] */
    size_t n;
    double **features;
    int64_t start_ns;
    double join_seconds;
    int threads;
    struct columns out;
    struct dataset_version_spec version;
};

static void name_add(struct arena *a, struct strs *names, struct str name)
{
    for (size_t i = 0; i < names->n; i++)
        if (str_eq(names->v[i], name))
            return;
    push(a, names, name);
}

static struct table *table_of(struct build *b, struct str dataset)
{
    for (size_t i = 0; i < b->tables_n; i++)
        if (str_eq(b->tables[i].dataset, dataset))
            return &b->tables[i];
    b->tables[b->tables_n].dataset = dataset;
    return &b->tables[b->tables_n++];
}

/* Which columns of which table are read at all. */
static void names_gather(struct build *b)
{
    struct table *labels = table_of(b, b->set.dataset);
    const struct request_feature *r = b->svc.def.request.v;
    name_add(b->a, &labels->names, b->id);
    name_add(b->a, &labels->names, b->event_time);
    name_add(b->a, &labels->names, b->set.label);
    for (size_t i = 0; i < b->svc.def.request.n; i++)
        name_add(b->a, &labels->names, r[i].column);
    for (size_t i = 0; i < b->svc.views_n; i++) {
        struct view *v = &b->svc.views[i];
        if (b->set.known_at.n && str_eq(v->def.dataset, b->set.dataset))
            v->def.known_at = b->set.known_at; /* an experiment: this is how a leak is planted */
        struct table *t = table_of(b, v->def.dataset);
        name_add(b->a, &t->names, v->def.known_at);
        for (size_t k = 0; k < v->def.keys.n; k++) {
            name_add(b->a, &t->names, v->def.keys.v[k]);
            name_add(b->a, &b->tables[0].names, v->def.keys.v[k]);
        }
        for (size_t k = 0; k < v->columns.n; k++)
            name_add(b->a, &t->names, v->columns.v[k]);
    }
}

static err build_read_spec(struct build *b)
{
    yyjson_val *spec = b->w->spec;
    TRY(schema_read(&training_set_spec_schema, b->a, S("set"), yyjson_obj_get(spec, "set"), READ_LENIENT,
                    &b->set));
    struct resolved_service def;
    TRY(schema_read(&resolved_service_schema, b->a, S("definition"), yyjson_obj_get(spec, "definition"),
                    READ_LENIENT, &def));
    TRY(service_compile(b->a, &def, &b->svc));
    b->id = json_text_in(spec, "id");
    b->event_time = json_text_in(spec, "eventTime");
    b->threads = (int)yyjson_get_sint(yyjson_obj_get(spec, "cpu"));
    b->threads = b->threads < 2 ? 2 : b->threads;
    names_gather(b);
    return NULL;
}

static err tables_load(struct build *b)
{
    yyjson_val *versions = yyjson_obj_get(b->w->spec, "versions");
    for (size_t i = 0; i < b->tables_n; i++) {
        struct table *t = &b->tables[i];
        worker_progress(b->w, (int64_t)(i * 30 / b->tables_n), 100, "reading events");
        TRY(version_get(b->w->blobs, b->a, yyjson_obj_getn(versions, t->dataset.p, t->dataset.n),
                        &t->version));
        TRY_AS(parquet_load(b->a, &t->version.paths, t->names.v, t->names.n, &t->columns), "version '%.*s'",
               STR(t->version.name));
    }
    return NULL;
}

/* The same rows every time: by a hash of the id, whatever the order or the number of rows. */
static bool sampled(const struct column *id, size_t row, double share)
{
    if (share >= 1)
        return true;
    uint64_t h;
    if (id->type == COL_STR) {
        h = hash64(column_str(id, row));
    } else {
        uint8_t le[8];
        uint64_t v;
        memcpy(&v, id->type == COL_F64 ? (const void *)&id->f[row] : (const void *)&id->i[row], 8);
        for (int i = 0; i < 8; i++)
            le[i] = (uint8_t)(v >> (8 * i));
        h = hash64((struct str){ (const char *)le, 8 });
    }
    return (double)(h >> 11) * 0x1p-53 < share;
}

static err rows_choose(struct build *b)
{
    const struct build_with *with = b->w->with;
    const struct columns *t = &b->tables[0].columns;
    const struct column *id, *time, *label;
    TRY(columns_need(t, b->id, &id));
    TRY(columns_need(t, b->event_time, &time));
    TRY_AS(columns_need(t, b->set.label, &label), "label");
    if (label->type == COL_STR || label->type == COL_TIME)
        FAIL(INVALID, "label '%.*s' is %s, not a number", STR(b->set.label), column_type_names[label->type]);
    b->rows = NEW_N(b->a, uint32_t, t->rows + 1);
    for (size_t i = 0; i < t->rows; i++) {
        if ((with->from || with->until) && column_null(time, i))
            continue;
        if ((with->from && time->i[i] < with->from) || (with->until && time->i[i] >= with->until))
            continue;
        if (sampled(id, i, b->set.sample))
            b->rows[b->n++] = (uint32_t)i;
    }
    if (!b->n)
        FAIL(INVALID,
             "training set has no rows: none of version '%.*s' is in the time asked for and in the sample",
             STR(b->tables[0].version.name));
    return NULL;
}

static err text_check(const struct request_feature *r, const struct columns *labels)
{
    const struct column *c;
    TRY_AS(columns_need(labels, r->column, &c), "request feature '%.*s'", STR(r->name));
    return request_bind(r, c->type);
}

static err features_compute(struct build *b)
{
    const struct columns *labels = &b->tables[0].columns;
    const struct request_feature *r = b->svc.def.request.v;
    const struct column *time = columns_find(labels, b->event_time);
    double **out = b->features = NEW_N(b->a, double *, b->svc.features_n);
    for (size_t f = 0; f < b->svc.features_n; f++)
        out[f] = NEW_N(b->a, double, b->n);
    int64_t start = mono_ns();
    for (size_t i = 0; i < b->svc.views_n; i++) {
        const struct view *v = &b->svc.views[i];
        worker_progress(b->w, 30 + (int64_t)(i * 30 / b->svc.views_n), 100, "joining");
        TRY(view_join(v, &table_of(b, v->def.dataset)->columns, labels, time, b->rows, b->n, b->threads,
                      out));
        out += v->features_n;
        if (worker_stopped(b->w))
            FAIL(CANCELLED, "stopped");
    }
    for (size_t i = 0; i < b->svc.def.request.n; i++)
        if (request_is_text(&r[i]))
            TRY(text_check(&r[i], labels));
        else
            TRY(request_compute(&r[i], labels, b->rows, b->n, *out++));
    b->join_seconds = (double)(mono_ns() - start) / 1e9;
    return NULL;
}

/* A column of the label rows alone, under a name. */
static void column_take(struct build *b, struct str of, struct str name)
{
    const struct column *from = columns_find(&b->tables[0].columns, of);
    if (columns_find(&b->out, name) || !from)
        return;
    struct column *to = columns_add(b->a, &b->out, name, from->type);
    to->dict = from->dict;
    to->dict_n = from->dict_n;
    to->null = from->null ? NEW_N(b->a, uint8_t, b->n) : NULL;
    for (size_t i = 0; i < b->n; i++) {
        uint32_t row = b->rows[i];
        if (to->null)
            to->null[i] = from->null[row];
        if (from->type == COL_STR)
            to->code[i] = from->code[row];
        else if (from->type == COL_F64)
            to->f[i] = from->f[row];
        else
            to->i[i] = from->i[row];
    }
}

static void columns_gather(struct build *b)
{
    b->out.rows = b->n;
    column_take(b, b->id, b->id);
    column_take(b, b->event_time, b->event_time);
    for (size_t i = 0; i < b->svc.views_n; i++)
        for (size_t k = 0; k < b->svc.views[i].def.keys.n; k++)
            column_take(b, b->svc.views[i].def.keys.v[k], b->svc.views[i].def.keys.v[k]);
    for (size_t f = 0; f < b->svc.features_n; f++)
        push(b->a, &b->out,
             (struct column){ .name = b->svc.features[f], .type = COL_F64, .f = b->features[f] });
    const struct request_feature *r = b->svc.def.request.v;
    for (size_t i = 0; i < b->svc.def.request.n; i++)
        if (request_is_text(&r[i]))
            column_take(b, r[i].column, r[i].name);
    column_take(b, b->set.label, b->set.label);
}

/* A file per thread, each with the rows after the one before: reading them in order gives the rows in order. */
struct file_part {
    const struct columns *c;
    const char *path;
    size_t from, to;
    pthread_t thread;
    bool started;
    struct arena *a; /* of its error */
    err e;
};

static void *file_write_part(void *arg)
{
    struct file_part *p = arg;
    err e = parquet_save(p->a, p->path, p->c, p->from, p->to);
    p->e = e ? err_copy(e, p->a) : NULL;
    return NULL;
}

enum { FILES_MAX = 8, FILE_ROWS_MIN = 100000 };

static err files_write(struct build *b, struct file_part *part, size_t n)
{
    err e = NULL;
    for (size_t i = 0; i < n; i++)
        part[i] = (struct file_part){ .c = &b->out,
                                      .path = fmtz(b->a, "%s/rows-%zu.parquet", b->w->dir, i),
                                      .from = b->n * i / n,
                                      .to = b->n * (i + 1) / n,
                                      .a = arena_new(0) };
    for (size_t i = 1; i < n && !e; i++) {
        e = thread_start("write", file_write_part, &part[i], &part[i].thread);
        part[i].started = !e;
    }
    if (!e)
        file_write_part(&part[0]);
    for (size_t i = 0; i < n; i++) {
        if (part[i].started)
            pthread_join(part[i].thread, NULL);
        if (part[i].e && !e)
            e = err_new(part[i].e->code, "%.*s", STR(part[i].e->text));
    }
    return e;
}

static void roles_set(struct build *b)
{
    struct version_column *c = b->version.columns.v;
    for (size_t i = 0; i < b->version.columns.n; i++) {
        c[i].role = IS_KEY;
        if (str_eq(c[i].name, b->id))
            c[i].role = IS_ID;
        else if (str_eq(c[i].name, b->event_time))
            c[i].role = IS_EVENT_TIME;
        else if (str_eq(c[i].name, b->set.label))
            c[i].role = IS_LABEL;
        for (size_t f = 0; f < b->svc.features_n + b->svc.texts.n; f++)
            if (str_eq(c[i].name, b->svc.features[f]))
                c[i].role = IS_FEATURE;
    }
}

static err files_publish(struct build *b, const struct file_part *part, size_t n)
{
    struct version_file *f = NEW_N(b->a, struct version_file, n);
    for (size_t i = 0; i < n; i++) {
        f[i].rows = (int64_t)(part[i].to - part[i].from);
        TRY(blob_take(b->w->blobs, b->a, part[i].path, &f[i].sha, &f[i].bytes));
    }
    b->version.files = (struct list){ f, n };
    return NULL;
}

static err rows_write(struct build *b)
{
    struct file_part part[FILES_MAX];
    struct strs paths = { 0 };
    struct duck *d;
    size_t n = b->n / FILE_ROWS_MIN;
    n = n < 1 ? 1 : n > (size_t)b->threads ? (size_t)b->threads : n;
    n = n > FILES_MAX ? FILES_MAX : n;
    columns_gather(b);
    worker_progress(b->w, 60, 100, "writing rows");
    err e = files_write(b, part, n);
    for (size_t i = 0; i < n; i++)
        push(b->a, &paths, str_of(part[i].path));
    worker_progress(b->w, 80, 100, "measuring features");
    if (!e)
        e = duck_open(b->a, &(struct duck_config){ .threads = b->threads, .files = paths }, &d);
    if (!e)
        e = version_columns(d, b->a, &paths, (int64_t)b->n, &b->version.columns);
    if (!e)
        e = files_publish(b, part, n);
    for (size_t i = 0; i < n; i++) {
        if (e)
            (void)unlink(part[i].path);
        arena_free(part[i].a);
    }
    return e;
}

static void version_fill(struct build *b)
{
    const struct build_with *with = b->w->with;
    struct dataset_version_spec *v = &b->version;
    roles_set(b);
    v->fingerprint = json_text_in(b->w->spec, "fingerprint");
    v->from = with->from;
    v->until = with->until;
    v->rows = (int64_t)b->n;
    v->service = b->set.service;
    v->definition = b->svc.text;
    push(b->a, &v->inputs, fmt(b->a, "TrainingSet/%.*s", STR(with->training_set)));
    push(b->a, &v->inputs, fmt(b->a, "FeatureService/%.*s", STR(b->set.service)));
    for (size_t i = 0; i < b->tables_n; i++)
        push(b->a, &v->inputs, fmt(b->a, "DatasetVersion/%.*s", STR(b->tables[i].version.name)));
}

/* All of it: reading, joining, writing. */
static double seconds_of(const struct build *b)
{
    return (double)(mono_ns() - b->start_ns) / 1e9;
}

static err build_result(struct worker *w, const struct build *b, struct str known)
{
    struct json j = json_new(w->a);
    json_obj(&j);
    if (known.n)
        json_kstr(&j, "known", known);
    else
        json_kraw(&j, "version",
                  schema_text(&dataset_version_spec_schema, w->a, &b->version, WRITE_PERSONAL));
    json_ki64(&j, "rowsPerSecond", known.n ? 0 : (int64_t)((double)b->n / seconds_of(b)));
    json_obj_end(&j);
    worker_progress(w, 100, 100, "done");
    return worker_result(w, json_get(&j));
}

static err build_run(struct worker *w)
{
    struct build b = { .w = w, .a = w->a, .start_ns = mono_ns() };
    struct str known = json_text_in(w->spec, "known");
    if (known.n) {
        worker_say(w, "nothing changed: version %.*s was made from the same rows and definitions",
                   STR(known));
        return build_result(w, &b, known);
    }
    TRY(build_read_spec(&b));
    TRY(tables_load(&b));
    TRY(rows_choose(&b));
    TRY(features_compute(&b));
    TRY(rows_write(&b));
    version_fill(&b);
    worker_say(w, "%zu rows, %zu features in %.2f s (%.2f s of it joining), %.0f rows/s", b.n,
               b.svc.features_n, seconds_of(&b), b.join_seconds, (double)b.n / seconds_of(&b));
    return build_result(w, &b, S(""));
}

/* ---- in the daemon: finish ---- */

static err build_finish(struct job_context *c, const struct job *job, yyjson_val *result, struct json *out)
{
    const struct build_with *with = job->with;
    struct dataset_version_spec v;
    struct str name = json_text_in(result, "known");
    if (name.n) {
        TRY(resource_get(c->store, c->a, &dataset_version_resource, job->project, name, NULL, &v, NULL));
    } else {
        TRY(schema_read(&dataset_version_spec_schema, c->a, S("version"), yyjson_obj_get(result, "version"),
                        READ_LENIENT, &v));
        TRY(version_commit(c->store, c->a, fmt(c->a, "Job/%.*s", STR(job->name)), job->project,
                           &training_set_resource, with->training_set, &v, &name));
    }
    json_kstr(out, "version", name);
    json_kstr(out, "rows", fmt(c->a, "%lld", (long long)v.rows));
    json_kstr(out, "rowsPerSecond",
              fmt(c->a, "%lld", (long long)yyjson_get_sint(yyjson_obj_get(result, "rowsPerSecond"))));
    return NULL;
}

const struct worker_type *feature_build(struct features *f, struct arena *a)
{
    struct worker_type *t = NEW(a, struct worker_type);
    *t = (struct worker_type){ .name = "build",
                               .doc = "Makes a version of a training set by a point-in-time join.",
                               .outputs = "version: the version, new or there already; rows: its rows; "
                                          "rowsPerSecond: how fast they were read, joined and written",
                               .with = &build_with_schema,
                               .prepare = build_prepare,
                               .run = build_run,
                               .finish = build_finish,
                               .self = f };
    return t;
}
