// SPDX-License-Identifier: Apache-2.0
/* Rules about the rows: each becomes one expression of a single SELECT over the file that would be stored,
 * so that what is checked is what is kept. Examples are looked up only for rules that do not hold. */
#include "data/internal.h"

#include <math.h>

static const struct duck_column *column_find(const struct duck_columns *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq(c->v[i].name, name))
            return &c->v[i];
    return NULL;
}

static err column_need(struct arena *a, const struct duck_columns *c, struct str name, const char *what,
                       const struct duck_column **out)
{
    *out = column_find(c, name);
    if (*out)
        return NULL;
    struct str *names = NEW_N(a, struct str, c->n + 1);
    for (size_t i = 0; i < c->n; i++)
        names[i] = c->v[i].name;
    struct str near = str_nearest(name, names, c->n);
    if (near.n)
        FAIL(INVALID, "%s: the query gives no column '%.*s'; is it '%.*s'?", what, STR(name), STR(near));
    FAIL(INVALID, "%s: the query gives no column '%.*s'", what, STR(name));
}

static struct str check_name(struct arena *a, const struct expect_rule *r, const struct strs *columns)
{
    struct str tail = columns->n ? str_join(a, columns->v, columns->n, S("_")) : S("");
    if (r->name.n)
        return r->rule == RULE_NOT_NULL && r->column_names.n > 1
                   ? fmt(a, "%.*s_%.*s", STR(r->name), STR(tail))
                   : r->name;
    return tail.n ? fmt(a, "%s_%.*s", rule_names[r->rule], STR(tail)) : str_of(rule_names[r->rule]);
}

/* "NOT (x >= min AND x <= max)" of the bounds given. */
static struct str outside(struct arena *a, struct str x, const struct expect_rule *r)
{
    struct buf b = buf_new(a);
    char n[32];
    buf_str(&b, S("NOT ("));
    if (!isnan(r->min))
        buf_fmt(&b, "%.*s >= %.*s", STR(x), (int)f64_text(r->min, n), n);
    if (!isnan(r->max))
        buf_fmt(&b, "%s%.*s <= %.*s", isnan(r->min) ? "" : " AND ", STR(x), (int)f64_text(r->max, n), n);
    buf_str(&b, S(")"));
    return buf_get(&b);
}

static struct str in_list(struct arena *a, struct str x, const struct strs *values)
{
    struct buf b = buf_new(a);
    buf_fmt(&b, "CAST(%.*s AS VARCHAR) NOT IN (", STR(x));
    for (size_t i = 0; i < values->n; i++) {
        buf_str(&b, i ? S(", ") : S(""));
        buf_str(&b, sql_text(a, values->v[i]));
    }
    buf_str(&b, S(")"));
    return buf_get(&b);
}

static struct str hash_of(struct arena *a, const struct strs *columns)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < columns->n; i++) {
        buf_str(&b, i ? S(", ") : S(""));
        buf_str(&b, sql_name(a, columns->v[i]));
    }
    return columns->n == 1 ? buf_get(&b) : fmt(a, "hash(%.*s)", STR(buf_get(&b)));
}

static struct str all_there(struct arena *a, const struct strs *columns)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < columns->n; i++)
        buf_fmt(&b, "%s%.*s IS NOT NULL", i ? " AND " : "", STR(sql_name(a, columns->v[i])));
    return buf_get(&b);
}

static bool is_number(const struct duck_column *c)
{
    enum column_type t;
    return column_type_of(c->type, &t) && (t == COL_I64 || t == COL_F64 || t == COL_BOOL);
}

static bool is_text(const struct duck_column *c)
{
    enum column_type t;
    return column_type_of(c->type, &t) && t == COL_STR;
}

/* What each rule makes of itself: a predicate of bad rows, or a value. x: the column, quoted. */
static err rule_make(struct arena *a, const struct dataset_spec *spec, const struct duck_column *col,
                     struct str x, int64_t until, struct check *c)
{
    const struct expect_rule *r = c->rule;
    switch (r->rule) {
    case RULE_ROWS:
        c->value = S("count(*)");
        return NULL;
    case RULE_NOT_NULL:
        c->bad = fmt(a, "%.*s IS NULL", STR(x));
        return NULL;
    case RULE_UNIQUE: {
        struct str there = all_there(a, &c->columns);
        c->value = fmt(a, "count(*) FILTER (WHERE %.*s) - count(DISTINCT %.*s) FILTER (WHERE %.*s)",
                       STR(there), STR(hash_of(a, &c->columns)), STR(there));
        return NULL;
    }
    case RULE_RANGE:
        c->bad = outside(a, x, r);
        return NULL;
    case RULE_LENGTH:
        c->bad = outside(a, fmt(a, "length(%.*s)", STR(x)), r);
        return NULL;
    case RULE_IN_SET:
        c->bad = in_list(a, x, &r->values);
        return NULL;
    case RULE_REGEX:
        c->bad = fmt(a, "NOT regexp_full_match(%.*s, %.*s)", STR(x), STR(sql_text(a, r->pattern)));
        return NULL;
    case RULE_MEAN:
        c->value = fmt(a, "avg(%.*s)", STR(x));
        return NULL;
    case RULE_STD:
        c->value = fmt(a, "stddev_samp(%.*s)", STR(x));
        return NULL;
    case RULE_DISTINCT:
        c->value = fmt(a, "approx_count_distinct(%.*s)", STR(x));
        return NULL;
    case RULE_WHERE:
        c->bad = fmt(a, "NOT (\n%.*s\n)", STR(r->where));
        return NULL;
    case RULE_FRESHNESS:
        c->value = fmt(a, "(%lld - max(%.*s)) / 1000", (long long)(until ? until : now_us()),
                       STR(time_sql(a, spec->event_time, col->type)));
        return NULL;
    default:
        return NULL;
    }
}

static err rule_fits(const struct expect_rule *r, const struct duck_column *c)
{
    bool number = r->rule == RULE_RANGE || r->rule == RULE_MEAN || r->rule == RULE_STD;
    bool text = r->rule == RULE_LENGTH || r->rule == RULE_REGEX;
    if ((number && !is_number(c)) || (text && !is_text(c)))
        FAIL(INVALID, "rule %s: column '%.*s' is %.*s, not %s", rule_names[r->rule], STR(c->name),
             STR(c->type), number ? "a number" : "text");
    return NULL;
}

static err check_add(struct arena *a, const struct dataset_spec *spec, const struct duck_columns *cols,
                     const struct expect_rule *r, const struct strs *columns, int64_t until,
                     struct checks *out)
{
    struct check c = { .rule = r };
    const struct duck_column *col = NULL;
    for (size_t i = 0; i < columns->n; i++) {
        push(a, &c.columns, columns->v[i]);
        TRY(column_need(a, cols, columns->v[i], fmtz(a, "rule %s", rule_names[r->rule]), &col));
        TRY(rule_fits(r, col));
    }
    if (r->rule == RULE_FRESHNESS)
        TRY(column_need(a, cols, spec->event_time, "eventTime", &col));
    c.out = (struct version_check){
        .name = check_name(a, r, columns), .rule = r->rule, .severity = r->severity, .value = NAN
    };
    TRY(rule_make(a, spec, col, col ? sql_name(a, col->name) : S(""), until, &c));
    push(a, out, c);
    return NULL;
}

/* Types are known before a row is read. */
static void check_schema(struct arena *a, const struct duck_columns *cols, const struct expect_rule *r,
                         struct checks *out)
{
    struct check c = { .rule = r };
    c.out = (struct version_check){
        .name = r->name.n ? r->name : S("schema"), .rule = r->rule, .severity = r->severity, .value = NAN
    };
    for (size_t i = 0; i < r->columns.n; i++) {
        const struct duck_column *have = column_find(cols, r->columns.v[i].key);
        if (have && str_eq(have->type, r->columns.v[i].value))
            continue;
        c.out.failed++;
        push(a, &c.columns, r->columns.v[i].key);
        if (c.out.examples.n < 5)
            push(a, &c.out.examples,
                 fmt(a, "%.*s is %.*s, not %.*s", STR(r->columns.v[i].key),
                     STR(have ? have->type : S("missing")), STR(r->columns.v[i].value)));
    }
    c.out.ok = !c.out.failed;
    push(a, out, c);
}

static err checks_of_rule(struct arena *a, const struct dataset_spec *spec, const struct duck_columns *cols,
                          const struct expect_rule *r, int64_t until, struct checks *out)
{
    struct str one = r->column;
    if (r->rule == RULE_SCHEMA) {
        check_schema(a, cols, r, out);
        return NULL;
    }
    if (r->rule == RULE_UNIQUE)
        return check_add(a, spec, cols, r, &r->column_names, until, out);
    if (r->rule == RULE_NOT_NULL) {
        for (size_t i = 0; i < r->column_names.n; i++)
            TRY(check_add(a, spec, cols, r, &(struct strs){ &r->column_names.v[i], 1, 1 }, until, out));
        return NULL;
    }
    return check_add(a, spec, cols, r, &(struct strs){ &one, one.n > 0, 1 }, until, out);
}

static bool checks_have(const struct checks *c, enum rule rule, struct str column)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i].rule->rule == (int)rule && c->v[i].columns.n == 1 &&
            str_eq(c->v[i].columns.v[0], column) && c->v[i].rule->severity == SEVERITY_FAIL &&
            c->v[i].rule->mostly >= 1)
            return true;
    return false;
}

/* What no dataset can do without, whatever its rules say. */
static err checks_always(struct arena *a, const struct dataset_spec *spec, const struct duck_columns *cols,
                         int64_t until, struct checks *out)
{
    struct str need[] = { spec->id, spec->event_time, spec->known_at };
    for (size_t i = 0; i <= 3; i++) {
        enum rule rule = i < 3 ? RULE_NOT_NULL : RULE_UNIQUE;
        struct str column = need[i % 3];
        if (!column.n || checks_have(out, rule, column))
            continue;
        struct expect_rule *r = NEW(a, struct expect_rule);
        *r = (struct expect_rule){ .rule = rule, .min = NAN, .max = NAN, .mostly = 1 };
        push(a, &r->column_names, column);
        TRY(checks_of_rule(a, spec, cols, r, until, out));
    }
    return NULL;
}

err checks_new(struct arena *a, const struct dataset_spec *spec, const struct duck_columns *cols,
               int64_t until, struct checks *out)
{
    *out = (struct checks){ 0 };
    for (size_t i = 0; i < spec->expect.n; i++)
        TRY(checks_of_rule(a, spec, cols, (const struct expect_rule *)spec->expect.v + i, until, out));
    return checks_always(a, spec, cols, until, out);
}

void checks_sql(struct arena *a, const struct checks *c, struct buf *out)
{
    (void)a;
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i].bad.n)
            buf_fmt(out, ", count(*) FILTER (WHERE %.*s) AS c%zu", STR(c->v[i].bad), i);
        else if (c->v[i].value.n)
            buf_fmt(out, ", %.*s AS c%zu", STR(c->v[i].value), i);
}

static void check_take(struct check *c, double v, int64_t rows)
{
    const struct expect_rule *r = c->rule;
    if (c->bad.n || r->rule == RULE_UNIQUE) {
        c->out.failed = isnan(v) ? 0 : (int64_t)v;
        c->out.ok = (double)c->out.failed <= (1 - r->mostly) * (double)rows;
        return;
    }
    c->out.value = v;
    if (r->rule == RULE_FRESHNESS)
        c->out.ok = v <= (double)r->age;
    else
        c->out.ok = !isnan(v) && !(v < r->min) && !(v > r->max);
    c->out.failed = c->out.ok ? 0 : rows;
}

void checks_take(struct checks *c, const struct columns *row, int64_t rows)
{
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < c->n; i++) {
        const struct column *v = columns_find(row, fmt(a, "c%zu", i));
        if (v && (c->v[i].bad.n || c->v[i].value.n))
            check_take(&c->v[i], column_f64(v, 0), rows);
    }
}

err checks_examples(struct duck *d, struct arena *a, struct checks *c, struct str id, struct str from)
{
    struct str name = id.n ? sql_name(a, id) : S("file_row_number");
    for (size_t i = 0; i < c->n; i++) {
        struct check *k = &c->v[i];
        struct columns ids;
        struct str where = k->bad;
        if (!k->out.failed || (!k->bad.n && k->rule->rule != RULE_UNIQUE))
            continue;
        if (k->rule->rule == RULE_UNIQUE) {
            struct str h = hash_of(a, &k->columns);
            where = fmt(a,
                        "%.*s IN (SELECT %.*s FROM %.*s WHERE %.*s GROUP BY 1 HAVING count(*) > 1 LIMIT 5)",
                        STR(h), STR(h), STR(from), STR(all_there(a, &k->columns)));
        }
        TRY(duck_load(d, a,
                      fmt(a, "SELECT CAST(%.*s AS VARCHAR) AS id FROM %.*s WHERE %.*s LIMIT 5", STR(name),
                          STR(from), STR(where)),
                      &ids));
        for (size_t row = 0; row < ids.rows; row++)
            push(a, &k->out.examples, column_text(a, &ids.v[0], row));
    }
    return NULL;
}

/* "column 'delay': 12 rows outside -180 to 1440, as in rows 1, 2" */
static struct str check_why(struct arena *a, const struct check *c)
{
    struct buf b = buf_new(a);
    char n[32];
    if (c->columns.n)
        buf_fmt(&b, "column%s %.*s: ", c->columns.n > 1 ? "s" : "",
                STR(str_join(a, c->columns.v, c->columns.n, S(", "))));
    if (c->rule->rule == RULE_SCHEMA)
        buf_fmt(&b, "%lld of another type", (long long)c->out.failed);
    else if (!isnan(c->out.value))
        buf_fmt(&b, "it is %.*s", (int)f64_text(c->out.value, n), n);
    else
        buf_fmt(&b, "%lld rows", (long long)c->out.failed);
    if (!isnan(c->rule->min) || !isnan(c->rule->max))
        buf_str(&b, S(", allowed"));
    if (!isnan(c->rule->min))
        buf_fmt(&b, " from %.*s", (int)f64_text(c->rule->min, n), n);
    if (!isnan(c->rule->max))
        buf_fmt(&b, " to %.*s", (int)f64_text(c->rule->max, n), n);
    if (c->rule->rule == RULE_FRESHNESS)
        buf_fmt(&b, " ms old, allowed %.*s", STR(duration_text(a, c->rule->age)));
    if (c->out.examples.n)
        buf_fmt(&b, "%s%.*s", c->rule->rule == RULE_SCHEMA ? "; " : "; ids ",
                STR(str_join(a, c->out.examples.v, c->out.examples.n, S(", "))));
    return buf_get(&b);
}

struct str check_line(struct arena *a, const struct check *c)
{
    const char *mark = c->out.ok ? "ok" : c->out.severity == SEVERITY_WARN ? "warn" : "FAIL";
    if (c->out.ok && !c->out.failed && isnan(c->out.value))
        return fmt(a, "%-4s %.*s", mark, STR(c->out.name));
    return fmt(a, "%-4s %.*s: %.*s", mark, STR(c->out.name), STR(check_why(a, c)));
}

err checks_result(struct arena *a, const struct checks *c, struct str dataset)
{
    const struct check *first = NULL;
    size_t more = 0;
    for (size_t i = 0; i < c->n; i++)
        if (!c->v[i].out.ok && c->v[i].out.severity == SEVERITY_FAIL) {
            more += first != NULL;
            first = first ? first : &c->v[i];
        }
    if (!first)
        return NULL;
    struct str others = more ? fmt(a, " (and %zu more rules)", more) : S("");
    return err_hint(err_new(INVALID,
                            "dataset '%.*s' breaks rule '%.*s' (%s): %.*s%.*s; nothing was committed",
                            STR(dataset), STR(first->out.name), rule_names[first->rule->rule],
                            STR(check_why(a, first)), STR(others)),
                    "correct the source or the query; a rule of severity warn only counts");
}
