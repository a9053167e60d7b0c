// SPDX-License-Identifier: Apache-2.0
/* Arguments, help, errors: what every verb shares. */
#include "cli/cli.h"
#include <stdlib.h>
#include <unistd.h>

const struct option client_options[] = {
    { "server", 0, "URL", "The daemon to talk to.", "http://127.0.0.1:7300", false },
    { "token-file", 0, "FILE", "File with the token; else DHOW_TOKEN.", NULL, false },
    { "project", 'p', "NAME", "The project to work in.", "default", false },
    { "output", 'o', "FORMAT", "table, csv, json or yaml.", "table", false },
    { 0 },
};

/* ---- help ---- */

static void help_options(const struct option *o, FILE *f)
{
    for (; o && o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : "  ", o->letter ? o->letter : ' ',
                 o->letter ? ", " : "  ", o->name, o->value ? " " : "", o->value ? o->value : "");
        fprintf(f, "  %-28s %s%s%s%s\n", left, o->doc, o->def ? " [" : "", o->def ? o->def : "",
                o->def ? "]" : "");
    }
}

void help_verb(const struct cli_verb *v, FILE *f)
{
    fprintf(f, "%s\n\nusage: dhow %s%s%s%s\n", v->doc, v->name, *v->args ? " " : "", v->args,
            v->options || v->client ? " [options]" : "");
    if (v->examples)
        fprintf(f, "\nexamples:\n%s\n", v->examples);
    if (v->options || v->client)
        fprintf(f, "\noptions:\n");
    help_options(v->options, f);
    if (v->client)
        help_options(client_options, f);
}

void help_all(FILE *f)
{
    fprintf(f,
            "dhow %s: a machine-learning platform in one program\n\n"
            "examples:\n"
            "  dhow serve                          start the daemon; data in ./dhow_data\n"
            "  dhow apply -f dhow.yaml             create or change what the file describes\n"
            "  dhow run late                       run a pipeline and watch it\n"
            "  dhow get modelversions              list things of a kind\n\n"
            "verbs:\n",
            DHOW_VERSION);
    for (const struct cli_verb *const *v = verbs; *v; v++)
        if (!(*v)->hidden)
            fprintf(f, "  %-12s %s\n", (*v)->name, (*v)->doc);
    fprintf(f, "\n`dhow VERB --help` tells more; `dhow explain KIND` tells what a kind holds.\n");
}

static void markdown_options(struct buf *b, const struct option *o)
{
    for (; o && o->name; o++) {
        buf_fmt(b, "| `--%s%s", o->name, o->value ? " " : "");
        for (const char *v = o->value; v && *v; v++)
            buf_fmt(b, "%s%c", *v == '|' ? "\\" : "", *v); /* a bare one would end the cell */
        buf_fmt(b, "`");
        if (o->letter)
            buf_fmt(b, ", `-%c`", o->letter);
        buf_fmt(b, " | %s | %s |\n", o->def ? o->def : "", o->doc);
    }
}

void help_markdown(struct buf *b)
{
    buf_fmt(
        b,
        "# Commands\n\nPrinted by `dhow gen`. Exit codes: 0 success, 1 failed, 2 usage or invalid input, 3 a gate "
        "refused it, 4 login, 5 conflict.\n\nEvery verb that talks to a daemon takes:\n\n"
        "| option | default | meaning |\n|---|---|---|\n");
    markdown_options(b, client_options);
    buf_fmt(
        b,
        "\nAn option that is not given is taken from the environment: `--token-file` from `DHOW_TOKEN_FILE`.\n");
    for (const struct cli_verb *const *v = verbs; *v; v++) {
        if ((*v)->hidden)
            continue;
        buf_fmt(b, "\n## dhow %s\n\n%s\n\n    dhow %s%s%s\n", (*v)->name, (*v)->doc, (*v)->name,
                *(*v)->args ? " " : "", (*v)->args);
        if ((*v)->examples)
            buf_fmt(b, "\nExamples:\n\n```\n%s\n```\n", (*v)->examples);
        if ((*v)->options) {
            buf_fmt(b, "\n| option | default | meaning |\n|---|---|---|\n");
            markdown_options(b, (*v)->options);
        }
    }
}

/* ---- arguments ---- */

static const struct option *option_find(const struct option *list, const char *name, size_t n, char letter)
{
    for (; list && list->name; list++)
        if (letter ? list->letter == letter : strlen(list->name) == n && !memcmp(list->name, name, n))
            return list;
    return NULL;
}

static const struct option *verb_option(const struct cli_verb *v, const char *name, size_t n, char letter)
{
    const struct option *o = option_find(v->options, name, n, letter);
    return o || !v->client ? o : option_find(client_options, name, n, letter);
}

static err usage(const struct cli_verb *v, err e)
{
    return err_hint(e, "dhow %s --help", v->name);
}

static err option_take(struct cli *c, const char *arg, char **argv, int *i, int argc)
{
    bool is_long = arg[1] == '-';
    const char *name = arg + 1 + is_long, *eq = is_long ? strchr(name, '=') : NULL;
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const struct option *o = verb_option(c->verb, name, n, is_long ? 0 : name[0]);
    if (!o || (!is_long && n > 1 && !o->value))
        return usage(c->verb, err_new(INVALID, "dhow %s has no option %s", c->verb->name, arg));
    const char *value = eq ? eq + 1 : !is_long && n > 1 ? name + 1 : NULL;
    if (!o->value && value)
        return usage(c->verb, err_new(INVALID, "--%s takes no value", o->name));
    if (o->value && !value) {
        if (*i + 1 >= argc)
            return usage(c->verb, err_new(INVALID, "--%s needs a value: %s", o->name, o->value));
        value = argv[++*i];
    }
    if (c->n_given == sizeof c->given / sizeof *c->given)
        FAIL(INVALID, "too many options");
    c->given[c->n_given].option = o;
    c->given[c->n_given++].value = value ? value : "";
    return NULL;
}

static err arguments_read(struct cli *c, int argc, char **argv)
{
    const char **args = NEW_N(c->a, const char *, (size_t)argc + 1);
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--")) {
            c->rest = (const char *const *)&argv[i + 1];
            c->n_rest = argc - i - 1;
            break;
        }
        if (argv[i][0] == '-' && argv[i][1])
            TRY(option_take(c, argv[i], argv, &i, argc));
        else
            args[c->n_args++] = argv[i];
    }
    c->args = args;
    if (c->n_args < c->verb->args_min || (c->verb->args_max >= 0 && c->n_args > c->verb->args_max))
        return usage(c->verb, err_new(INVALID, "dhow %s takes %s", c->verb->name,
                                      *c->verb->args ? c->verb->args : "no arguments"));
    return NULL;
}

bool cli_has(const struct cli *c, const char *name)
{
    for (int i = 0; i < c->n_given; i++)
        if (!strcmp(c->given[i].option->name, name))
            return true;
    return false;
}

const char *cli_option_at(const struct cli *c, const char *name, int at)
{
    for (int i = 0; i < c->n_given; i++)
        if (!strcmp(c->given[i].option->name, name) && at-- == 0)
            return c->given[i].value;
    return NULL;
}

const char *cli_option(const struct cli *c, const char *name)
{
    for (int i = c->n_given - 1; i >= 0; i--)
        if (!strcmp(c->given[i].option->name, name))
            return c->given[i].value;
    char var[64] = "DHOW_";
    for (size_t i = 0; name[i] && i + 6 < sizeof var; i++)
        var[5 + i] = name[i] == '-' ? '_' : (char)(name[i] - ('a' <= name[i] && name[i] <= 'z') * 32);
    const char *env = getenv(var);
    if (env && *env)
        return env;
    const struct option *o = verb_option(c->verb, name, strlen(name), 0);
    return o ? o->def : NULL;
}

/* ---- main ---- */

void cli_error(err e)
{
    /* "doing this: that went wrong: because" → what and why on lines of their own */
    size_t cut = e->text.n;
    for (size_t i = 0; i + 1 < e->text.n; i++)
        if (e->text.p[i] == ':' && e->text.p[i + 1] == ' ') {
            cut = i;
            break;
        }
    fprintf(stderr, "error: %.*s\n", (int)cut, e->text.p);
    if (cut < e->text.n)
        fprintf(stderr, "why:   %.*s\n", (int)(e->text.n - cut - 2), e->text.p + cut + 2);
    if (e->hint.n)
        fprintf(stderr, "hint:  %.*s\n", STR(e->hint));
}

static const struct cli_verb *verb_find(const char *name)
{
    for (const struct cli_verb *const *v = verbs; *v; v++)
        if (!strcmp((*v)->name, name))
            return *v;
    return NULL;
}

static err verb_unknown(struct arena *a, const char *name)
{
    struct strs names = { 0 };
    for (const struct cli_verb *const *v = verbs; *v; v++)
        if (!(*v)->hidden)
            push(a, &names, str_of((*v)->name));
    struct str near = str_nearest(str_of(name), names.v, names.n);
    return err_hint(err_new(INVALID, "dhow has no verb '%s'", name),
                    near.n ? "did you mean `dhow %.*s`?" : "dhow --help%.*s", STR(near));
}

static err client_setup(struct cli *c)
{
    const char *output = cli_option(c, "output");
    c->project = str_of(cli_option(c, "project"));
    if (!strcmp(output, "json"))
        c->output = OUT_JSON;
    else if (!strcmp(output, "yaml"))
        c->output = OUT_YAML;
    else if (!strcmp(output, "csv"))
        c->output = OUT_CSV;
    else if (strcmp(output, "table"))
        return usage(c->verb, err_new(INVALID, "-o is table, csv, json or yaml, not '%s'", output));
    if (!name_ok(c->project))
        FAIL(INVALID, "--project: '%.*s' is not the name of a project", STR(c->project));
    return NULL;
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    struct cli c = { .a = a };
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        c.verb = argc > 2 ? verb_find(argv[2]) : NULL;
        if (c.verb)
            help_verb(c.verb, stdout);
        else
            help_all(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    c.verb = !strcmp(argv[1], "--version") ? &verb_version : verb_find(argv[1]);
    for (int i = 2; c.verb && i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            help_verb(c.verb, stdout);
            return 0;
        }
    err e = c.verb ? arguments_read(&c, argc - 2, argv + 2) : verb_unknown(a, argv[1]);
    if (!e && c.verb->client)
        e = client_setup(&c);
    if (!e)
        e = c.verb->run(&c);
    if (e)
        e = cli_near(&c, e);
    http_close(c.http);
    cli_progress_end();
    if (!e && fflush(stdout))
        e = err_new(INTERNAL, "cannot write the output");
    if (!e)
        return c.exit;
    cli_error(e);
    return err_table[e->code].exit ? err_table[e->code].exit : 1;
}
