/* monitor: sketches every prediction, compares windows with the training's baseline, joins outcomes, raises alarms.
 * Flow     serve --prediction--> sketches of the open window (event time) --a later request or outcome closes it-->
 *          reconciler: Wasserstein/std and PSI per feature --sustain windows over the share--> event monitor.drifted
 *          --> pipeline; feature_push --id, label--> prediction of that id --> realised AUC.
 * Owns     kind Monitor; in memory, per Monitor: sketches, the last predictions by id, AUC histograms.
 * Windows  tumble in event time: the first begins at the first request's time, the next one at its end. Only the
 *          predictions of the champion (or the deployment's spec.version, or with watch: challenger of a rollout's newcomer) are sketched; a new one has a new
 *          baseline: its first window and its alarm begin anew. What the status says of the last judged window
 *          (judged, drift) and of the last alarm (lastAlarm) names its version and stays until there is a newer one.
 *          A row older than the open window is left out. A row more than a window away from the open one is left
 *          out, too, until as many requests speak for that time as the open window holds (at most 20): one client
 *          with a wrong clock moves nothing, and a replay that starts over is followed. A pushed outcome that finds
 *          its prediction tells the time, too, by its known (else event) time: it closes a window whose end has
 *          passed by less than a window. So the last one is judged when requests end and outcomes go on.
 * Alarm    a window of at least features.min predictions is over if the share of features over a bound is at least
 *          features.share. `sustain` such windows running: alarm drifted and event monitor.drifted, once, in the
 *          same transaction; told again only of a new version or when cooldown (event time) has passed.
 *          `sustain` windows running that are not over end the alarm. Data of the event: time (end of the window,
 *          the now of the data), deployment, version, share, reason, window {from, until, predictions}, features
 *          {name: {wasserstein, psi}}: those over a bound, the worst first, at most 50.
 * AUC      of the latest prediction per id, in a histogram of 10,000 equal bins over [0, 1] (and 1,000 on each side
 *          for scores that are no probabilities). Two scores of one bin count as equal, so the error is at most
 *          ½ Σ_bins (positives/all positives)(negatives/all negatives), which is given (aucError). A window's AUC
 *          takes the outcomes that were there when it closed; later ones count into the version's total. An outcome
 *          may come before its prediction. Ids are kept as 64-bit hashes. What `dhow replay` says of all versions together
 *          is no mean of theirs: it also compares rows that two of them scored, and knows those that land later.
 * Restart  the open window, the predictions by id and the totals begin anew; what is in the status is kept.
 * Threads  any. A prediction takes one lock of several (by CPU) and allocates once per window and CPU; measured
 *          0.4 µs a row of 26 features, 0.3 µs more to remember its id, and no more with two threads. Closing a
 *          window takes a serving thread 40 µs: it hands the sketches to the control thread, which judges one window
 *          at a time (at most 8 wait, further ones are lost).
 * Errors   none reach the request; what stands in the way is status.message. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/feature.h"
#include "monitor/kinds.h"
#include "serve/serve.h"

struct monitors;
struct monitors_config {
    struct store *store;
    struct serve *serve;       /* NULL: monitors_predicted() is called by hand */
    struct features *features; /* NULL: monitors_pushed() is called by hand */
    size_t predictions_max;    /* kept by id for each Monitor with outcomes; 0: 2,000,000 (at most 82 MB) */
};
/* Registers itself as observer of serve and features: before traffic starts. */
err monitors_open(const struct monitors_config *, struct monitors **out);
/* NULL is fine; after net_stop and control_stop. */
void monitors_close(struct monitors *);
void monitors_set_control(struct monitors *, struct control *);
/* Watches Monitor, Deployment, Model. Writes a status every two seconds while counts change, and at each close. */
struct reconciler monitors_reconciler(struct monitors *);
void monitors_metrics(void *monitors, struct buf *out); /* for api_metrics_add */

/* The observers. */
void monitors_predicted(void *monitors, const struct prediction *);
void monitors_pushed(void *monitors, struct str project, struct str dataset, const struct columns *batch);
