// SPDX-License-Identifier: Apache-2.0
/* apply and diff: files of resources against what the server holds. */
#include "cli/cli.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 << 20 };

struct document {
    struct str json, kind, name, project, path;
    const struct resource *res;
};
struct documents {
    struct document *v;
    size_t n, cap;
};

static err stdin_read(struct arena *a, struct str *out)
{
    struct buf b = buf_new(a);
    for (size_t n; b.n < FILE_BYTES_MAX && (n = fread(buf_room(&b, 65536), 1, 65536, stdin)) > 0;)
        b.n += n;
    *out = buf_get(&b);
    return NULL;
}

static err document_add(struct cli *c, const char *file, struct str json, struct documents *out)
{
    struct document d = { .json = json };
    yyjson_val *v;
    TRY(json_parse(c->a, json, &v));
    d.kind = json_text_at(c->a, v, "kind");
    d.name = json_text_at(c->a, v, "metadata.name");
    bool versioned = json_at(v, "apiVersion") != NULL;
    if (!d.kind.n || !d.name.n || !versioned)
        return err_hint(err_new(INVALID, "%s: a document has no %s", file,
                                !d.kind.n   ? "kind"
                                : !d.name.n ? "metadata.name"
                                            : "apiVersion"),
                        "start it with apiVersion: dhow/v1, kind: …, metadata: {name: …}");
    struct str project = json_text_at(c->a, v, "metadata.project"), before = c->project;
    if (project.n)
        c->project = project;
    d.project = c->project;
    err e = cli_path(c, d.kind, d.name, NULL, &d.res, &d.path);
    c->project = before;
    TRY_AS(e, "%s", file);
    push(c->a, out, d);
    return NULL;
}

static err file_add(struct cli *c, const char *file, struct documents *out)
{
    struct str text;
    struct strs docs = { 0 };
    yyjson_val *json;
    if (!strcmp(file, "-")) {
        TRY(stdin_read(c->a, &text));
        file = "standard input";
    } else {
        TRY(file_read(c->a, file, FILE_BYTES_MAX, &text));
    }
    if (!json_parse(c->a, text, &json)) /* all JSON, also what YAML's escapes leave out */
        return document_add(c, file, text, out);
    TRY_AS(yaml_to_json(c->a, text, &docs), "%s", file);
    for (size_t i = 0; i < docs.n; i++)
        if (!str_is(docs.v[i], "null"))
            TRY(document_add(c, file, docs.v[i], out));
    return NULL;
}

static bool is_yaml(struct str name)
{
    return str_ends(name, S(".yaml")) || str_ends(name, S(".yml")) || str_ends(name, S(".json"));
}

/* Every -f: a file, "-" for standard input, or a folder's YAML and JSON files in order of name. */
static err documents_read(struct cli *c, struct documents *out)
{
    const char *file;
    *out = (struct documents){ 0 };
    if (!cli_option_at(c, "file", 0))
        return file_add(c, "dhow.yaml", out);
    for (int i = 0; (file = cli_option_at(c, "file", i)); i++) {
        struct stat st;
        struct strs names;
        if (strcmp(file, "-") && !stat(file, &st) && S_ISDIR(st.st_mode)) {
            TRY(dir_list(c->a, file, &names));
            for (size_t k = 0; k < names.n; k++)
                if (is_yaml(names.v[k]))
                    TRY(file_add(c, fmtz(c->a, "%s/%.*s", file, STR(names.v[k])), out));
        } else {
            TRY(file_add(c, file, out));
        }
    }
    return NULL;
}

static err document_put(struct cli *c, const struct document *d, bool dry, struct http_reply *r)
{
    struct str path = dry ? fmt(c->a, "%.*s?dryRun=1", STR(d->path)) : d->path;
    TRY_AS(cli_call_raw(c, M_PUT, path, d->json, r), "%s '%.*s'", d->res->kind, STR(d->name));
    return NULL;
}

/* The revision that is stored now; 0 if there is nothing. */
static err document_rev(struct cli *c, const struct document *d, int64_t *rev)
{
    yyjson_val *v;
    err e = cli_call(c, M_GET, d->path, S(""), &v);
    *rev = e ? 0 : yyjson_get_sint(json_at(v, "metadata.rev"));
    return e && e->code != NOT_FOUND ? e : NULL;
}

static err apply_one(struct cli *c, const struct document *d, struct str *what)
{
    struct http_reply r;
    yyjson_val *v;
    int64_t rev;
    bool dry = cli_has(c, "dry-run");
    TRY(document_rev(c, d, &rev));
    TRY(document_put(c, d, dry, &r));
    TRY(json_parse(c->a, r.body, &v));
    if (dry)
        *what = fmt(c->a, "would be %.*s", STR(json_text_at(c->a, v, "change")));
    else if (r.status == 201)
        *what = S("created");
    else
        *what = yyjson_get_sint(json_at(v, "metadata.rev")) == rev ? S("unchanged") : S("updated");
    return NULL;
}

static err apply_run(struct cli *c)
{
    struct documents docs;
    TRY(documents_read(c, &docs));
    for (size_t i = 0; i < docs.n; i++) {
        const struct document *d = &docs.v[i];
        struct str what;
        TRY(apply_one(c, d, &what));
        printf("%s/%.*s %.*s\n", d->res->kind, STR(d->name), STR(what));
    }
    return NULL;
}

/* ---- diff ---- */

static void change_print(struct cli *c, yyjson_val *change)
{
    struct str path = json_text_at(c->a, change, "path");
    yyjson_val *before = yyjson_obj_get(change, "before"), *after = yyjson_obj_get(change, "after");
    if (before)
        printf("- %.*s: %.*s\n", STR(path), STR(json_value_text(c->a, before)));
    if (after)
        printf("+ %.*s: %.*s\n", STR(path), STR(json_value_text(c->a, after)));
}

/* The server says what would change, value by value. */
static err diff_run(struct cli *c)
{
    struct documents docs;
    TRY(documents_read(c, &docs));
    for (size_t i = 0; i < docs.n; i++) {
        const struct document *d = &docs.v[i];
        struct http_reply r;
        yyjson_val *v, *change;
        size_t k, n;
        TRY(document_put(c, d, true, &r));
        TRY(json_parse(c->a, r.body, &v));
        struct str word = json_text_at(c->a, v, "change");
        if (str_is(word, "unchanged"))
            continue;
        c->exit = 1;
        printf("%s/%.*s would be %.*s\n", d->res->kind, STR(d->name), STR(word));
        yyjson_arr_foreach (yyjson_obj_get(v, "changes"), k, n, change)
            change_print(c, change);
    }
    return NULL;
}

static const struct option apply_options[] = {
    { "file", 'f', "FILE", "File, folder or - to read; may be given again.", "dhow.yaml", true },
    { "dry-run", 0, NULL, "Only check what the server would say.", NULL, false },
    { 0 },
};
static const struct option diff_options[] = {
    { "file", 'f', "FILE", "File, folder or - to read; may be given again.", "dhow.yaml", true },
    { 0 },
};
const struct cli_verb verb_apply = {
    .name = "apply",
    .args = "",
    .doc = "Create or change what files describe; the same file twice changes nothing.",
    .examples =
        "  dhow apply -f dhow.yaml\n  dhow apply -f models/ -p risk\n  dhow get dataset flights -o yaml | dhow apply -f -",
    .options = apply_options,
    .run = apply_run,
    .client = true,
};
const struct cli_verb verb_diff = {
    .name = "diff",
    .args = "",
    .doc = "Show what apply would change; exit code 0 same, 1 differs.",
    .examples = "  dhow diff -f dhow.yaml",
    .options = diff_options,
    .run = diff_run,
    .client = true,
};
