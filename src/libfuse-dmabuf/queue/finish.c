/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ends transfers whose requests have all completed. */
#include "queue/access.h"
#include "queue/cut.h"
#include "queue/finish.h"
#include "queue/lists.h"
#include "queue/proof.h"
#include "queue/recover.h"
#include "queue/send.h"

static void flush_buffers(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++) {
		struct use *use = &t->uses[i];
		int ret = use->has_moved_directly ? buffer_flush(use->pair->buffer) : 0;

		if (ret) {
			transfer_stop(t, ret);
			transfer_note_nothing(t, use);
		}
	}
}

static void finish(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	cut_note_rest(t);
	access_end(t);
	if (t->direction == FDMABUF_READ) {
		flush_buffers(t);
		check_reopened_files(t);
	}
	transfer_let_pairs_go(t);
	t->phase = PHASE_DONE;
	t->is_active = false;
	list_remove(&queue->active_end, t);
	list_append(&queue->finished_end, t);
	queue->finished_count++;
	queue->ended_count++;
	queue->has_last_report |= t->progress != NULL;
	t->is_last_report_due = t->progress != NULL;
}

static bool is_complete(const struct fdmabuf_transfer *t)
{
	return !t->requests && (t->error || t->phase == PHASE_DONE);
}

bool finish_transfers(struct fdmabuf_queue *queue)
{
	bool any = false;

	for (struct fdmabuf_transfer *t = queue->active, *next; t; t = next) {
		next = t->next;
		if (t->error)
			send_free_parked(t);
		if (!t->requests && !t->error && t->phase != PHASE_DONE && !cut_has_more(t)) {
			if (t->phase == PHASE_PROOF)
				proof_conclude(t);
			cut_next_phase(t);
			any = true;
		}
		if (is_complete(t) && proof_redo(t)) {
			cut_again(t);
			any = true;
		} else if (is_complete(t)) {
			finish(queue, t);
			any = true;
		}
	}
	return any;
}
