/* serve/rest: the REST adapter, in its parts; for its tests and fuzz entry. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/tensor.h"

/* What the adapter keeps of a request beside its struct infer. */
enum { FORM_CUTS_MAX = 8 };
struct form_cut {
    size_t input;
    struct str data; /* of it, in the body */
};
struct rest {
    struct str raw;  /* behind the JSON: binary tensors in the order of the inputs */
    bool raw_only;   /* there is no JSON: raw is the one input */
    bool binary;     /* outputs that do not say how they are wanted */
    uint64_t choice; /* bits of the outputs that do */
    /* for form.c: where the JSON has data; more than FORM_CUTS_MAX are counted alone */
    struct form_cut cut[FORM_CUTS_MAX];
    size_t cuts_n;
    bool odd; /* data that came before their shape, or binary texts: the next such body is read, too */
};
/* Body and headers of c->r into c, whose r, a and adapter (a struct rest) are set. */
err rest_read(struct infer *c);
/* Once the version is chosen: what the request leaves to the model, and what the model cannot give. */
err rest_fit(struct infer *c);

/* ---- form.c: on the loop's thread, else nothing is kept ---- */
/* The body is one that came before with this head, but for the data of its tensors: c is filled as by reading it. */
bool form_take(struct infer *c, struct str json);
void form_cut(struct rest *, size_t input, struct str data);
/* It was read, and may come again. */
void form_keep(struct infer *c, struct str json);
