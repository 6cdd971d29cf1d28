/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proof: samples of a transfer that move before the rest of it, to see that the direct path puts
 * the right bytes into the buffer, or takes them from there.
 */
#ifndef FDMABUF_PROOF_H
#define FDMABUF_PROOF_H

#include "queue/queue.h"

/* Chooses the samples of a transfer that has its extents. */
int proof_choose(struct fdmabuf_transfer *t);

/* Returns a sample that needs a request, or NULL. Sets *kind for that request. */
struct sample *proof_next(struct fdmabuf_transfer *t, enum part_kind *kind);

/* Returns true for the request of a sample that says nothing, because its path is not used. */
bool proof_is_moot(struct request *request);

/*
 * Prepare the request of a sample. proof_fill() puts bytes that the file does not have into the
 * buffer, for a direct read. Returns false if the exporter cannot, and then the sample is moot.
 */
bool proof_fill(struct request *request);
void proof_prepare_host(struct request *request, struct ring_command *command);

/* Handles the result of the request of a sample. */
void proof_complete(struct fdmabuf_queue *queue, struct request *request, int result);

/* Records that a sample has no request any more. */
void proof_end_request(struct request *request);

/* Records what the samples of the transfer have shown. */
void proof_conclude(struct fdmabuf_transfer *t);

/*
 * Of a transfer that is complete: returns true if it has to be done again by bounce, because a path
 * that it used has been disproved. With FDMABUF_DIRECT, or after another error, the transfer ends
 * and nothing of the path counts.
 */
bool proof_redo(struct fdmabuf_transfer *t);

/* Sets the error of a path that is disproved. Returns -EIO. */
int proof_fail(const struct pair *pair, enum fdmabuf_direction direction);

#endif
