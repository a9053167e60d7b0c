/* cli: one file per verb; main.c composes everything and is the only file that sees all modules.
 * Verbs    rows of one table: name, arguments, options, examples; help, completion and the reference are printed
 *          from it.
 * Output   stdout is data (-o table|json|yaml|csv), stderr is progress and errors; progress only on a terminal.
 * Errors   three lines: what, why, hint; exit codes 0, 1, 2 usage, 3 gate, 4 login, 5 conflict. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "base/base.h"
#include "net/net.h"
#include "sched/sched.h"
#include "schema/schema.h"
#include <stdio.h>

struct cli;

struct option {
    const char *name;  /* "listen" for --listen */
    char letter;       /* 'f' for -f; 0: none */
    const char *value; /* what it takes: "FILE"; NULL: a switch */
    const char *doc;
    const char *def; /* shown in help; NULL: none */
    bool many;       /* may be given more than once */
};
struct cli_verb {
    const char *name;
    const char *args;             /* "KIND [NAME]" */
    const char *doc;              /* one line */
    const char *examples;         /* lines, each a whole command */
    const struct option *options; /* ended by {0}; may be NULL */
    int args_min, args_max;       /* -1: any */
    err (*run)(struct cli *);     /* sets cli->exit for an exit code of its own */
    bool hidden;                  /* not for people: worker, shim */
    bool client;                  /* takes the options of a client: --server, --token-file, --project, -o */
};
extern const struct cli_verb *const verbs[]; /* NULL-terminated, main.c */
extern const struct option client_options[]; /* of each verb that is a client */

struct cli {
    struct arena *a;
    const struct cli_verb *verb;
    const char *const *args; /* what is left: not options */
    int n_args;
    struct {
        const struct option *option;
        const char *value;
    } given[64];
    int n_given;
    const char *const *rest; /* after "--" */
    int n_rest;
    int exit;
    struct http *http;
    struct str refused; /* path of the last request, if the server said no */
    struct str project;
    enum { OUT_TABLE, OUT_JSON, OUT_YAML, OUT_CSV } output;
};
/* Value of an option: the last given, else the environment's DHOW_NAME, else its default; NULL. */
const char *cli_option(const struct cli *, const char *name);
bool cli_has(const struct cli *, const char *name);
/* The i-th value of an option that may come more than once; NULL after the last. */
const char *cli_option_at(const struct cli *, const char *name, int i);

/* ---- talking to the server ---- */
/* Any 2xx gives the parsed reply (NULL if empty); else the problem as an error with its code and hint. */
err cli_call(struct cli *, enum method, struct str path, struct str body, yyjson_val **out);
/* The same; reply as it came. */
err cli_call_raw(struct cli *, enum method, struct str path, struct str body, struct http_reply *out);
/* What a verb ended with: where there is no thing of the name that was asked for last, with the nearest one that there is. Here and
 * not with the answer, as some verbs ask for what need not be there. */
err cli_near(struct cli *, err);
/* The token that requests carry; empty if there is none. */
err cli_token(struct cli *, struct str *out);
/* A client of its own, for threads. */
err cli_http(struct cli *, struct http **out);
/* "/api/v1/projects/P/datasets[/name[/action]]" for a kind in any spelling. INVALID with the nearest right one. */
err cli_path(struct cli *, struct str kind, struct str name, const char *action, const struct resource **res,
             struct str *out);
/* Kinds this binary knows, NULL-terminated. */
const struct resource *const *cli_resources(void);
const struct resource *cli_resource(struct str kind_plural_or_one);
extern const struct worker_type *const *cli_worker_types(struct arena *a);
extern const struct step_type *const *cli_step_types(void);
/* What a step of a pipeline can use, as Markdown: one type by name (false: there is none), or all. */
bool steps_markdown(struct arena *a, struct str only, struct buf *b);

/* ---- showing ---- */
/* Prints a JSON value as -o says; table is called for OUT_TABLE and OUT_CSV (NULL: YAML, and no CSV). */
err cli_show(struct cli *, yyjson_val *v, void (*table)(struct cli *, yyjson_val *));
/* Rows of cells as aligned columns; the first row is the heading. */
struct table {
    struct arena *a;
    size_t columns;
    VEC(struct str) cells;
};
struct table table_new(struct arena *a, size_t columns);
void table_cell(struct table *, struct str);
void table_heading(struct table *, struct str key); /* in capitals */
void table_print(const struct table *, FILE *);
/* On stdout, as -o says: aligned, or as CSV. */
void cli_table(const struct cli *, const struct table *);
bool cli_tty(FILE *);
/* One progress line on stderr, rewritten in place on a terminal and left out elsewhere. */
__attribute__((format(printf, 1, 2))) void cli_progress(const char *f, ...);
void cli_progress_end(void);
struct str age_text(struct arena *a, int64_t us); /* "3m" since then */
/* A bar of share (0 to 1) of so many columns. */
struct str bar_text(struct arena *a, double share, int columns);
/* What an object has in its members that is better drawn: lists of shares as bars, intervals on a common scale. */
void chart_print(const struct cli *, yyjson_val *object);
/* The member at a dotted path; NULL if absent. And its text ("" if absent). */
yyjson_val *json_at(yyjson_val *, const char *path);
struct str json_text_at(struct arena *a, yyjson_val *, const char *path);
struct str json_value_text(struct arena *a, yyjson_val *);

/* Prints an error as people see it: what, why, hint. */
void cli_error(err);
/* Waits for a run and shows its steps as they go; *exit_code is the run's. */
err run_watch(struct cli *, struct str run, int *exit_code);
void help_verb(const struct cli_verb *, FILE *);
void help_all(FILE *);
/* The reference of all verbs as Markdown. */
void help_markdown(struct buf *);

extern const struct cli_verb verb_serve, verb_apply, verb_diff, verb_get, verb_describe, verb_delete,
    verb_run, verb_cancel, verb_resume, verb_logs, verb_output, verb_predict, verb_model, verb_replay,
    verb_lineage, verb_drift, verb_rollback, verb_doctor, verb_audit, verb_token, verb_completion, verb_gen,
    verb_explain, verb_worker, verb_shim, verb_version, verb_train;
