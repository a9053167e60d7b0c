/* library: finds the shared libraries that are bound at run time.
 * Order    the path given; the environment variable; lib/, ../lib, ../.deps/lib and .deps/lib up to four folders above
 *          the program's; the loader's path. What is given or in the environment is tried alone.
 * Owns     a library stays in the process once it is open. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"

struct library {
    const char *what;         /* "XGBoost" */
    const char *env;          /* "DHOW_XGBOOST_LIB" */
    const char *const *names; /* file names, best first, NULL-terminated */
    const char *hint;
};
/* UNAVAILABLE that names it, with the hint. given: a path or NULL. */
err library_open(struct arena *a, const struct library *, const char *given, void **out);
/* Fills the function pointers at the offsets of table; UNAVAILABLE if the library lacks one. */
struct library_function {
    const char *name;
    size_t offset;
};
err library_bind(const struct library *, void *so, const struct library_function *, size_t n, void *table);
