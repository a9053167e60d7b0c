// SPDX-License-Identifier: Apache-2.0
/* get, describe, delete, explain, lineage: looking at resources. */
#include "cli/cli.h"
#include <stdlib.h>

/* "kind/name" or "kind" "name". */
static void target_of(const struct cli *c, struct str *kind, struct str *name)
{
    struct str rest = str_of(c->args[0]);
    *kind = rest;
    *name = S("");
    if (str_find(rest, '/') < rest.n) {
        str_cut(&rest, '/', kind);
        *name = rest;
    } else if (c->n_args > 1) {
        *name = str_of(c->args[1]);
    }
}

static const struct resource *shown; /* of the one command that runs in this process */

static size_t columns_of(const struct schema *s)
{
    size_t n = 0;
    for (size_t i = 0; s && i < s->n; i++)
        n += (s->fields[i].flags & COLUMN) != 0;
    return n;
}

static void heading(struct cli *c, struct table *t, const struct schema *s)
{
    for (size_t i = 0; s && i < s->n; i++)
        if (s->fields[i].flags & COLUMN)
            table_heading(t, field_key(c->a, &s->fields[i]));
}

/* "late.1 90%, late.2 10%" of objects with a share; else how many members it has. */
static struct str members_text(struct arena *a, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *one;
    struct strs parts = { 0 };
    yyjson_arr_foreach (v, i, n, one) {
        double share = yyjson_get_num(json_at(one, "share"));
        if (share > 0)
            push(a, &parts, fmt(a, "%.*s %.3g%%", STR(json_text_at(a, one, "version")), share * 100));
    }
    if (parts.n)
        return str_join(a, parts.v, parts.n, S(", "));
    return fmt(a, "%zu", yyjson_is_arr(v) ? yyjson_arr_size(v) : yyjson_obj_size(v));
}

static void cells(struct cli *c, struct table *t, const struct schema *s, yyjson_val *v)
{
    for (size_t i = 0; s && i < s->n; i++) {
        const struct field *f = &s->fields[i];
        if (!(f->flags & COLUMN))
            continue;
        struct str key = field_key(c->a, f);
        yyjson_val *m = yyjson_obj_getn(v, key.p, key.n);
        struct str text = json_value_text(c->a, m);
        if (!m && f->def)
            text = str_of(f->def);
        else if (!m && f->type == F_ENUM)
            text = str_of(f->values[0]);
        if (m && f->type == F_TIME) {
            int64_t us;
            text = time_parse(text, &us) ? age_text(c->a, us) : text;
        } else if (yyjson_is_real(m)) {
            text = fmt(c->a, "%.4g", yyjson_get_real(m));
        } else if (yyjson_is_arr(m) || yyjson_is_obj(m)) {
            text = members_text(c->a, m);
        }
        table_cell(t, str_sub(text, 0, 80));
    }
}

static void list_table(struct cli *c, yyjson_val *v)
{
    const struct resource *r = shown;
    yyjson_val *items = yyjson_obj_get(v, "items"), *item;
    size_t i, n, columns = 2 + columns_of(r->spec) + columns_of(r->status);
    struct table t = table_new(c->a, columns);
    table_heading(&t, S("name"));
    heading(c, &t, r->spec);
    heading(c, &t, r->status);
    table_heading(&t, S("age"));
    yyjson_arr_foreach (items, i, n, item) {
        int64_t us = 0;
        table_cell(&t, json_text_at(c->a, item, "metadata.name"));
        cells(c, &t, r->spec, yyjson_obj_get(item, "spec"));
        cells(c, &t, r->status, yyjson_obj_get(item, "status"));
        (void)time_parse(json_text_at(c->a, item, "metadata.created"), &us);
        table_cell(&t, age_text(c->a, us));
    }
    if (yyjson_arr_size(items))
        cli_table(c, &t);
    else
        fprintf(stderr, "no %s in project %.*s\n", r->plural, STR(c->project));
}

static void one_table(struct cli *c, yyjson_val *v)
{
    char *text = yyjson_val_write(v, 0, NULL);
    yyjson_val *list;
    struct str all = fmt(c->a, "{\"items\":[%s]}", text ? text : "");
    free(text);
    if (!json_parse(c->a, all, &list))
        list_table(c, list);
}

static err get_run(struct cli *c)
{
    struct str kind, name, path;
    yyjson_val *v;
    target_of(c, &kind, &name);
    TRY(cli_path(c, kind, name, NULL, &shown, &path));
    if (!name.n)
        path = fmt(c->a, "%.*s?limit=1000", STR(path));
    TRY(cli_call(c, M_GET, path, S(""), &v));
    return cli_show(c, v, name.n ? one_table : list_table);
}

static void lineage_print(struct cli *c, yyjson_val *edges, const char *title, const char *side)
{
    size_t i, n;
    yyjson_val *e;
    if (!yyjson_arr_size(edges))
        return;
    printf("%s:\n", title);
    yyjson_arr_foreach (edges, i, n, e) {
        int depth = (int)yyjson_get_sint(yyjson_obj_get(e, "depth"));
        printf("%*s%.*s\n", 2 * (depth > 0 ? depth : 1), "", STR(json_text_at(c->a, e, side)));
    }
}

static void lineage_table(struct cli *c, yyjson_val *v)
{
    lineage_print(c, yyjson_obj_get(v, "up"), "made from", "input");
    lineage_print(c, yyjson_obj_get(v, "down"), "made into", "output");
}

static err lineage_get(struct cli *c, const struct resource *r, struct str name, yyjson_val **out)
{
    return cli_call(c, M_GET,
                    fmt(c->a, "/api/v1/projects/%.*s/lineage?ref=%s/%.*s", STR(c->project), r->kind,
                        STR(url_encode(c->a, name))),
                    S(""), out);
}

static err describe_run(struct cli *c)
{
    struct str kind, name, path;
    const struct resource *r;
    yyjson_val *v, *lineage;
    target_of(c, &kind, &name);
    if (!name.n)
        FAIL(INVALID, "describe needs a name: dhow describe %.*s NAME", STR(kind));
    TRY(cli_path(c, kind, name, NULL, &r, &path));
    TRY(cli_call(c, M_GET, path, S(""), &v));
    TRY(cli_show(c, v, NULL));
    if (c->output == OUT_TABLE)
        chart_print(c, yyjson_obj_get(v, "status"));
    if (c->output == OUT_TABLE && !lineage_get(c, r, name, &lineage))
        lineage_table(c, lineage);
    return NULL;
}

static err lineage_run(struct cli *c)
{
    struct str kind, name, path;
    const struct resource *r;
    yyjson_val *v;
    target_of(c, &kind, &name);
    if (!name.n)
        FAIL(INVALID, "lineage needs a name: dhow lineage modelversion late.1");
    TRY(cli_path(c, kind, name, NULL, &r, &path));
    TRY(lineage_get(c, r, name, &v));
    return cli_show(c, v, lineage_table);
}

static err delete_run(struct cli *c)
{
    struct str kind, name, path;
    const struct resource *r;
    target_of(c, &kind, &name);
    if (!name.n)
        FAIL(INVALID, "delete needs a name: dhow delete %.*s NAME", STR(kind));
    TRY(cli_path(c, kind, name, NULL, &r, &path));
    TRY(cli_call(c, M_DELETE, path, S(""), NULL));
    printf("%s/%.*s deleted\n", r->kind, STR(name));
    return NULL;
}

static err explain_run(struct cli *c)
{
    if (!c->n_args) {
        struct table t = table_new(c->a, 3);
        table_cell(&t, S("KIND"));
        table_cell(&t, S("PLURAL"));
        table_cell(&t, S("WHAT IT IS"));
        for (const struct resource *const *r = cli_resources(); *r; r++) {
            table_cell(&t, str_of((*r)->kind));
            table_cell(&t, str_of((*r)->plural));
            table_cell(&t, str_of((*r)->doc));
        }
        cli_table(c, &t);
        return NULL;
    }
    const struct resource *r;
    struct str path;
    struct buf b = buf_new(c->a);
    if (!cli_resource(str_of(c->args[0])) && steps_markdown(c->a, str_of(c->args[0]), &b)) {
        printf("%.*s", STR(str_trim(buf_get(&b))));
        putchar('\n');
        return NULL;
    }
    TRY(cli_path(c, str_of(c->args[0]), S(""), NULL, &r, &path));
    buf_fmt(&b, "# %s\n\n%s\n\n", r->kind, r->doc);
    schema_markdown(r->spec, &b, S("spec"));
    if (r->status)
        schema_markdown(r->status, &b, S("status"));
    printf("%.*s", STR(buf_get(&b)));
    return NULL;
}

const struct cli_verb verb_get = {
    .name = "get",
    .args = "KIND [NAME]",
    .doc = "List things of a kind, or show one.",
    .examples = "  dhow get datasets\n  dhow get modelversion late.1 -o yaml\n  dhow get runs -o json",
    .args_min = 1,
    .args_max = 2,
    .run = get_run,
    .client = true,
};
const struct cli_verb verb_describe = {
    .name = "describe",
    .args = "KIND NAME",
    .doc = "Show one thing whole, with what it was made from and into.",
    .examples = "  dhow describe modelversion late.1",
    .args_min = 1,
    .args_max = 2,
    .run = describe_run,
    .client = true,
};
const struct cli_verb verb_lineage = {
    .name = "lineage",
    .args = "KIND NAME",
    .doc = "What it was made from, and what was made from it.",
    .examples = "  dhow lineage datasetversion flights.1",
    .args_min = 1,
    .args_max = 2,
    .run = lineage_run,
    .client = true,
};
const struct cli_verb verb_delete = {
    .name = "delete",
    .args = "KIND NAME",
    .doc = "Delete a thing nothing else refers to.",
    .examples = "  dhow delete pipeline late",
    .args_min = 1,
    .args_max = 2,
    .run = delete_run,
    .client = true,
};
const struct cli_verb verb_explain = {
    .name = "explain",
    .args = "[KIND | STEP]",
    .doc = "List the kinds, or tell what the fields of a kind or of a pipeline's step mean; needs no server.",
    .examples = "  dhow explain\n  dhow explain featureview\n  dhow explain train",
    .args_max = 1,
    .run = explain_run,
};
