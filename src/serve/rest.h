/* serve/rest: the REST adapter, in its parts; for its tests and fuzz entry. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/tensor.h"

/* What the adapter keeps of a request beside its struct infer. */
struct rest {
    struct str raw;  /* behind the JSON: binary tensors in the order of the inputs */
    bool raw_only;   /* there is no JSON: raw is the one input */
    bool binary;     /* outputs that do not say how they are wanted */
    uint64_t choice; /* bits of the outputs that do */
};
/* Body and headers of c->r into c, whose r, a and adapter (a struct rest) are set. */
err rest_read(struct infer *c);
/* Once the version is chosen: what the request leaves to the model, and what the model cannot give. */
err rest_fit(struct infer *c);
