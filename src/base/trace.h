/* trace: W3C Trace Context (Level 1): who a request belongs to across servers.
 * Flow     traceparent, tracestate of a request --trace_parse--> struct trace --trace_text--> our own traceparent.
 * Strict   what breaks a rule of the recommendation counts as not sent; a broken tracestate alone is dropped alone.
 * Threads  any. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/str.h"
#include <stdint.h>

enum { TRACE_TEXT = 55, TRACE_ID_TEXT = 32 }; /* characters of "00-…-…-01", of the trace id alone */
struct trace {
    uint8_t id[16];    /* of the whole trace */
    uint8_t parent[8]; /* the caller's span; zeros: we began the trace */
    uint8_t span[8];   /* our own */
    bool sampled;
    struct str state; /* tracestate, borrowed; empty: none */
};

/* Reads what a caller sent and makes our span; false: no trace. tracestate may be empty. */
bool trace_parse(struct str traceparent, struct str tracestate, struct trace *out);
/* A new trace, sampled. */
void trace_begin(struct trace *out);
/* Exactly TRACE_TEXT characters (no NUL): our span as the parent of whoever reads it. */
void trace_text(const struct trace *, char out[TRACE_TEXT]);
/* Exactly TRACE_ID_TEXT hex digits (no NUL). */
void trace_id_text(const struct trace *, char out[TRACE_ID_TEXT]);
