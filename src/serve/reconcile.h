/* serve/reconcile: the reconciler of Deployments, in parts: which versions should answer how much, and which do.
 * Flow     serve_step() --> wants.c: the spec's versions --> reconcile.c: plan, policies, models --> publish.c: those that are there
 *          --> rollout.c: a trial goes on --> status.c.
 * Threads  the control thread; what touches a struct depl with serve.m held. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/internal.h"

struct want {
    struct str version;
    double share;
    bool refused;
};
struct step {
    struct serve *s;
    struct arena *a;
    struct meta meta;
    struct deployment_spec spec;
    struct deployment_status status, before; /* before: as it was stored */
    struct model_status model;
    struct depl *d;
    struct want wants[VERSIONS_MAX];
    size_t wants_n;
    struct str trouble; /* what stands in the way */
    struct infer *go;   /* who waited and need no longer */
    bool stepped;       /* the trial's next step began */
};

/* ---- depl.c ---- */
/* A text's copy of one's own, on the heap, ended by 0; text_disown() frees it and leaves an empty one. */
struct str text_own(struct str);
void text_disown(struct str *);
struct depl *depl_need(struct serve *, struct str project, struct str name);
/* Result: who waited for it. */
struct infer *depl_remove(struct serve *, struct str project, struct str name);
void entry_drop(struct serve *, struct entry *);
void wanted_drop(struct serve *, struct depl *);
struct tally *tally_need(struct depl *, struct str version);

/* ---- wants.c ---- */
/* Fills t->wants. NOT_FOUND, INVALID: what the spec asks for is not there, or wrong. */
err wants_find(struct step *);
/* The challenger's, at the step where its trial is. */
double challenger_share(const struct step *);
/* The version that won and is to answer everything; empty: there is none (yet). */
struct str winner_of(const struct step *, const struct ab_status *);

/* ---- publish.c ---- */
/* What is wanted and not there. */
struct lacking {
    double share;
    bool loading, coming; /* anything; something that would answer */
};
struct lacking lacking_of(struct arena *, const struct depl *, struct str *trouble);
/* The version that answered most until now, for as long as what should replace it is not ready. */
struct model *depl_main(const struct depl *);

/* ---- status.c ---- */
void status_make(struct step *);
/* With m held: is it time to write? */
bool status_due(struct step *);
err status_tx(struct tx *, void *arg); /* arg: the step */
