/* base: what every other module stands on; it knows nothing of dhow.
 * Memory   arenas; strings and vectors grow in them. Small allocations abort when memory is gone.
 * Errors   `err`, NULL is success; lives in the thread's error arena until err_reset().
 * Threads  lanes (bounded queues with workers); everything else is free of global state.
 * Files    published atomically: write beside, fsync, rename, fsync the folder.
 * One header for users; the parts are base/<part>.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/library.h"
#include "base/log.h"
#include "base/pb.h"
#include "base/str.h"
#include "base/sys.h"
#include "base/thread.h"
#include "base/trace.h"
