// SPDX-License-Identifier: Apache-2.0
/* predict: rows to a deployment, by key or as tensors; rollback of what is served. */
#include "cli/cli.h"
#include <stdlib.h>

enum { BODY_BYTES_MAX = 64 << 20 };

/* --key origin=ATL → {"entities":{"origin":["ATL"]}}; numbers go as numbers. */
static err keys_write(struct cli *c, struct json *j)
{
    const char *k;
    json_obj(j);
    json_key(j, S("entities"));
    json_obj(j);
    for (int i = 0; (k = cli_option_at(c, "key", i)); i++) {
        struct str rest = str_of(k), key;
        double number;
        if (!strchr(k, '=') || !str_cut(&rest, '=', &key))
            FAIL(INVALID, "--key takes NAME=VALUE, not '%s'", k);
        json_key(j, key);
        json_arr(j);
        if (str_f64(rest, &number))
            json_raw(j, rest);
        else
            json_str(j, rest);
        json_arr_end(j);
    }
    json_obj_end(j);
    json_obj_end(j);
    return NULL;
}

static err body_find(struct cli *c, struct str *out)
{
    const char *d = cli_option(c, "data");
    if (d && d[0] == '@')
        return file_read(c->a, d + 1, BODY_BYTES_MAX, out);
    if (d) {
        *out = str_of(d);
        return NULL;
    }
    if (!cli_has(c, "key"))
        return err_hint(err_new(INVALID, "predict needs --key or --data"),
                        "dhow predict late --key origin=ATL --key destination=ORD …");
    struct json j = json_new(c->a);
    TRY(keys_write(c, &j));
    *out = json_get(&j);
    return NULL;
}

static void predict_table(struct cli *c, yyjson_val *v)
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

static err predict_run(struct cli *c)
{
    struct str body;
    yyjson_val *v;
    const char *version = cli_option(c, "version");
    struct str path = fmt(c->a, "/v2/models/%.*s%s%s/infer", STR(url_encode(c->a, str_of(c->args[0]))),
                          version ? "/versions/" : "", version ? version : "");
    TRY(body_find(c, &body));
    TRY(cli_call(c, M_POST, path, body, &v));
    return cli_show(c, v, predict_table);
}

static err rollback_run(struct cli *c)
{
    struct str path;
    yyjson_val *v;
    TRY(cli_path(c, S("deployments"), str_of(c->args[0]), "rollback", NULL, &path));
    TRY(cli_call(c, M_POST, path, S("{}"), &v));
    return cli_show(c, v, NULL);
}

static const struct option predict_options[] = {
    { "key", 'k', "NAME=VALUE", "A key or a value of the request; give one for each.", NULL, true },
    { "data", 'd', "JSON|@FILE", "The whole request body instead.", NULL, false },
    { "version", 0, "NAME", "A certain version.", NULL, false },
    { 0 },
};
const struct cli_verb verb_predict = {
    .name = "predict",
    .args = "DEPLOYMENT",
    .doc = "Ask a deployment for a prediction.",
    .examples =
        "  dhow predict late -k origin=ATL -k destination=ORD -k date=2001-06-15T17:00 -k ts=2001-06-15T23:00 -k distance=606\n"
        "  dhow predict late -d @request.json -o json",
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
