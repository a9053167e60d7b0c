// SPDX-License-Identifier: Apache-2.0
#include "data/internal.h"

#include <ctype.h>
#include <math.h>

const char *const source_formats[] = { "parquet", "csv", "json", "text", NULL };
const char *const rule_names[] = { "rows",  "schema", "notNull", "unique",   "range", "length",    "inSet",
                                   "regex", "mean",   "std",     "distinct", "where", "freshness", NULL };
const char *const severity_names[] = { "fail", "warn", NULL };
const char *const column_roles[] = { "value", "id", "eventTime", "knownAt", "key", "feature", "label", NULL };

SCHEMA_TABLE(source_spec, SOURCE_SPEC, "A file that data comes from.");
SCHEMA_TABLE(expect_rule, EXPECT_RULE, "A rule that every version of a dataset meets.");
SCHEMA_TABLE(dataset_spec, DATASET_SPEC,
             "A table of events or of other things, made from sources by one query.");
SCHEMA_TABLE(dataset_status, DATASET_STATUS, "What was made so far.");
SCHEMA_TABLE(version_file, VERSION_FILE, "A Parquet file of a version.");
SCHEMA_TABLE(column_statistics, COLUMN_STATISTICS, "What a column's values look like.");
SCHEMA_TABLE(version_column, VERSION_COLUMN, "A column of a version.");
SCHEMA_TABLE(version_check, VERSION_CHECK, "How a rule came out.");
SCHEMA_TABLE(dataset_version_spec, DATASET_VERSION_SPEC, "Immutable rows, with what they were made from.");
SCHEMA_TABLE(ingest_with, INGEST_WITH, "Makes a version of a dataset.");

static err source_check(const struct resource_check *c)
{
    const struct source_spec *s = c->spec;
    err e = source_path_check(s->path);
    return e ? err_field(e, S("spec.path")) : NULL;
}

/* ---- Dataset ---- */

static struct str skip_blank(struct str s)
{
    for (;;) {
        while (s.n && isspace((unsigned char)s.p[0]))
            s = str_sub(s, 1, s.n);
        if (str_starts(s, S("--")))
            s = str_sub(s, str_find(s, '\n'), s.n);
        else
            return s;
    }
}

static bool word_is(struct str s, const char *word)
{
    size_t n = strlen(word);
    return s.n >= n && strncasecmp(s.p, word, n) == 0 && (s.n == n || !isalnum((unsigned char)s.p[n]));
}

/* A first look, without DuckDB: the worker checks it whole. */
static err query_check(struct str query)
{
    struct str s = skip_blank(query);
    if (str_has_nul(query) ||
        !(word_is(s, "select") || word_is(s, "with") || word_is(s, "from") || (s.n && s.p[0] == '(')))
        return err_field(err_new(INVALID, "spec.query: it must be one SELECT"), S("spec.query"));
    return NULL;
}

/* What a rule cannot do without, one row per rule. */
static const struct {
    bool column, columns, bounds, values, pattern, where, age, schema;
} rule_needs[RULE_COUNT] = {
    [RULE_ROWS] = { .bounds = true },
    [RULE_SCHEMA] = { .schema = true },
    [RULE_NOT_NULL] = { .columns = true },
    [RULE_UNIQUE] = { .columns = true },
    [RULE_RANGE] = { .column = true, .bounds = true },
    [RULE_LENGTH] = { .column = true, .bounds = true },
    [RULE_IN_SET] = { .column = true, .values = true },
    [RULE_REGEX] = { .column = true, .pattern = true },
    [RULE_MEAN] = { .column = true, .bounds = true },
    [RULE_STD] = { .column = true, .bounds = true },
    [RULE_DISTINCT] = { .column = true, .bounds = true },
    [RULE_WHERE] = { .where = true },
    [RULE_FRESHNESS] = { .age = true },
};

static const char *rule_lacks(const struct expect_rule *r)
{
    if (rule_needs[r->rule].column && !r->column.n)
        return "column";
    if (rule_needs[r->rule].columns && !r->column_names.n)
        return "columnNames";
    if (rule_needs[r->rule].bounds && isnan(r->min) && isnan(r->max))
        return "min or max";
    if (rule_needs[r->rule].values && !r->values.n)
        return "values";
    if (rule_needs[r->rule].pattern && !r->pattern.n)
        return "pattern";
    if (rule_needs[r->rule].where && !r->where.n)
        return "where";
    if (rule_needs[r->rule].age && !r->age)
        return "age";
    return rule_needs[r->rule].schema && !r->columns.n ? "columns" : NULL;
}

static err dataset_check(const struct resource_check *c)
{
    const struct dataset_spec *s = c->spec;
    struct object o;
    if (!s->sources.n != !s->query.n)
        return err_field(err_new(INVALID, "spec.%s is missing: a dataset has sources and a query, or neither",
                                 s->query.n ? "sources" : "query"),
                         s->query.n ? S("spec.sources") : S("spec.query"));
    if (s->query.n)
        TRY(query_check(s->query));
    if (s->known_at.n && !s->event_time.n)
        return err_field(err_new(INVALID, "spec.eventTime is missing: what has no time is not known at one"),
                         S("spec.eventTime"));
    for (size_t i = 0; i < s->expect.n; i++) {
        const struct expect_rule *r = (const struct expect_rule *)s->expect.v + i;
        const char *lacks = rule_lacks(r);
        if (lacks)
            return err_field(
                err_new(INVALID, "spec.expect[%zu]: rule %s needs %s", i, rule_names[r->rule], lacks),
                fmt(c->a, "spec.expect[%zu]", i));
    }
    if (c->name.n > 55)
        FAIL(INVALID,
             "metadata.name: names of datasets have at most 55 characters, as versions are named after them");
    if (c->store && !object_get(c->store, c->a, S("TrainingSet"), c->project, c->name, &o))
        FAIL(CONFLICT, "there is a TrainingSet '%.*s'; versions of both would have the same names",
             STR(c->name));
    return NULL;
}

const struct resource data_resources[] = {
    { .kind = "Source",
      .plural = "sources",
      .one = "src",
      .doc = "A file that data comes from.",
      .spec = &source_spec_schema,
      .verbs = V_ALL,
      .check = source_check },
    { .kind = "Dataset",
      .plural = "datasets",
      .one = "ds",
      .doc = "A table of events, made from sources by one query and checked by rules.",
      .spec = &dataset_spec_schema,
      .status = &dataset_status_schema,
      .verbs = V_ALL,
      .check = dataset_check },
    { .kind = "DatasetVersion",
      .plural = "datasetversions",
      .one = "dv",
      .doc = "An immutable version of a dataset or of a training set.",
      .spec = &dataset_version_spec_schema,
      .verbs = V_READ },
    { 0 },
};
