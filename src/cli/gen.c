// SPDX-License-Identifier: Apache-2.0
/* gen and completion: what the binary knows by heart, printed. */
#include "cli/app.h"
#include "cli/cli.h"
#include <stdlib.h>

static err write_to(struct cli *c, const char *into, const char *path, struct str text)
{
    const char *full = fmtz(c->a, "%s/%s", into, path);
    struct str dir = str_of(full);
    while (dir.n && dir.p[dir.n - 1] != '/')
        dir.n--;
    TRY(dir_make(str_z(c->a, dir)));
    return file_write(full, text);
}

static struct str kinds_markdown(struct arena *a)
{
    struct buf b = buf_new(a);
    buf_fmt(
        &b,
        "# Kinds\n\nPrinted by `dhow gen`. A resource is `apiVersion: dhow/v1`, `kind`, `metadata` (name, project, "
        "labels) and `spec`; `status` is written by dhow alone. Fields that equal their default are left out of what is "
        "shown.\n");
    for (const struct resource *const *r = cli_resources(); *r; r++) {
        buf_fmt(&b, "\n## %s\n\n%s\n\n", (*r)->kind, (*r)->doc);
        schema_markdown((*r)->spec, &b, S("spec"));
        if ((*r)->status)
            schema_markdown((*r)->status, &b, S("status"));
    }
    return buf_get(&b);
}

/* One type of work: what it is given, what it gives. */
static void step_markdown(struct buf *b, const char *name, const char *doc, const char *where,
                          const struct schema *with, const char *outputs)
{
    struct str rest = str_of(outputs ? outputs : "");
    buf_fmt(b, "\n## %s\n\n%s Runs in %s.\n\n", name, doc, where);
    if (with)
        schema_markdown(with, b, S("with"));
    if (rest.n)
        buf_fmt(b, "Outputs, for `${steps.NAME.…}`:\n\n");
    for (struct str one; str_cut(&rest, ';', &one);) {
        one = str_trim(one);
        size_t colon = str_find(one, ':');
        buf_fmt(b, "- `%.*s`%.*s\n", (int)colon, one.p, STR(str_sub(one, colon, one.n)));
    }
}

bool steps_markdown(struct arena *a, struct str only, struct buf *b)
{
    size_t before = b->n;
    for (const struct worker_type *const *t = cli_worker_types(a); *t; t++)
        if (!only.n || str_eq(only, str_of((*t)->name)))
            step_markdown(b, (*t)->name, (*t)->doc, "a process of its own, as a job", (*t)->with,
                          (*t)->outputs);
    for (const struct step_type *const *t = cli_step_types(); *t; t++)
        if (!only.n || str_eq(only, str_of((*t)->name)))
            step_markdown(b, (*t)->name, (*t)->doc, "the daemon", (*t)->with, (*t)->outputs);
    return b->n > before;
}

static struct str steps_text(struct arena *a)
{
    struct buf b = buf_new(a);
    buf_fmt(
        &b,
        "# Steps\n\nPrinted by `dhow gen`. What a step of a Pipeline can name in `uses`, what it takes in `with`, and what "
        "later steps can take from it. Inside `with`, `${params.NAME}`, `${steps.NAME.OUTPUT}`, `${steps.NAME.job}`, "
        "`${event.KEY}` and `${run.name}` are filled in. A Job of such a type takes the same `with`.\n");
    steps_markdown(a, S(""), &b);
    return buf_get(&b);
}

static struct str errors_markdown(struct arena *a)
{
    struct buf b = buf_new(a);
    buf_fmt(&b,
            "# Errors\n\nPrinted by `dhow gen`.\n\n| code | HTTP | exit | meaning |\n|---|---|---|---|\n");
    for (int i = 1; i < ERR_COUNT; i++)
        buf_fmt(&b, "| %.*s | %d | %d | %.*s |\n", STR(err_table[i].name), err_table[i].http,
                err_table[i].exit, STR(err_table[i].doc));
    return buf_get(&b);
}

/* The routes belong to a daemon: one is started on an empty folder, asked, and stopped. */
static err openapi_make(struct cli *c, struct str *out)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = strdup(fmtz(c->a, "%s/dhow-gen-XXXXXX", tmp ? tmp : "/tmp"));
    struct app *app;
    if (!dir || !mkdtemp(dir))
        FAIL(INTERNAL, "cannot make a folder in %s", tmp ? tmp : "/tmp");
    log_setup(LOG_WARN, false);
    err e = app_start(
        &(struct app_config){ .listen = S("127.0.0.1:0"), .data = str_of(dir), .sources = str_of(dir) },
        &app);
    if (!e) {
        *out = app_openapi(app, c->a);
        app_stop(app);
    }
    (void)dir_remove(dir);
    free(dir);
    return e;
}

static err gen_run(struct cli *c)
{
    const char *into = cli_option(c, "into");
    struct buf commands = buf_new(c->a);
    struct str openapi;
    help_markdown(&commands);
    TRY(write_to(c, into, "docs/reference/commands.md", buf_get(&commands)));
    TRY(write_to(c, into, "docs/reference/kinds.md", kinds_markdown(c->a)));
    TRY(write_to(c, into, "docs/reference/steps.md", steps_text(c->a)));
    TRY(write_to(c, into, "docs/reference/errors.md", errors_markdown(c->a)));
    TRY(openapi_make(c, &openapi));
    TRY(write_to(c, into, "openapi.json", openapi));
    return NULL;
}

static void option_names(const struct option *o)
{
    for (; o && o->name; o++)
        printf("--%s ", o->name);
}

/* What begins with a dash is an option of the verb. */
static void completion_options(void)
{
    printf("  if [[ $cur == -* ]]; then\n    case ${COMP_WORDS[1]} in\n");
    for (const struct cli_verb *const *v = verbs; *v; v++) {
        if ((*v)->hidden)
            continue;
        printf("    %s) COMPREPLY=($(compgen -W '", (*v)->name);
        option_names((*v)->options);
        option_names((*v)->client ? client_options : NULL);
        printf("--help' -- \"$cur\")) ;;\n");
    }
    printf("    esac\n    return\n  fi\n");
}

static err completion_run(struct cli *c)
{
    if (strcmp(c->args[0], "bash"))
        return err_hint(err_new(INVALID, "completion is there for bash, not for %s", c->args[0]),
                        "eval \"$(dhow completion bash)\"");
    printf(
        "_dhow() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n  if [ \"$COMP_CWORD\" = 1 ]; then\n    COMPREPLY=($(compgen -W '");
    for (const struct cli_verb *const *v = verbs; *v; v++)
        if (!(*v)->hidden)
            printf("%s ", (*v)->name);
    printf("' -- \"$cur\"))\n    return\n  fi\n");
    completion_options();
    printf("  case ${COMP_WORDS[1]} in\n  get|describe|delete|explain|lineage)\n    "
           "[ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W '");
    for (const struct resource *const *r = cli_resources(); *r; r++)
        printf("%s ", (*r)->plural);
    printf(
        "' -- \"$cur\"))\n    [ \"$COMP_CWORD\" = 3 ] && COMPREPLY=($(compgen -W \"$(dhow get \"${COMP_WORDS[2]}\" "
        "2>/dev/null | awk 'NR>1{print $1}')\" -- \"$cur\")) ;;\n"
        "  run) COMPREPLY=($(compgen -W \"$(dhow get pipelines 2>/dev/null | awk 'NR>1{print $1}')\" -- \"$cur\")) ;;\n"
        "  predict|rollback) COMPREPLY=($(compgen -W \"$(dhow get deployments 2>/dev/null | awk 'NR>1{print $1}')\" -- "
        "\"$cur\")) ;;\n"
        "  model) [ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W 'list config stats load unload bench' -- \"$cur\"))\n"
        "    [ \"$COMP_CWORD\" = 3 ] && COMPREPLY=($(compgen -W \"$(dhow get deployments 2>/dev/null | "
        "awk 'NR>1{print $1}')\" -- \"$cur\")) ;;\n  *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n  esac\n}\ncomplete -F _dhow dhow\n");
    return NULL;
}

static const struct option gen_options[] = {
    { "into", 0, "DIR", "Top folder of the repository.", ".", false },
    { 0 },
};
const struct cli_verb verb_gen = {
    .name = "gen",
    .args = "",
    .doc = "Write the reference and openapi.json from the tables of this binary.",
    .examples = "  dhow gen --into=.",
    .options = gen_options,
    .run = gen_run,
};
const struct cli_verb verb_completion = {
    .name = "completion",
    .args = "bash",
    .doc = "Print a completion script for the shell.",
    .examples = "  eval \"$(dhow completion bash)\"",
    .args_min = 1,
    .args_max = 1,
    .run = completion_run,
};
