// SPDX-License-Identifier: Apache-2.0
/* predict: rows to a deployment, by key, as tensors or from a CSV; rollback of what is served. */
#include "cli/csv.h"
#include "cli/request.h"
#include <stdlib.h>

static struct str deployment(const struct cli *c)
{
    return str_of(c->args[0]);
}

static struct str path_of(struct cli *c)
{
    return model_path(c->a, deployment(c), cli_option(c, "version"));
}

/* ---- asking ---- */

/* The server's error says what is wrong; the hint, what the model takes. */
static err hinted(struct cli *c, err e)
{
    struct inputs in;
    if (!e || e->code != INVALID || e->hint.n || inputs_get(c, path_of(c), &in))
        return e;
    return err_hint(e, "%.*s takes %.*s", STR(deployment(c)), STR(inputs_text(c->a, &in)));
}

/* json_n: the length of the JSON that bytes follow; 0: there are none. */
static err ask(struct cli *c, struct str body, size_t json_n, yyjson_val **out)
{
    if (!c->http)
        TRY(cli_http(c, &c->http));
    TRY(http_header(c->http, "Inference-Header-Content-Length", json_n ? fmt(c->a, "%zu", json_n) : S("")));
    return hinted(c, cli_call(c, M_POST, fmt(c->a, "%.*s/infer", STR(path_of(c))), body, out));
}

static err ask_values(struct cli *c, const struct request *r, yyjson_val **out)
{
    struct str body;
    size_t json_n;
    TRY(hinted(c,
               request_make(c->a, r, cli_has(c, "binary") ? REQUEST_BINARY : REQUEST_JSON, &body, &json_n)));
    return ask(c, body, json_n, out);
}

/* ---- one request ---- */

static void predict_lines(struct cli *c, yyjson_val *v)
{
    size_t i, n, k, m;
    yyjson_val *out, *value;
    printf("%.*s version %.*s\n", STR(json_text_at(c->a, v, "model_name")),
           STR(json_text_at(c->a, v, "model_version")));
    yyjson_arr_foreach (yyjson_obj_get(v, "outputs"), i, n, out) {
        printf("%.*s:", STR(json_text_at(c->a, out, "name")));
        yyjson_arr_foreach (yyjson_obj_get(out, "data"), k, m, value)
            printf(" %.*s", STR(json_value_text(c->a, value)));
        printf("\n");
    }
}

/* --key origin=ATL → {"entities":{"origin":["ATL"]}}; numbers go as numbers. */
static err by_key(struct cli *c, yyjson_val **out)
{
    struct json j = json_new(c->a);
    const char *k;
    json_obj(&j);
    json_key(&j, S("entities"));
    json_obj(&j);
    for (int i = 0; (k = cli_option_at(c, "key", i)); i++) {
        struct str rest = str_of(k), key;
        double number;
        if (!strchr(k, '=') || !str_cut(&rest, '=', &key))
            FAIL(INVALID, "--key takes NAME=VALUE, not '%s'", k);
        json_key(&j, key);
        json_arr(&j);
        if (str_f64(rest, &number))
            json_raw(&j, rest);
        else
            json_str(&j, rest);
        json_arr_end(&j);
    }
    json_obj_end(&j);
    json_obj_end(&j);
    return ask(c, json_get(&j), 0, out);
}

static err text_read(struct cli *c, const char *file, struct str *out)
{
    return file_read(c->a, strcmp(file, "-") ? file : "/dev/stdin", REQUEST_BYTES_MAX, out);
}

static err by_file(struct cli *c, yyjson_val **out)
{
    struct str body;
    TRY(text_read(c, cli_option_at(c, "file", 0), &body));
    return ask(c, body, 0, out);
}

static err by_data(struct cli *c, yyjson_val **out)
{
    struct str body = str_of(cli_option_at(c, "data", 0));
    if (str_starts(body, S("@")))
        TRY(text_read(c, body.p + 1, &body));
    return ask(c, body, 0, out);
}

/* ---- --input ---- */

struct literals {
    const struct input *inputs;
    struct strs *v; /* of each input */
};

static err literal(void *arg, const struct input *in, size_t i, struct str *out)
{
    const struct literals *l = arg;
    *out = l->v[in - l->inputs].v[i];
    return NULL;
}

/* Nested lists, flat. */
static err flatten(struct cli *c, yyjson_val *v, size_t depth, struct strs *out)
{
    size_t i, n;
    yyjson_val *one;
    if (depth > INPUT_RANK_MAX || out->n == INPUT_ELEMENTS_MAX)
        FAIL(TOO_LARGE, "--input has more than %d dimensions or %d values", INPUT_RANK_MAX,
             INPUT_ELEMENTS_MAX);
    if (!yyjson_is_arr(v)) {
        push(c->a, out, json_value_text(c->a, v));
        return NULL;
    }
    yyjson_arr_foreach (v, i, n, one)
        TRY(flatten(c, one, depth + 1, out));
    return NULL;
}

/* Open sizes are those of the lists, if they are nested as deep as the shape; else the first takes what the values
 * leave, and further ones are 1. */
static err shape_infer(struct input *in, yyjson_val *v, size_t values)
{
    int64_t sizes[INPUT_RANK_MAX], known = 1;
    size_t depth = 0;
    for (; yyjson_is_arr(v) && depth < INPUT_RANK_MAX; v = yyjson_arr_get_first(v))
        sizes[depth++] = (int64_t)yyjson_arr_size(v);
    bool first = true;
    for (size_t d = 0; d < in->rank; d++)
        if (in->dims[d] > 0 && __builtin_mul_overflow(known, in->dims[d], &known))
            FAIL(TOO_LARGE, "input '%.*s' is too large", STR(in->name));
    for (size_t d = 0; d < in->rank; d++) {
        if (in->dims[d] >= 0)
            continue;
        in->dims[d] = depth == in->rank ? sizes[d] : first ? (int64_t)values / known : 1;
        first = false;
    }
    TRY(input_settle(in));
    if (in->elements != values)
        FAIL(INVALID, "%zu values do not fill input '%.*s'", values, STR(in->name));
    return NULL;
}

static err input_option(struct cli *c, const char *text, const struct inputs *in, struct literals *l)
{
    struct str rest = str_of(text), name;
    yyjson_val *v;
    size_t i = 0;
    if (!strchr(text, '=') || !str_cut(&rest, '=', &name))
        FAIL(INVALID, "--input takes NAME=VALUES, not '%s'", text);
    while (i < in->n && !str_eq(in->v[i].name, name))
        i++;
    if (i == in->n)
        FAIL(INVALID, "there is no input '%.*s'", STR(name));
    if (l->v[i].n)
        FAIL(INVALID, "input '%.*s' is there twice", STR(name));
    if (json_parse(c->a, rest, &v)) {
        push(c->a, &l->v[i], rest); /* one word */
        v = NULL;
    } else {
        TRY(flatten(c, v, 0, &l->v[i]));
    }
    return shape_infer(&in->v[i], v, l->v[i].n);
}

static err by_input(struct cli *c, yyjson_val **out)
{
    struct inputs in;
    const char *text;
    TRY(inputs_get(c, path_of(c), &in));
    struct literals l = { in.v, NEW_N(c->a, struct strs, in.n + 1) };
    for (int i = 0; (text = cli_option_at(c, "input", i)); i++)
        TRY(hinted(c, input_option(c, text, &in, &l)));
    for (size_t i = 0; i < in.n; i++)
        if (!l.v[i].n)
            return hinted(c, err_new(INVALID, "--input says nothing of '%.*s'", STR(in.v[i].name)));
    return ask_values(c, &(struct request){ .v = in.v, .n = in.n, .value = literal, .arg = &l }, out);
}

/* ---- --csv ---- */

enum { BATCH_MAX = 1 << 20, COLUMNS_MAX = 1 << 16 };

struct sheet {
    struct strs heads;
    VEC(struct strs) rows;
    size_t first, n;             /* rows of the request that is being made */
    const struct inputs *inputs; /* what the columns fill: */
    size_t **at;                 /* of each input, the column of each value of a row */
    struct table *table;         /* what is shown: columns and outputs; NULL before the first reply */
};

static err sheet_read(struct cli *c, struct sheet *s)
{
    struct str text;
    struct strs row = { 0 };
    err wrong;
    TRY(text_read(c, cli_option_at(c, "csv", 0), &text));
    if (str_starts(text, S("\xef\xbb\xbf")))
        text = str_sub(text, 3, text.n);
    while (csv_row(c->a, &text, &row, &wrong)) {
        if (!s->heads.n)
            s->heads = row;
        else
            push(c->a, &s->rows, row);
        if (row.n != s->heads.n)
            FAIL(INVALID, "row %zu of the CSV has %zu cells, its head has %zu", s->rows.n, row.n, s->heads.n);
        row = (struct strs){ 0 };
    }
    if (!wrong && !s->rows.n)
        FAIL(INVALID, "the CSV has no rows below its head");
    return wrong;
}

static bool column_find(const struct sheet *s, struct str name, size_t *out)
{
    for (size_t i = 0; i < s->heads.n; i++)
        if (str_eq(str_trim(s->heads.v[i]), name)) {
            *out = i;
            return true;
        }
    return false;
}

/* Whether every key, and every value that a request by key must have, has its column. */
static bool has_entities(struct cli *c, const struct sheet *s, yyjson_val *entities)
{
    size_t i, n, at;
    yyjson_val *e;
    yyjson_arr_foreach (entities, i, n, e)
        if (!yyjson_is_true(json_at(e, "optional")) && !column_find(s, json_text_at(c->a, e, "name"), &at))
            return false;
    return yyjson_arr_size(entities) > 0;
}

static void entity_cell(struct json *j, bool text, struct str cell)
{
    double number;
    if (!cell.n)
        json_null(j);
    else if (!text && str_f64(cell, &number))
        json_raw(j, cell);
    else if (!text && (str_is(cell, "true") || str_is(cell, "false")))
        json_raw(j, cell);
    else
        json_str(j, cell);
}

static err ask_entities(struct cli *c, struct sheet *s, yyjson_val **out)
{
    struct json j = json_new(c->a);
    size_t i, n, at;
    yyjson_val *e;
    json_obj(&j);
    json_key(&j, S("entities"));
    json_obj(&j);
    yyjson_arr_foreach (s->inputs->entities, i, n, e) {
        struct str name = json_text_at(c->a, e, "name"), type = json_text_at(c->a, e, "type");
        if (!column_find(s, name, &at))
            continue;
        json_key(&j, name);
        json_arr(&j);
        for (size_t r = 0; r < s->n; r++)
            entity_cell(&j, str_is(type, "VARCHAR") || str_is(type, "TIMESTAMP"),
                        s->rows.v[s->first + r].v[at]);
        json_arr_end(&j);
    }
    json_obj_end(&j);
    json_obj_end(&j);
    return ask(c, json_get(&j), 0, out);
}

/* The names that the version's signature gives to the values of its one input; none if it names none. */
static yyjson_val *features_get(struct cli *c)
{
    struct str path, version = str_of(cli_option(c, "version"));
    yyjson_val *d, *v;
    if (cli_path(c, S("deployments"), deployment(c), NULL, NULL, &path) ||
        cli_call(c, M_GET, path, S(""), &d))
        return NULL;
    if (!version.n)
        version = json_text_at(c->a, d, "status.version");
    else if (str_find(version, '.') == version.n)
        version = fmt(c->a, "%.*s.%.*s", STR(json_text_at(c->a, d, "spec.model")), STR(version));
    if (cli_path(c, S("modelversions"), version, NULL, NULL, &path) || cli_call(c, M_GET, path, S(""), &v))
        return NULL;
    return json_at(v, "spec.signature.features");
}

/* The column of value k of an input's row: named as the feature, the input, or "input.k". */
static err column_of(struct cli *c, const struct sheet *s, const struct input *in, size_t width,
                     yyjson_val *features, size_t k, size_t *out)
{
    struct str name = features    ? json_value_text(c->a, yyjson_arr_get(features, k))
                      : width > 1 ? fmt(c->a, "%.*s.%zu", STR(in->name), k)
                                  : in->name;
    if (!column_find(s, name, out))
        return hinted(c, err_new(INVALID, "the CSV has no column '%.*s'", STR(name)));
    return NULL;
}

/* Which columns fill an input; the first size of each is open, for the rows. */
static err columns_bind(struct cli *c, struct sheet *s, size_t i, yyjson_val *features)
{
    struct input *in = &s->inputs->v[i];
    if (!in->rank || in->dims[0] >= 0)
        return err_hint(err_new(UNSUPPORTED, "input '%.*s' does not take several rows", STR(in->name)),
                        "give it by --input or --file");
    in->dims[0] = 1;
    TRY_AS(input_settle(in), "a CSV has rows of a fixed width");
    size_t width = in->elements;
    if (width > COLUMNS_MAX)
        FAIL(UNSUPPORTED, "input '%.*s' is wider than %d columns", STR(in->name), COLUMNS_MAX);
    if (s->inputs->n > 1 || yyjson_arr_size(features) != width)
        features = NULL;
    s->at[i] = NEW_N(c->a, size_t, width + 1);
    for (size_t k = 0; k < width; k++)
        TRY(column_of(c, s, in, width, features, k, &s->at[i][k]));
    return NULL;
}

static err sheet_value(void *arg, const struct input *in, size_t i, struct str *out)
{
    const struct sheet *s = arg;
    size_t width = in->elements / s->n;
    *out = s->rows.v[s->first + i / width].v[s->at[in - s->inputs->v][i % width]];
    return NULL;
}

static err ask_tensors(struct cli *c, struct sheet *s, yyjson_val **out)
{
    for (size_t i = 0; i < s->inputs->n; i++) {
        s->inputs->v[i].dims[0] = (int64_t)s->n;
        TRY(input_settle(&s->inputs->v[i]));
    }
    return ask_values(
        c, &(struct request){ .v = s->inputs->v, .n = s->inputs->n, .value = sheet_value, .arg = s }, out);
}

/* ---- rows with their scores ---- */

/* Values of an output for each row; 0 if they are not of rows. */
static size_t output_width(const struct sheet *s, yyjson_val *out)
{
    size_t values = yyjson_arr_size(yyjson_obj_get(out, "data"));
    return values % s->n ? 0 : values / s->n;
}

static void table_begin(struct cli *c, struct sheet *s, yyjson_val *outputs)
{
    struct strs names = { 0 };
    size_t i, n;
    yyjson_val *out;
    yyjson_arr_foreach (outputs, i, n, out) {
        struct str name = json_text_at(c->a, out, "name");
        size_t width = output_width(s, out);
        for (size_t k = 0; k < width; k++)
            push(c->a, &names, width > 1 ? fmt(c->a, "%.*s.%zu", STR(name), k) : name);
    }
    s->table = NEW(c->a, struct table);
    *s->table = table_new(c->a, s->heads.n + names.n);
    for (i = 0; i < s->heads.n; i++)
        table_cell(s->table, s->heads.v[i]);
    for (i = 0; i < names.n; i++)
        table_cell(s->table, names.v[i]);
}

static err rows_add(struct cli *c, struct sheet *s, yyjson_val *reply)
{
    yyjson_val *outputs = yyjson_obj_get(reply, "outputs"), *out, *value;
    size_t i, n, k, m, before = s->heads.n;
    if (!s->table)
        table_begin(c, s, outputs);
    struct table *t = s->table;
    struct str *cells = NEW_N(c->a, struct str, s->n * t->columns);
    for (size_t r = 0; r < s->n && s->heads.n; r++)
        memcpy(&cells[r * t->columns], s->rows.v[s->first + r].v, s->heads.n * sizeof *cells);
    yyjson_arr_foreach (outputs, i, n, out) {
        size_t width = output_width(s, out);
        if (before + width > t->columns)
            FAIL(INTERNAL, "the server's answers differ in their outputs");
        yyjson_arr_foreach (yyjson_obj_get(out, "data"), k, m, value)
            if (width)
                cells[k / width * t->columns + before + k % width] = json_value_text(c->a, value);
        before += width;
    }
    for (i = 0; i < s->n * t->columns; i++)
        table_cell(t, cells[i]);
    return NULL;
}

/* [{"head": cell, …}, …] */
static struct str table_json(struct cli *c, const struct table *t)
{
    struct json j = json_new(c->a);
    json_arr(&j);
    for (size_t i = t->columns; i < t->cells.n; i++) {
        if (i % t->columns == 0)
            json_obj(&j);
        json_key(&j, t->cells.v[i % t->columns]);
        entity_cell(&j, false, t->cells.v[i]);
        if ((i + 1) % t->columns == 0)
            json_obj_end(&j);
    }
    json_arr_end(&j);
    return json_get(&j);
}

/* Rows of an answer that came alone: the first size of its first output. */
static void sheet_alone(struct cli *c, struct sheet *s, yyjson_val *reply)
{
    yyjson_val *first = yyjson_arr_get_first(yyjson_obj_get(reply, "outputs"));
    int64_t n = yyjson_get_sint(yyjson_arr_get_first(yyjson_obj_get(first, "shape")));
    size_t values = yyjson_arr_size(yyjson_obj_get(first, "data"));
    s->n = n > 0 && (size_t)n <= values ? (size_t)n : 1;
    for (size_t i = 0; i < s->n; i++)
        push(c->a, &s->rows, (struct strs){ 0 });
}

static err sheet_show(struct cli *c, const struct sheet *s)
{
    yyjson_val *v;
    if (c->output == OUT_TABLE || c->output == OUT_CSV) {
        cli_table(c, s->table);
        return NULL;
    }
    TRY(json_parse(c->a, table_json(c, s->table), &v));
    return cli_show(c, v, NULL);
}

static err predict_csv(struct cli *c)
{
    struct sheet s = { 0 };
    struct inputs in;
    int64_t batch;
    yyjson_val *reply;
    if (!str_i64(str_of(cli_option(c, "batch")), &batch) || batch < 1 || batch > BATCH_MAX)
        FAIL(INVALID, "--batch is a number from 1 to %d", BATCH_MAX);
    TRY(sheet_read(c, &s));
    TRY(inputs_get(c, path_of(c), &in));
    s.inputs = &in;
    bool entities = has_entities(c, &s, in.entities);
    yyjson_val *features = entities || in.n > 1 ? NULL : features_get(c);
    s.at = NEW_N(c->a, size_t *, in.n + 1);
    for (size_t i = 0; i < in.n && !entities; i++)
        TRY(columns_bind(c, &s, i, features));
    for (; s.first < s.rows.n; s.first += s.n) {
        s.n = s.rows.n - s.first < (size_t)batch ? s.rows.n - s.first : (size_t)batch;
        TRY_AS(entities ? ask_entities(c, &s, &reply) : ask_tensors(c, &s, &reply), "rows %zu to %zu",
               s.first + 1, s.first + s.n);
        TRY(rows_add(c, &s, reply));
        cli_progress("%zu of %zu rows", s.first + s.n, s.rows.n);
    }
    cli_progress_end();
    return sheet_show(c, &s);
}

/* ---- the verbs ---- */

static err predict_run(struct cli *c)
{
    static const struct {
        const char *option;
        err (*ask)(struct cli *, yyjson_val **); /* NULL: rows */
    } sources[] = {
        { "key", by_key }, { "input", by_input }, { "csv", NULL }, { "file", by_file }, { "data", by_data }
    };
    yyjson_val *v;
    size_t given = 0, at = 0;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (cli_has(c, sources[i].option)) {
            given++;
            at = i;
        }
    if (given != 1)
        return hinted(c, err_new(INVALID, "predict needs one of --key, --input, --csv, --file and --data"));
    if (!sources[at].ask)
        return predict_csv(c);
    TRY(sources[at].ask(c, &v));
    if (c->output != OUT_CSV)
        return cli_show(c, v, predict_lines);
    struct sheet s = { 0 };
    sheet_alone(c, &s, v);
    TRY(rows_add(c, &s, v));
    return sheet_show(c, &s);
}

static err rollback_run(struct cli *c)
{
    struct str path;
    yyjson_val *v;
    TRY(cli_path(c, S("deployments"), deployment(c), "rollback", NULL, &path));
    TRY(cli_call(c, M_POST, path, S("{}"), &v));
    return cli_show(c, v, NULL);
}

static const struct option predict_options[] = {
    { "key", 'k', "NAME=VALUE", "A key or a value of the request; give one for each.", NULL, true },
    { "input", 'i', "NAME=VALUES",
      "An input's values as a JSON list, nested or flat; open sizes are inferred. One for each input.", NULL,
      true },
    { "csv", 0, "FILE|-",
      "Rows: columns named as keys, features, inputs (or INPUT.0, INPUT.1, …); further columns are passed on.",
      NULL, false },
    { "file", 'f', "FILE|-", "The whole request body.", NULL, false },
    { "data", 'd', "JSON|@FILE", "The same, given here.", NULL, false },
    { "version", 0, "NAME", "A certain version.", NULL, false },
    { "batch", 0, "N", "Rows of a CSV that one request asks for.", "1000", false },
    { "binary", 0, NULL, "Send tensors as bytes, not as JSON.", NULL, false },
    { 0 },
};
const struct cli_verb verb_predict = {
    .name = "predict",
    .args = "DEPLOYMENT",
    .doc = "Ask a deployment for predictions: by key, by values, or for the rows of a CSV.",
    .examples =
        "  dhow predict late -k origin=ATL -k destination=ORD -k date=2001-06-15T17:00 -k ts=2001-06-15T23:00 -k distance=606\n"
        "  dhow predict iris -i x=[5.1,3.5,1.4,0.2]\n"
        "  dhow predict late --csv flights.csv -o csv > scored.csv\n"
        "  dhow predict late -f request.json -o json",
    .options = predict_options,
    .args_min = 1,
    .args_max = 1,
    .run = predict_run,
    .client = true,
};
const struct cli_verb verb_rollback = {
    .name = "rollback",
    .args = "DEPLOYMENT",
    .doc = "Serve the version before again, at once.",
    .examples = "  dhow rollback late",
    .args_min = 1,
    .args_max = 1,
    .run = rollback_run,
    .client = true,
};
