/* exec, inside: what the daemon hands to the shim, and what the shim tells of the end. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "exec/exec.h"
#include "schema/schema.h"

// clang-format off
#define EXEC_LAUNCH(F, O, L, T)                                                                                \
    F(T, STRS,     argv,    REQUIRED, "Program and arguments.")                                                \
    F(T, STRS,     env,     0,        "Environment, K=V; nothing else is passed on.")                          \
    F(T, SIZE,     memory,  0,        "Most resident memory of the whole session; 0: no limit.", .def = "0")   \
    F(T, I64,      cpu,     0,        "Cores; 0: all.", .def = "0")                                            \
    F(T, DURATION, timeout, 0,        "Longest run; 0: none.", .def = "0")                                     \
    F(T, SIZE,     log_max, 0,        "Most bytes of output kept.", .def = "64Mi")
#define EXEC_EXIT(F, O, L, T)                                                                                  \
    F(T, I64,  exit_code,   0, "Exit code, or 128 + signal.")                                                  \
    F(T, I64,  signal,      0, "Signal that ended it; 0: none.")                                               \
    F(T, STR,  reason,      0, "Empty for success.")                                                           \
    F(T, F64,  cpu_seconds, 0, "User and system time.")                                                        \
    F(T, SIZE, memory_peak, 0, "Largest resident memory seen.")                                                \
    F(T, TIME, started,     0, "When it began.")                                                               \
    F(T, TIME, finished,    0, "When it ended.")
// clang-format on
SCHEMA(exec_launch, EXEC_LAUNCH);
SCHEMA(exec_exit, EXEC_EXIT);

/* The process's start time in clock ticks since boot (field 22 of /proc/PID/stat): with the pid it names a
 * process for ever. -1 if there is none. */
int64_t process_start_ticks(int64_t pid);
/* Resident bytes of every process of the session. */
int64_t session_rss(int64_t session);
